"""What a cell is trained and measured on: fingerprints of its manifests, whose audio is not opened.

A cell keeps them in ``data.json``. What either side has no fingerprint of is not compared:
manifests are not there before they are prepared, nor where a comparison goes on from its archive.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from todm_sb.dataio.fingerprint import fingerprint
from todm_sb.dataio.reading import read_table
from todm_sb.dataio.split import manifests_of_tests
from todm_sb.utils.errors import DataError

DATA_FILE = "data.json"
# What a manifest is told by, after its name and a dot. The second tells places.
UTTERANCES, AUDIO = "utterances", "audio"
SAYS = {UTTERANCES: "ids, durations or transcripts", AUDIO: "paths of audio"}

# Stands for the folder of a comparison, in settings and options.
FOLDER = Path("FOLDER")


def data_of(settings: Mapping[str, Any], root: Path) -> dict[str, str]:
    """Fingerprints of the manifests that are there and can be read.

    Paths of audio are told of the user's own manifests alone: those in the comparison's folder are
    prepared, from a place that is a setting, and may be prepared again when the folder has moved.

    Args:
        settings: plain values of a recipe, paths in the comparison's folder below :data:`FOLDER`.
        root: the comparison's folder.
    """
    found = {}
    for name, csv in _manifests(settings).items():
        own = FOLDER not in csv.parents
        path = csv if own else root / csv.relative_to(FOLDER)
        for kind, value in _fingerprints(path, settings.get("text_column")).items():
            if own or kind != AUDIO:
                found[f"{name}.{kind}"] = value
    return found


def other_data(was: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """How data differ, as far as both are known, and the mend; None if they do not."""
    for key, value in now.items():
        if was.get(key, value) != value:
            name, _, kind = key.rpartition(".")
            return f"{name} has other {SAYS[kind]} now: put back those that it was run with"
    return None


def placeless(data: Mapping[str, str]) -> dict[str, str]:
    """Without what another place of the same audio changes."""
    return {key: value for key, value in data.items() if not key.endswith(f".{AUDIO}")}


def _manifests(settings: Mapping[str, Any]) -> dict[str, Path]:
    """By what a message calls them."""
    named = {key: settings.get(key) for key in ("train_csv", "valid_csv")}
    named |= {f"test set {name}": csv for name, csv in manifests_of_tests(settings).items()}
    return {name: Path(csv) for name, csv in named.items() if isinstance(csv, str)}


def _fingerprints(path: Path, text_column: str | None) -> dict[str, str]:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return {}
    return _read(path, text_column, (found.st_size, found.st_mtime_ns))


@cache  # states of cells are asked for often, and a manifest may have 300,000 lines
def _read(path: Path, text_column: str | None, changed: tuple[int, int]) -> dict[str, str]:
    """As of the manifest's last change; of what cannot be read, which training will tell, none."""
    try:
        rows = [row for _, row in read_table(path, text_column)]
    except DataError:
        return {}
    said = (
        [x["ID"], x["duration"], x["start"], x["stop"], " ".join(x["wrds"].split())] for x in rows
    )
    return {
        UTTERANCES: fingerprint(sorted(said)),
        AUDIO: fingerprint(sorted([x["ID"], x["wav"]] for x in rows)),
    }
