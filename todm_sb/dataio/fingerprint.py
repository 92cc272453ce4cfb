"""What an error rate is of, in a few letters: error rates of other things are not compared."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor

from todm_sb.dataio.check import read_lines
from todm_sb.dataio.text import words_of_text
from todm_sb.utils.errors import DataError


def fingerprint(data: Any) -> str:
    """Tells plain data (what JSON can hold) apart."""
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()[:12]


def dev_set_id(csv_path: str | Path, tokenizer: SentencePieceProcessor) -> str:
    """Tells sets of utterances apart: by ids, durations, words as they are scored, sizes of files.

    Where the audio lies, and in which order, does not matter.

    Args:
        csv_path: manifest.
        tokenizer: of the network.

    Raises:
        DataError: if the manifest cannot be read, or no file of its audio is where it says.
    """
    rows = [
        (row["ID"], row["duration"], words_of_text(tokenizer, row["wrds"]), _size(row["wav"]))
        for _, row in read_lines(csv_path)
    ]
    if all(size is None for *_, size in rows):
        raise DataError(f"{csv_path}: none of its audio files is where it says")
    return fingerprint(sorted(rows, key=json.dumps))


def _size(path: str) -> int | None:
    try:
        return Path(path).stat().st_size
    except (OSError, ValueError):
        return None
