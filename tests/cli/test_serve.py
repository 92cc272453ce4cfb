import os
import signal
import threading
import webbrowser
from urllib.request import urlopen

import pytest

from todm_sb.cli import OK, main


@pytest.fixture
def ctrl_c():
    """Lets SIGINT interrupt, which a shell takes from what it starts in the background."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.usefixtures("ctrl_c")
def test_it_serves_until_ctrl_c(web_export, web_runtime, monkeypatch, capsys):
    got = {}

    def browse(url):
        def visit():
            try:
                got[url] = urlopen(url).read()
            finally:
                os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=visit).start()

    monkeypatch.setattr(webbrowser, "open", browse)
    folder = web_export()
    assert main(["serve", str(folder), "--port", "0", "--open"]) == OK
    ((url, page),) = got.items()
    assert page.startswith(b"<!doctype html>")
    assert capsys.readouterr().out == f"{folder}: 1 to choose from at {url} (Ctrl-C ends)\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["missing"], "error: missing is no folder: write one with: todm-sb export"),
        ([], "required: folder"),
        ([".", "--port", "70000"], "70000 is not within 0..65535"),
        ([".", "--port", "http"], "invalid port_number value: 'http'"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(argv, message, tmp_path, monkeypatch, refusal):
    monkeypatch.chdir(tmp_path)
    assert message in refusal(["serve", *argv])


def test_a_first_start_says_that_it_fetches(web_export, web_runtime, monkeypatch, capsys):
    next(web_runtime.iterdir()).unlink()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit):
        main(["serve", str(web_export())])
    fetching, error = capsys.readouterr().err.splitlines()
    assert fetching.startswith("fetching onnxruntime-web ")
    assert error.startswith("error: the page needs npm")
