"""Loading the recipe that is compared: to plan the cells, and to make their data."""

from __future__ import annotations

import tempfile
from typing import Any

from ruamel.yaml.scalarstring import DoubleQuotedScalarString as Text

from todm_sb.dataio.tokenizer import tokenizer_of
from todm_sb.experiments.compare.cells import Cell, Runs
from todm_sb.experiments.compare.overrides import merge
from todm_sb.training.recipe import Recipe
from todm_sb.training.settings import load_checked


def load_for_planning(recipe: Recipe) -> dict[str, Any]:
    """The hparams of a recipe; its loggers and checkpoints go to a folder that is gone afterwards.

    Raises:
        ConfigError: if the file is missing, a placeholder has no value, an override is unknown, or
            a setting makes no sense.
    """
    with tempfile.TemporaryDirectory() as scratch:
        place = {"output_folder": Text(scratch)}
        return load_checked(Recipe(recipe.file, merge(recipe.overrides, place)))


def prepare_data(runs: Runs, cell: Cell) -> None:
    """Makes manifests and tokenizer once, before cells that share them run at the same time."""
    hparams = load_for_planning(runs.recipe(cell))
    for prepare in hparams["prepare"]:
        prepare()
    tokenizer_of(hparams)
