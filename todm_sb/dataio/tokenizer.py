"""The SentencePiece tokenizer of a run: trained on its first use, and asked whether it fits."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from todm_sb.dataio.fingerprint import fingerprint
from todm_sb.dataio.manifest import mark_current, options_of
from todm_sb.dataio.reading import AS_WRITTEN, Reading, read_lines, reading_of
from todm_sb.utils.errors import ConfigError, DataError
from todm_sb.utils.files import write_atomic
from todm_sb.utils.processes import on_first

logger = logging.getLogger(__name__)

# Label of blank in the network. Tokenizers give it to unknown pieces: no text has that label.
BLANK = 0
# Of what a tokenizer was made from: its transcripts, told apart.
TEXTS = "texts"
TYPES = ("unigram", "bpe", "char")
# What a tokenizer makes of any text first, by SentencePiece's names: NFKC, with some more white
# space taken for spaces (nmt), letters without case (cf), or nothing.
NORMALIZATIONS = ("nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf", "identity")

# As SpeechBrain trains its tokenizers.
OPTIONS: dict[str, Any] = {
    "bos_id": -1,
    "eos_id": -1,
    "pad_id": -1,
    "unk_id": BLANK,
    "max_sentencepiece_length": 10,
    "character_coverage": 1.0,
    "add_dummy_prefix": True,
}


def tokenizer_path(hparams: Mapping[str, Any]) -> Path:
    """Where a recipe's tokenizer is, once there is one.

    Args:
        hparams: with ``tokenizer_folder``, ``vocab_size`` and ``tokenizer_type``.
    """
    return _path(hparams["tokenizer_folder"], hparams["vocab_size"], hparams["tokenizer_type"])


def tokenizer_of(hparams: Mapping[str, Any]) -> SentencePieceProcessor:
    """The tokenizer of a recipe, trained on its first use; see :func:`get_tokenizer`.

    Args:
        hparams: with the keys of :func:`tokenizer_path`, and ``train_csv``; may have
            ``text_normalization`` and those of :func:`todm_sb.dataio.reading.reading_of`.
    """
    return get_tokenizer(
        hparams["tokenizer_folder"],
        hparams["vocab_size"],
        hparams["train_csv"],
        hparams["tokenizer_type"],
        normalization=hparams.get("text_normalization", NORMALIZATIONS[0]),
        reading=reading_of(hparams),
    )


def get_tokenizer(
    folder: str,
    vocab_size: int,
    train_csv: str,
    model_type: str = "unigram",
    normalization: str = NORMALIZATIONS[0],
    reading: Reading = AS_WRITTEN,
) -> SentencePieceProcessor:
    """The tokenizer of a run, trained on its first use.

    Args:
        folder: where it is kept, as ``<vocab_size>_<model_type>.model``.
        vocab_size: pieces, the unknown one (id 0, blank) included.
        train_csv: manifest whose transcripts it is trained on.
        model_type: ``unigram``, ``bpe`` or ``char``.
        normalization: of :data:`NORMALIZATIONS`.
        reading: how the manifest is read.

    Raises:
        ConfigError: if SentencePiece refuses, most often a vocabulary larger than the text allows,
            or the tokenizer does not fit the network, or was trained of that manifest with other
            normalization, letters of another case, or another column.
        DataError: if there is no text to train it from.
    """
    if model_type not in TYPES:
        raise ConfigError(f"tokenizer_type must be one of {', '.join(TYPES)}, not {model_type!r}")
    path = _path(folder, vocab_size, model_type)
    options = {"model_type": model_type, "normalization_rule_name": normalization}
    on_first(_train_if_absent, path, vocab_size, train_csv, reading, options)
    tokenizer = load_tokenizer(path)
    check_tokenizer(tokenizer, vocab_size, str(path))
    return tokenizer


def load_tokenizer(path: str | Path) -> SentencePieceProcessor:
    """Reads a tokenizer's file.

    Raises:
        ConfigError: if it is missing or damaged.
    """
    try:
        data = Path(path).read_bytes()  # once: it may be a pipe
    except FileNotFoundError:
        raise ConfigError(f"tokenizer {path} does not exist") from None
    except OSError as error:
        raise ConfigError(f"tokenizer {path} cannot be read: {error.strerror}") from None
    tokenizer = SentencePieceProcessor()
    try:
        tokenizer.LoadFromSerializedProto(data)
        if tokenizer.vocab_size() > 0:
            return tokenizer
    except RuntimeError:
        pass
    raise ConfigError(f"{path} is not a SentencePiece model, or a damaged one: take a sound copy")


def check_tokenizer(tokenizer: SentencePieceProcessor, vocab_size: int, name: str) -> None:
    """Asks a tokenizer whether its ids are the labels of a network.

    Control pieces other than blank (of begin, end and padding) are labels that never occur.

    Args:
        tokenizer: the tokenizer.
        vocab_size: labels of the network, blank (id 0) among them.
        name: what a message calls it.

    Raises:
        ConfigError: if it has another number of pieces, or another id than 0 for unknown ones.
    """
    if tokenizer.unk_id() != BLANK:
        raise ConfigError(
            f"{name}: unknown letters have id {tokenizer.unk_id()}, but must have that of blank, "
            f"{BLANK}: train it with unk_id={BLANK} and pad_id=-1"
        )
    if tokenizer.vocab_size() != vocab_size:
        raise ConfigError(
            f"{name} has {tokenizer.vocab_size()} pieces, but the network {vocab_size} labels: "
            f"set vocab_size to {tokenizer.vocab_size()}"
        )


def encode(tokenizer: SentencePieceProcessor, transcript: str) -> list[int]:
    """Labels of a transcript; letters that the tokenizer does not know have none."""
    unknown = tokenizer.unk_id()
    return [label for label in tokenizer.encode_as_ids(transcript) if label != unknown]


def _path(folder: str, vocab_size: int, model_type: str) -> Path:
    return Path(folder) / f"{vocab_size}_{model_type}.model"


def _train_if_absent(
    path: Path, vocab_size: int, train_csv: str, reading: Reading, options: dict[str, Any]
) -> None:
    """Writes the model whole, and only if it fits."""
    made_from = {
        "train_csv": str(Path(train_csv).resolve()),
        "text_normalization": options["normalization_rule_name"],
        "letter_case": reading.letter_case,
        "text_column": reading.text_column,
    }
    if path.exists():
        _compare_text(path, made_from, reading)
        return
    if not Path(train_csv).is_file():
        raise DataError(
            f"{path.parent} holds no {path.name}, and {train_csv}, to train it from, does not exist"
        )
    texts = _texts(train_csv, reading)
    if not any(texts):
        raise DataError(f"{train_csv} has no transcript to train the tokenizer from")
    kind = options["model_type"]
    # Of characters there are as many as the text has.
    size: dict[str, Any] = {} if kind == "char" else {"vocab_size": vocab_size}
    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_writer=model, **options, **size, **OPTIONS
        )
    except RuntimeError as error:
        reason = str(error).rsplit("] ", 1)[-1]
        raise ConfigError(
            f"no {kind} tokenizer of {vocab_size} pieces from {train_csv}: {reason}"
        ) from None
    trained = SentencePieceProcessor(model_proto=model.getvalue())
    check_tokenizer(trained, vocab_size, f"the {kind} tokenizer of {train_csv}")
    write_atomic(path, model.getvalue())
    mark_current(path, {**made_from, TEXTS: fingerprint(texts)})


def _texts(train_csv: str, reading: Reading) -> list[str]:
    """The transcripts of a manifest, for SentencePiece, which takes a line for a sentence."""
    lines = read_lines(train_csv, reading)
    return [" ".join(row["wrds"].split()) for _, row in lines if None not in row]


def _compare_text(path: Path, wanted: dict[str, Any], reading: Reading) -> None:
    """Of a start that came to nothing; the tokenizer of another run, or of none that is recorded,
    may be of any text."""
    found = options_of(path)
    if not found or found.get("train_csv") != wanted["train_csv"]:
        return
    try:
        same = TEXTS not in found or found[TEXTS] == fingerprint(
            _texts(wanted["train_csv"], reading)
        )
    except DataError:  # told when it is needed
        same = True
    # Another column of the same text does no harm.
    asked = [key for key in wanted if not (same and key == "text_column")]
    other = [key for key in asked if found.get(key) != wanted[key]]
    if other:
        key = other[0]
        raise ConfigError(
            f"{path} was trained with {key}={found.get(key)}, not {wanted[key]}: give "
            f"another --tokenizer_folder, or set {key} to {found.get(key)}"
        )
    if not same:
        logger.warning(
            "%s was trained from other transcripts than %s has now: if no network has been "
            "trained with it, remove it to have it trained anew",
            path,
            wanted["train_csv"],
        )
