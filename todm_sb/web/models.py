"""What there is to serve in an exported folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from todm_sb.export.card import CARD, KEYS
from todm_sb.utils.errors import ConfigError
from todm_sb.utils.hub import ONNX_FILES

MEND = "write one with: todm-sb export RUN FOLDER --format web"


@dataclass(frozen=True)
class WebModel:
    """A subnet in one precision.

    Args:
        folder: of its files.
        path: the folder as seen from the one that is served, with slashes.
        card: what the export wrote into ``model.json``.
        size: bytes that a browser loads.
    """

    folder: Path
    path: str
    card: dict[str, Any]
    size: int


def find_models(folder: Path) -> list[WebModel]:
    """The models of a folder that :func:`todm_sb.export.web.export_web` wrote, or of one around
    several such, the smallest first.

    Other programs write a ``model.json`` too; without any of the files beside it, it is not ours.

    Args:
        folder: to look in, at any depth.

    Raises:
        ConfigError: if there is none, or one is not whole.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder: {MEND}")
    root = folder.resolve()
    # A hidden folder is of an export that is being written.
    folders = [card.parent for card in root.rglob(CARD) if not _hidden(card.relative_to(root))]
    models = [_model(f, root) for f in folders if any((f / name).exists() for name in ONNX_FILES)]
    if not models:
        raise ConfigError(f"{folder} holds no subnet for the web: {MEND}")
    return sorted(models, key=lambda m: (m.size, m.path))


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _model(folder: Path, root: Path) -> WebModel:
    for name in (CARD, *ONNX_FILES):
        path = folder / name
        if not path.is_file():
            raise ConfigError(f"{path} is missing: export the folder again")
        if not path.resolve().is_relative_to(root):
            raise ConfigError(f"{path} is a link out of the folder that is served")
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except ValueError:
        card = None
    if not isinstance(card, dict) or not card.keys() >= KEYS:
        raise ConfigError(f"{folder / CARD} does not describe a subnet: export it again")
    size = sum((folder / name).stat().st_size for name in ONNX_FILES)
    return WebModel(folder, folder.relative_to(root).as_posix(), card, size)
