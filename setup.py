"""Puts the recipes into what is installed; all else about the package is in pyproject.toml."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
PATTERNS = ("*/todm/README.md", "*/todm/train.py", "*/todm/hparams/*.yaml")


def recipe_files() -> list[Path]:
    """What of a recipe is installed, relative to the folder of recipes; no results."""
    folder = ROOT / "recipes"
    return sorted(p.relative_to(folder) for pattern in PATTERNS for p in folder.glob(pattern))


class BuildWithRecipes(build_py):
    """As setuptools', with the recipes as ``todm_sb/recipes``; an editable install has them beside
    the package."""

    def run(self) -> None:
        """Builds."""
        super().run()
        if self.editable_mode:
            return
        for name in recipe_files():
            target = Path(self.build_lib) / "todm_sb" / "recipes" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / "recipes" / name, target)


if __name__ == "__main__":
    setup(cmdclass={"build_py": BuildWithRecipes})
