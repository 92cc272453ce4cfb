"""What a run was made by: its command, and the versions of what took part."""

from __future__ import annotations

import json
import platform
import shlex
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from todm_sb import __version__
from todm_sb.utils.errors import written_by
from todm_sb.utils.files import write_atomic

PACKAGES = ("speechbrain", "torch", "torchaudio", "sentencepiece", "numpy")


def record(folder: str | Path, command: Sequence[str]) -> None:
    """Writes ``provenance.json``.

    Args:
        folder: of the run.
        command: that made it, word by word.
    """
    content = {"command": shlex.join(command), "versions": versions()}
    write_atomic(Path(folder) / "provenance.json", json.dumps(content, indent=1) + "\n")


def read(folder: Path) -> dict[str, Any]:
    """What :func:`record` wrote: ``command`` and ``versions``; empty if it did not.

    Raises:
        ConfigError: if the file is damaged.
    """
    path = folder / "provenance.json"
    with written_by("train.py", path):
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def versions() -> dict[str, str]:
    """Python's version, the machine's kind, and the versions of the packages that matter."""
    return {
        "todm_sb": __version__,
        **{name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
