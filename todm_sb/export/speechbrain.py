"""Folders that SpeechBrain's ``from_hparams`` loads."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from speechbrain.processing.features import InputNormalization

from todm_sb import __version__
from todm_sb.nnet.features import check_exportable
from todm_sb.nnet.transducer import Transducer
from todm_sb.supernet import SearchSpace
from todm_sb.utils.ownership import new_export

_TEMPLATE = """\
# A {what} written by todm_sb {version}. Load it with
#   todm_sb.inference.SubnetASR.from_hparams(source=<this folder>), or with
#   speechbrain.inference.ASR.EncoderDecoderASR.from_hparams(source=<this folder>)

sample_rate: {sample_rate}
longest_seconds: {longest_seconds}
{space}
model: !new:todm_sb.nnet.transducer.Transducer {network}

normalize: !new:speechbrain.processing.features.InputNormalization
    norm_type: {norm_type}
features: !new:todm_sb.nnet.features.SpeechFeatures
    fbank: !apply:todm_sb.nnet.features.make_fbank {fbank}
    normalizer: !ref <normalize>
    hop: {hop}

encoder: !new:todm_sb.inference.asr.WaveformEncoder
    features: !ref <features>
    model: !ref <model>
decoder: !new:todm_sb.decoders.transducer.TransducerSearcher
    model: !ref <model>
    max_symbols: {max_symbols}
modules:
    normalize: !ref <normalize>
    encoder: !ref <encoder>
    decoder: !ref <decoder>

audio_normalizer: !new:speechbrain.dataio.preprocess.AudioNormalizer
    sample_rate: !ref <sample_rate>
tokenizer: !new:sentencepiece.SentencePieceProcessor
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        model: !ref <model>
        normalize: !ref <normalize>
        tokenizer: !ref <tokenizer>
"""


def export_folder(
    folder: str | Path,
    model: Transducer,
    normalize: InputNormalization,
    tokenizer_path: str | Path,
    fbank: dict[str, Any],
    hop: int,
    max_symbols: int = 5,
    space: SearchSpace | None = None,
    longest_seconds: float | None = None,
    card: str | None = None,
) -> None:
    """Writes ``hyperparams.yaml``, ``model.ckpt``, ``normalize.ckpt`` and ``tokenizer.ckpt``.

    The auxiliaries of training are left out.

    Args:
        folder: made if need be; an earlier export there is replaced.
        model: the network; a supernet if ``space`` is given.
        normalize: holds the feature statistics.
        tokenizer_path: SentencePiece model.
        fbank: arguments of :func:`todm_sb.nnet.features.make_fbank`.
        hop: samples between feature frames.
        max_symbols: labels a frame at most.
        space: of a supernet, so that subnets can be chosen when it is loaded.
        longest_seconds: the longest utterance that was trained on, if it is known.
        card: text of the model card, if there is to be one.

    Raises:
        ConfigError: if the features are normalised in another way than an export can hold, or the
            folder holds what no export wrote; see
            :func:`todm_sb.utils.ownership.new_export`.
    """
    check_exportable(normalize)
    model = model.deployed()
    contents = {
        "model.ckpt": _saved(partial(torch.save, model.state_dict())),
        "normalize.ckpt": _saved(normalize._save),
        "tokenizer.ckpt": Path(tokenizer_path).read_bytes(),
    }
    # JSON is YAML.
    space_line = ""
    if space is not None:
        space_line = f"space: !new:todm_sb.supernet.SearchSpace {json.dumps(space.to_dict())}"
    text = _TEMPLATE.format(
        what="subnet" if space is None else "supernet",
        version=__version__,
        sample_rate=fbank["sample_rate"],
        longest_seconds=json.dumps(longest_seconds),
        space=space_line,
        norm_type=normalize.norm_type,
        network=json.dumps(model.config),
        fbank=json.dumps(fbank),
        hop=hop,
        max_symbols=max_symbols,
    )
    with new_export(folder, "speechbrain", (*contents, "hyperparams.yaml"), card) as new:
        for name, data in contents.items():
            (new / name).write_bytes(data)
        (new / "hyperparams.yaml").write_text(text, encoding="utf-8")


def _saved(save: Callable[[io.BytesIO], None]) -> bytes:
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()
