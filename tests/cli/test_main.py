import sys
from types import ModuleType

import pytest

from todm_sb import __version__
from todm_sb.cli import FAILED
from todm_sb.cli.main import COMMANDS, imports, main
from todm_sb.utils.errors import ConfigError


@pytest.fixture
def half_done(monkeypatch):
    """A subcommand ``half-done FOLDER``."""
    module = ModuleType("todm_sb.cli.half_done")
    module.add_arguments = lambda parser: parser.add_argument("folder")

    def run(arguments):
        if arguments.folder == "missing":
            raise ConfigError("missing: no such folder")
        print(arguments.folder)
        return FAILED

    module.run = run
    monkeypatch.setitem(sys.modules, "todm_sb.cli.half_done", module)
    monkeypatch.setitem(COMMANDS, "half-done", "does half")


def test_a_subcommand_gets_its_arguments_and_gives_the_exit_code(half_done, capsys):
    assert main(["half-done", "here"]) == FAILED == 1
    assert capsys.readouterr().out == "here\n"


def test_an_error_of_the_user_is_one_line_and_exit_code_2(half_done, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["half-done", "missing"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: missing: no such folder\n"


@pytest.mark.parametrize("argv", [[], ["unknown"], ["half-done"], ["half-done", "a", "b"]])
def test_wrong_usage_is_exit_code_2(half_done, argv):
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2


def test_help_lists_the_subcommands_without_importing_them(half_done, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "todm_sb.cli.half_done", None)
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "half-done" in capsys.readouterr().out


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize("form", [["--import", "own_of_mine"], ["--import=own_of_mine"]])
def test_modules_of_ones_own_are_imported_before_the_subcommand(
    half_done, form, tmp_path, monkeypatch, capsys
):
    (tmp_path / "own_of_mine.py").write_text("print('imported')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_of_mine", raising=False)
    assert main([*form, "--import=json", "half-done", "here"]) == FAILED
    assert capsys.readouterr().out == "imported\nhere\n"
    assert imports == ["--import=own_of_mine", "--import=json"]
    sys.modules.pop("own_of_mine")


@pytest.mark.parametrize("argv", [["--import", "nobody", "half-done", "here"], ["--import"]])
def test_a_module_that_is_not_there_is_wrong_usage(half_done, argv, capsys):
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "--import" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("package", "wanted"),
    [
        ("matplotlib.figure", "'markdown>=3.4' 'matplotlib>=3.8' 'tensorboard>=2.16'"),
        ("optuna", "'matplotlib>=3.8' 'optuna<6,>=5'"),
        ("torch", "'huggingface_hub>=0.30' 'hyperpyyaml>=1.2' "),
    ],
)
def test_a_package_that_is_not_installed_is_named(half_done, package, wanted, monkeypatch, capsys):
    def run(_):
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    monkeypatch.setattr(sys.modules["todm_sb.cli.half_done"], "run", run)
    with pytest.raises(SystemExit) as ended:
        main(["half-done", "here"])
    assert ended.value.code == 2
    needed = package.partition(".")[0]
    said = capsys.readouterr().err
    assert said.startswith(f"error: todm-sb half-done needs {needed}: pip install {wanted}")
    assert said.count("\n") == 1


def test_a_mistake_of_ours_is_not_taken_for_a_missing_package(half_done, monkeypatch):
    def run(_):
        import todm_sb.nothing  # noqa: F401

    monkeypatch.setattr(sys.modules["todm_sb.cli.half_done"], "run", run)
    with pytest.raises(ModuleNotFoundError, match="nothing"):
        main(["half-done", "here"])
