"""What an error rate is of, in a few letters: error rates of other things are not compared."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor

from todm_sb.dataio.reading import AS_WRITTEN, Reading, read_lines
from todm_sb.dataio.text import words_of_text
from todm_sb.utils.errors import DataError
from todm_sb.utils.files import sha256_of


def fingerprint(data: Any) -> str:
    """Tells plain data (what JSON can hold) apart."""
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()[:12]


def dev_set_id(
    csv_path: str | Path,
    tokenizer: SentencePieceProcessor,
    num_threads: int = 8,
    reading: Reading = AS_WRITTEN,
) -> str:
    """Tells sets of utterances apart: by ids, durations, words as they are scored, audio.

    Where the audio lies, and in which order, does not matter. All of it is read: what is exchanged
    for as many seconds of something else, noise added, is often a file of the same size.

    Args:
        csv_path: manifest.
        tokenizer: of the network.
        num_threads: audio files read at a time.
        reading: how the manifest is read.

    Raises:
        DataError: if the manifest cannot be read, or no file of its audio is where it says.
    """
    rows = [row for _, row in read_lines(csv_path, reading)]
    files = list(dict.fromkeys(row["wav"] for row in rows))
    with ThreadPoolExecutor(num_threads) as pool:
        audio = dict(zip(files, pool.map(_audio, files), strict=True))
    if not any(audio.values()):
        raise DataError(f"{csv_path}: none of its audio files is where it says")
    found = [
        (
            row["ID"],
            row["duration"],
            words_of_text(tokenizer, row["wrds"]),
            audio[row["wav"]],
            *filter(None, (row["start"], row["stop"])),
        )
        for row in rows
    ]
    return fingerprint(sorted(found, key=json.dumps))


def _audio(path: str) -> str | None:
    try:
        return sha256_of(path)
    except (OSError, ValueError):
        return None
