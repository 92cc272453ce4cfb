"""``todm-sb train`` finds the recipes that come with the package."""

import runpy
from pathlib import Path

from todm_sb.cli.train import RECIPES, with_installed

ROOT = Path(__file__).parents[2]


def test_a_recipe_is_a_file_or_one_of_the_packages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "LibriSpeech/todm/hparams/mini.yaml"
    assert Path(with_installed(name)) == RECIPES / name
    for argument in ("hparams/mini.yaml", "--output_folder=x.yaml", "LibriSpeech"):
        assert with_installed(argument) == argument
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).touch()
    assert with_installed(name) == name


def test_every_recipe_is_installed_and_no_result():
    installed = {str(p) for p in runpy.run_path(str(ROOT / "setup.py"))["recipe_files"]()}
    recipes = ROOT / "recipes"
    kept = {
        str(p.relative_to(recipes))
        for folder in recipes.glob("*/todm")
        for p in [*folder.glob("*"), *(folder / "hparams").glob("*")]
        if p.is_file()
    }
    assert installed == kept
    assert "FSDD/todm/hparams/supernet.yaml" in installed
