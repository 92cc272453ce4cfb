"""Bundles: folders that are safe to load from a stranger.

A bundle holds ``bundle.json`` (see :mod:`todm_sb.bundle.manifest`), ``weights.safetensors`` and
``tokenizer.model``. All three are data: nothing in them names code, and a file's name is never
taken from the bundle. What is read has passed, in this order: the size of a file against the
record, the record against the network it describes, the hash, the shapes. So nothing is
allocated that the file on disk does not already weigh.

The hashes find damage, not forgery: whoever can change a file can change its hash. A bundle whose
origin matters has to come over a channel that proves it; a forged one misreads speech, no more.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import reprlib
import stat
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from sentencepiece import SentencePieceProcessor
from speechbrain.processing.features import InputNormalization
from torch import Tensor

from todm_sb.bundle.manifest import (
    NETWORK_KEYS,
    TOKENIZER,
    WEIGHTS,
    BundledSubnet,
    FileRecord,
    Manifest,
)
from todm_sb.nnet.features import SpeechFeatures, check_exportable, make_fbank
from todm_sb.nnet.hop import hop_of
from todm_sb.nnet.transducer import AUXILIARIES, Transducer
from todm_sb.space import SearchSpace, SubnetConfig
from todm_sb.supernet import count_parameters
from todm_sb.utils.errors import ConfigError
from todm_sb.utils.hub import cached_file
from todm_sb.utils.ownership import new_export
from todm_sb.utils.schema import parse_json

MANIFEST = "bundle.json"
MAX_MANIFEST_BYTES = 4 << 20
MAX_TOKENIZER_BYTES = 64 << 20
# Names and shapes, in front of the weights; a tensor takes about 100 bytes.
MAX_HEADER_BYTES = 4 << 20


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory.

    Args:
        manifest: what it says of itself.
        model: the network, a supernet if ``manifest.space`` is given.
        normalize: the feature statistics.
        features: from waveforms to features; holds ``normalize``.
        tokenizer: from labels to words.
    """

    manifest: Manifest
    model: Transducer
    normalize: InputNormalization
    features: SpeechFeatures
    tokenizer: SentencePieceProcessor

    @property
    def sample_rate(self) -> int:
        """Of the audio that the network takes, in Hz."""
        return self.manifest.features["sample_rate"]


def write_bundle(
    folder: str | Path,
    model: Transducer,
    normalize: InputNormalization,
    tokenizer_path: str | Path,
    fbank: dict[str, float],
    max_symbols: int = 5,
    space: SearchSpace | None = None,
    subnets: Sequence[BundledSubnet] = (),
    for_training: bool = False,
    longest_seconds: float | None = None,
    card: str | None = None,
) -> Manifest:
    """Writes a bundle; the auxiliaries of training are left out, unless they are asked for.

    Args:
        folder: made if need be; an earlier export there is replaced.
        model: the network; a supernet if ``space`` is given.
        normalize: holds the feature statistics; of the kind global or sentence.
        tokenizer_path: SentencePiece model.
        fbank: arguments of :func:`todm_sb.nnet.features.make_fbank`.
        max_symbols: labels a frame at most.
        space: of a supernet, so that subnets can be chosen when it is loaded.
        subnets: what was measured. If empty, the network itself, or the max and min subnets of
            the space, with their parameters.
        for_training: keep the auxiliaries that the network has, CTC head and simple joiner.
        longest_seconds: the longest utterance that was trained on, if it is known.
        card: text of the model card, if there is to be one.

    Returns:
        What was written into ``bundle.json``.

    Raises:
        ConfigError: if a bundle of it could not be loaded again, saying why, or the folder holds
            what no export wrote (see :func:`todm_sb.utils.ownership.new_export`).
    """
    model = (copy.deepcopy(model) if for_training else model.deployed()).to("cpu", torch.float32)
    kept = {key: True for key in AUXILIARIES.values() if model.config[key]}
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    contents = {
        WEIGHTS: safetensors.torch.save(weights),
        TOKENIZER: Path(tokenizer_path).read_bytes(),
    }
    manifest = Manifest(
        files={name: _record(data) for name, data in contents.items()},
        network={**{key: model.config[key] for key in NETWORK_KEYS}, **kept},
        features={**fbank, **_statistics(normalize)},
        max_symbols=max_symbols,
        space=space,
        subnets=tuple(subnets) or _unmeasured(model, space),
        longest_seconds=longest_seconds,
    )
    text = json.dumps(manifest.to_dict(), indent=1)
    _build(Manifest.from_dict(parse_json(text.encode())), contents.__getitem__)
    with new_export(folder, "bundle", (*contents, MANIFEST), card) as new:
        for name, data in contents.items():
            (new / name).write_bytes(data)
        (new / MANIFEST).write_text(text, encoding="utf-8")
    return manifest


