"""How scripts end."""

import subprocess
import sys

import pytest

from todm_sb.utils import errors
from todm_sb.utils.errors import ConfigError, one_line_errors


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ConfigError("lr must be positive"), 2, "error: lr must be positive"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (FileExistsError(17, "File exists", "a/b"), 2, "error: a/b: File exists"),
        (OSError("no number"), 2, "error: no number"),
    ],
)
def test_a_script_ends_with_one_line_where_the_user_is_the_cause(error, status, line, capsys):
    with pytest.raises(SystemExit) as ended, one_line_errors():
        raise error
    assert ended.value.code == status
    assert capsys.readouterr().err == f"{line}\n"


def test_a_script_whose_reader_went_away_ends_without_a_word():
    code = (
        "from todm_sb.utils.errors import one_line_errors\n"
        "with one_line_errors():\n"
        "    while True:\n"
        "        print('line', flush=True)\n"
    )
    script = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert script.stdout.readline() == b"line\n"
    script.stdout.close()
    assert script.stderr.read() == b""
    assert script.wait() == 141


@pytest.mark.parametrize(("closed", "heard"), [("2>&-", b"text\n"), (">&-", b"error: lost\n")])
def test_what_goes_to_a_closed_stream_goes_nowhere(closed, heard):
    code = (
        "import sys\n"
        "from todm_sb.utils.errors import ConfigError, one_line_errors\n"
        "from todm_sb.utils.progress import say\n"
        "with one_line_errors():\n"
        "    say('text\\n', sys.stdout)\n"
        "    raise ConfigError('lost')\n"
    )
    script = ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, code]
    ended = subprocess.run(script, capture_output=True)
    assert (ended.stdout + ended.stderr, ended.returncode) == (heard, 2)


def test_a_fault_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), one_line_errors():
        1 / 0  # noqa: B018


@pytest.mark.parametrize(("rank", "waits"), [(None, False), ("0", False), ("1", True)])
def test_of_several_processes_the_first_says_it_first(monkeypatch, capsys, rank, waits):
    """torchrun ends the others meanwhile."""
    waited = []
    monkeypatch.setattr(errors.time, "sleep", waited.append)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    with pytest.raises(SystemExit) as ended, one_line_errors():
        raise ConfigError("a line")
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: a line\n"
    assert bool(waited) == waits
