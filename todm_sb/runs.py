"""What was trained: loading a run's folder again, to cut from it or to measure it."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch
from hyperpyyaml import load_hyperpyyaml
from ruamel.yaml import YAML
from sentencepiece import SentencePieceProcessor
from torch import nn

from todm_sb.checkpoints import recover_average
from todm_sb.dataio.fingerprint import dev_set_id
from todm_sb.dataio.pipeline import get_tokenizer, make_dataset, make_loader_kwargs
from todm_sb.errors import ConfigError, DataError, recipe_errors
from todm_sb.supernet.dev_set import Utterances

logger = logging.getLogger(__name__)


def load_run(run: Path, causal: bool = False) -> dict[str, Any]:
    """The hparams of a run, its model with the best weights; ``weights`` is the id of these.

    The best ones are those of the dev set that the run has now, if any checkpoint was measured on
    it, or else of the one that the newest checkpoint was measured on.

    Args:
        run: ``output_folder`` of ``train.py``.
        causal: take the model's causal form, of a dual-mode network that is only to stream.

    Raises:
        ConfigError: if it is no such folder, its YAML cannot be loaded, or it has no checkpoint,
            one of another network, or no causal form.
    """
    hparams_file = run / "hyperparams.yaml"
    if not hparams_file.is_file():
        raise ConfigError(f"{run} is no output_folder of train.py: it holds no hyperparams.yaml")
    with recipe_errors(hparams_file):
        text = relocate(hparams_file.read_text(encoding="utf-8"), run)
        hparams = load_hyperpyyaml(text, {"output_folder": str(run)})
    try:
        recover_average(
            hparams["checkpointer"],
            hparams["model"],
            hparams["avg_checkpoints"],
            min_key="WER",
            wer_of=_present_dev_set(hparams),
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"{run}: the checkpoint is of another network or search space than hyperparams.yaml "
            f"({reason})"
        ) from None
    space, widths = hparams["space"], list(hparams["model"].encoder.ffn_dims)
    if space.max_ffn_dims != widths:
        raise ConfigError(
            f"{run}: the network has FFN widths {widths}, the max subnet of its search space "
            f"{space.max_ffn_dims}"
        )
    hparams["weights"] = weights_id(hparams["model"])
    if causal:
        hparams["model"] = hparams["model"].causal_form()
    hparams["features"].eval()
    hparams["model"].eval()
    return hparams


def _present_dev_set(hparams: dict[str, Any]) -> dict[str, str] | None:
    """What a run would measure error rates on now; None where its data are not here."""
    name = f"{hparams['vocab_size']}_{hparams['tokenizer_type']}.model"
    try:
        path = Path(hparams["tokenizer_folder"]) / name
        tokenizer = SentencePieceProcessor(model_file=str(path))
        return {"dev_set": dev_set_id(hparams["valid_csv"], tokenizer)}
    except (DataError, OSError, RuntimeError):
        return None


def relocate(text: str, run: Path) -> str:
    """The hyperparams.yaml of a run as if it had been trained where it lies now.

    SpeechBrain writes it with all references resolved, relative to where training was started.
    A path below the run moves with it. One below the folder that holds the runs, two levels up, as
    the data that cells of a comparison share, does so if it is found there.
    """
    yaml = YAML()
    tree = yaml.load(text)
    trained_in, seen = tree.get("output_folder"), set()
    if not isinstance(trained_in, str):  # a reference, as the paths below it are
        return text
    holder, holder_now = Path(trained_in).parent.parent, run.resolve().parent.parent

    def moved(node: Any) -> Any:
        if isinstance(node, str) and f"{node}/".startswith(f"{trained_in}/"):
            return f"{run}{node[len(trained_in) :]}"
        if isinstance(node, str) and holder.name and f"{node}/".startswith(f"{holder}/"):
            beside = holder_now / Path(node).relative_to(holder)
            return str(beside) if beside.exists() else node
        # What an alias names is there twice.
        if isinstance(node, dict | list) and id(node) not in seen:
            seen.add(id(node))
            for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
                node[key] = moved(value)
        return node

    moved(tree)
    stream = io.StringIO()
    yaml.dump(tree, stream)
    return stream.getvalue()


def search_folder(run: Path, cost: str, causal: bool = False) -> Path:
    """Where a search of a run, or of its causal form, by this cost leaves what it found."""
    return run / "search" / (f"{cost}-causal" if causal else cost)


@torch.no_grad()
def dev_utterances(
    hparams: dict[str, Any], tokenizer: Any, device: torch.device
) -> Iterator[Utterances]:
    """The features of a run's validation set, batch by batch.

    Args:
        hparams: of :func:`load_run`.
        tokenizer: of :func:`run_tokenizer`.
        device: where to compute them.

    Raises:
        DataError: if the manifest is missing or holds nothing.
    """
    hparams["normalize"].to(device)  # statistics do not follow the module around them
    features, subsampling = hparams["features"].to(device), hparams["model"].encoder.subsampling

    def n_frames_of(seconds: float) -> int:
        return subsampling.output_lengths(int(seconds * hparams["sample_rate"]) // features.hop + 1)

    dataset = make_dataset(hparams["valid_csv"], tokenizer, n_frames_of, hparams["max_duration"])
    options = make_loader_kwargs(
        dataset, hparams["max_batch_seconds"], hparams["seed"], shuffle=False
    )
    for batch in sb.dataio.dataloader.make_dataloader(dataset, **options):
        for name, reason in batch.broken.items():
            logger.warning("%s is left out: %s", name, reason)
        if batch.id:
            wavs, wav_lens = batch.to(device).sig
            yield Utterances(*features(wavs, wav_lens), batch.words)


def run_tokenizer(hparams: dict[str, Any]) -> Any:
    """The tokenizer of a run."""
    keys = ("tokenizer_folder", "vocab_size", "train_csv", "tokenizer_type")
    return get_tokenizer(*(hparams[key] for key in keys))


def weights_id(model: nn.Module) -> str:
    """Tells weights apart."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