def read_bundle(folder: str | Path) -> Bundle:
    """Loads a bundle, checking everything.

    Args:
        folder: what :func:`write_bundle` wrote; it may come from anybody.

    Raises:
        ConfigError: with one line, if anything in it is not as it should be.
    """
    folder = Path(folder)
    with _blame(folder):
        manifest = _read_manifest(folder)
        return _build(manifest, lambda name: _read(folder / name, manifest.files[name].bytes))


def read_manifest(folder: str | Path) -> Manifest:
    """What a bundle says of itself; nothing else in it is looked at.

    Args:
        folder: see :func:`read_bundle`.

    Raises:
        ConfigError: with one line, if it says nothing that could be so.
    """
    folder = Path(folder)
    with _blame(folder):
        return _read_manifest(folder)


@contextmanager
def _blame(folder: Path) -> Iterator[None]:
    """Names the bundle in what goes wrong with it."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"bundle {folder}: {error}") from None


def _record(data: bytes) -> FileRecord:
    return FileRecord(len(data), hashlib.sha256(data).hexdigest())


def _statistics(normalize: InputNormalization) -> dict[str, list[float] | None]:
    check_exportable(normalize)
    if normalize.norm_type == "sentence":
        return {"mean": None, "std": None}
    return {"mean": normalize.glob_mean.tolist(), "std": normalize.glob_std.tolist()}


def _unmeasured(model: Transducer, space: SearchSpace | None) -> tuple[BundledSubnet, ...]:
    configs = {"max": space.max, "min": space.min} if space else {"subnet": whole(model)}
    return tuple(
        BundledSubnet(name, config, {"params": count_parameters(model, config)})
        for name, config in configs.items()
    )


def whole(model: Transducer) -> SubnetConfig:
    """A plain network as a subnet: all of it."""
    return SubnetConfig(tuple(range(len(model.encoder.layers))), **model.encoder.dimensions)


def _read_manifest(folder: Path) -> Manifest:
    if not folder.is_dir():
        raise ConfigError("is not a folder")
    return Manifest.from_dict(parse_json(_read(folder / MANIFEST, most=MAX_MANIFEST_BYTES)))


def _read(path: Path, size: int | None = None, most: int | None = None) -> bytes:
    """A regular file of the bundle's own, of this size or of at most that one; no link, but where
    the Hub's cache has one."""
    # Neither follows a link nor waits for the other end of a pipe (Windows has neither flag).
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0)
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        file = open(cached_file(path), "rb", opener=lambda name, _: os.open(name, flags))  # noqa: SIM115
    except FileNotFoundError:
        raise ConfigError(f"{path.name} is missing") from None
    except OSError as error:
        raise ConfigError(f"{path.name} cannot be read: {error.strerror}") from None
    with file:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise ConfigError(f"{path.name} is no regular file")
        if size is not None and info.st_size != size:
            raise ConfigError(f"{path.name} has {info.st_size:,} bytes instead of {size:,}")
        if most is not None and info.st_size > most:
            raise ConfigError(f"{path.name} has {info.st_size:,} bytes, more than {most:,}")
        return file.read(info.st_size)


def _build(manifest: Manifest, read: Callable[[str], bytes]) -> Bundle:
    """Everything that the manifest describes, from the contents that ``read`` gives by name."""
    # Shapes without storage: whatever the sizes, this allocates nothing.
    with torch.device("meta"):
        model = Transducer(**manifest.network).eval()
    manifest.check_network(model.encoder)
    _check_sizes(manifest, model)
    tokenizer = _load_tokenizer(_checked(manifest, TOKENIZER, read), manifest)
    model.load_state_dict(_load_weights(_checked(manifest, WEIGHTS, read), model), assign=True)
    normalize, features = _load_features(manifest.features)
    return Bundle(manifest, model, normalize, features, tokenizer)


