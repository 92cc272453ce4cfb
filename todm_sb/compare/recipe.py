"""Loading the recipe that is compared: to plan the cells, and to make their data."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hyperpyyaml import load_hyperpyyaml

from todm_sb.compare.cells import Cell, Runs
from todm_sb.compare.overrides import as_text, as_yaml, merge, quoted
from todm_sb.dataio.pipeline import get_tokenizer
from todm_sb.errors import recipe_errors


def load_for_planning(hparams_file: Path, overrides: str) -> dict[str, Any]:
    """The hparams of a recipe; its loggers and checkpoints go to a folder that is gone afterwards.

    Args:
        hparams_file: the recipe.
        overrides: YAML.

    Raises:
        ConfigError: if the file is missing, a placeholder has no value, or an override is unknown.
    """
    with tempfile.TemporaryDirectory() as scratch, recipe_errors(hparams_file):
        place = as_yaml({"output_folder": quoted(scratch)})
        with hparams_file.open(encoding="utf-8") as file:
            return load_hyperpyyaml(file, as_text(merge(overrides, place)))


def prepare_data(runs: Runs, cell: Cell) -> None:
    """Makes manifests and tokenizer once, before cells that share them run at the same time."""
    hparams = load_for_planning(runs.hparams_file, as_text(runs.overrides(cell)))
    for prepare in hparams["prepare"]:
        prepare()
    get_tokenizer(
        hparams["tokenizer_folder"],
        hparams["vocab_size"],
        hparams["train_csv"],
        hparams["tokenizer_type"],
    )
