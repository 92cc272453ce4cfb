"""What users import, from ``todm_sb`` and each of its packages, costs nothing until it is used."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

import todm_sb
from todm_sb.utils.lazy import lazy_exports

PACKAGES = ["todm_sb"] + [
    module.name
    for module in pkgutil.walk_packages(todm_sb.__path__, "todm_sb.")
    if module.ispkg and not module.name.startswith("todm_sb.web.page")
]


def offered(package):
    return getattr(importlib.import_module(package), "__all__", [])


@pytest.mark.parametrize("package", [p for p in PACKAGES if offered(p)])
def test_every_name_that_is_offered_is_there(package):
    module = importlib.import_module(package)
    lazy = "__getattr__" in vars(module)
    submodules = {module.name for module in pkgutil.iter_modules(module.__path__) if lazy}
    for name in offered(package):
        # A submodule of the name would take its place once it is imported.
        assert name not in submodules
        value = getattr(module, name)
        assert value is getattr(importlib.import_module(package), name)
    assert set(offered(package)) <= set(dir(module))


def test_what_the_package_offers_is_what_its_parts_offer():
    from todm_sb.inference.asr import SubnetASR
    from todm_sb.optim.scaled_adam import ScaledAdam
    from todm_sb.space.subnet import SubnetConfig

    assert todm_sb.SubnetASR is todm_sb.inference.SubnetASR is SubnetASR
    assert todm_sb.ScaledAdam is todm_sb.optim.ScaledAdam is ScaledAdam
    assert todm_sb.SubnetConfig is todm_sb.space.SubnetConfig is SubnetConfig


def test_importing_any_package_but_encoders_and_cli_imports_neither_torch_nor_numpy():
    light = [p for p in PACKAGES if "encoders" not in p]
    code = f"""
import importlib, sys
for package in {light}:
    importlib.import_module(package)
    heavy = [name for name in ("torch", "numpy", "speechbrain", "optuna") if name in sys.modules]
    assert not heavy, (package, heavy)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_name_that_is_not_offered_is_missing_as_from_any_module():
    with pytest.raises(AttributeError, match="module 'todm_sb' has no attribute 'SubnetASRR'"):
        todm_sb.SubnetASRR  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'SubnetASRR'"):
        exec("from todm_sb import SubnetASRR")


def test_a_name_is_imported_once():
    get, listed = lazy_exports(__name__, {"json": ["dumps"]})
    assert "dumps" in listed()
    assert get("dumps") is globals().pop("dumps")