def _check_sizes(manifest: Manifest, model: Transducer) -> None:
    """What the manifest claims of sizes, against the network it describes."""
    needed = sum(tensor.nbytes for tensor in model.state_dict().values())
    claimed = manifest.files[WEIGHTS].bytes
    if not needed <= claimed <= needed + MAX_HEADER_BYTES:
        raise ConfigError(f"{WEIGHTS} of {claimed:,} bytes for a network of {needed:,} bytes")
    if manifest.files[TOKENIZER].bytes > MAX_TOKENIZER_BYTES:
        raise ConfigError(f"{TOKENIZER} is larger than {MAX_TOKENIZER_BYTES:,} bytes")
    for subnet in manifest.subnets:
        parameters = count_parameters(model, subnet.config if manifest.space else None)
        if subnet.cost.get("params") != parameters:
            raise ConfigError(
                f"subnet {subnet.name} has {parameters:,} parameters, "
                f"but its cost says {subnet.cost.get('params')}"
            )


def _checked(manifest: Manifest, name: str, read: Callable[[str], bytes]) -> bytes:
    data = read(name)
    if _record(data) != manifest.files[name]:
        raise ConfigError(f"{name} is damaged: its SHA-256 is not the recorded one")
    return data


def _load_tokenizer(data: bytes, manifest: Manifest) -> SentencePieceProcessor:
    tokenizer = SentencePieceProcessor()
    try:
        tokenizer.LoadFromSerializedProto(data)
    except RuntimeError:
        raise ConfigError(f"{TOKENIZER} is no SentencePiece model") from None
    if tokenizer.vocab_size() != manifest.network["vocab_size"]:
        raise ConfigError(
            f"{TOKENIZER} has {tokenizer.vocab_size()} pieces, "
            f"but the network {manifest.network['vocab_size']} labels"
        )
    for i in range(tokenizer.vocab_size()):
        _check_piece(i, tokenizer)
    return tokenizer


def _check_piece(i: int, tokenizer: SentencePieceProcessor) -> None:
    """Its text goes to terminals and logs, where control characters are commands.

    A byte stands for whatever the next ones make of it: what prints text has to look at it.
    """
    if tokenizer.is_byte(i):
        return
    try:
        piece = tokenizer.decode_ids([i])
    except UnicodeDecodeError:
        raise ConfigError(f"{TOKENIZER}: piece {i} is no UTF-8") from None
    if any(unicodedata.category(character) == "Cc" for character in piece):
        raise ConfigError(f"{TOKENIZER}: piece {i} holds a control character")


def _load_weights(data: bytes, model: Transducer) -> dict[str, Tensor]:
    """The tensors of the file, if they are those that the network has."""
    try:
        stored = dict(safetensors.deserialize(data))
    except safetensors.SafetensorError as error:
        raise ConfigError(f"{WEIGHTS} is no safetensors file ({error})") from None
    expected = model.state_dict()
    for name in sorted(stored.keys() ^ expected.keys()):
        what = "lacks" if name in expected else "holds an unknown"
        raise ConfigError(f"{WEIGHTS} {what} tensor {reprlib.repr(name)}")
    weights = {}
    for name, tensor in expected.items():
        entry = stored[name]
        if entry["dtype"] != "F32" or tuple(entry["shape"]) != tensor.shape:
            raise ConfigError(
                f"{WEIGHTS}: {name} is {entry['dtype']} {entry['shape']}, "
                f"but the network needs F32 {list(tensor.shape)}"
            )
        weights[name] = torch.frombuffer(entry["data"], dtype=torch.float32).view(tensor.shape)
        if not bool(torch.isfinite(weights[name]).all()):
            raise ConfigError(f"{WEIGHTS}: {name} holds values that are not finite numbers")
    return weights


def _load_features(settings: dict[str, Any]) -> tuple[InputNormalization, SpeechFeatures]:
    normalize = InputNormalization(norm_type="sentence")
    if settings["mean"] is not None:
        normalize = InputNormalization(norm_type="global")
        normalize.glob_mean = torch.tensor(settings["mean"])
        normalize.glob_std = torch.tensor(settings["std"])
        normalize.count = 1
    options = {key: value for key, value in settings.items() if key not in ("mean", "std")}
    try:
        fbank = make_fbank(**options)
    except (AssertionError, RuntimeError) as error:
        raise ConfigError(f"features: the filterbank refuses {options} ({error})") from None
    return normalize, SpeechFeatures(fbank, normalize, hop_of(settings)).eval()
