"""npm is a script of ours here: what it would fetch lies beside it."""

import stat
import tarfile

import pytest

from todm_sb.utils.errors import ConfigError
from todm_sb.web import runtime


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """Puts an ``npm`` first on the path that copies an archive, or fails; returns the archive."""
    archive, log = tmp_path / "package.tgz", tmp_path / "npm.log"
    script = tmp_path / "bin" / "npm"
    script.parent.mkdir()
    script.write_text(
        f'#!/bin/sh\necho "$@" >> {log}\n'
        f'for folder; do :; done\nexec cp {archive} "$folder/onnxruntime-web.tgz"\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin:/bin")
    return archive, log


def pack(archive, folder):
    """The files of a folder as npm packs them."""
    with tarfile.open(archive, "w:gz") as tar:
        for path in folder.iterdir():
            tar.add(path, f"package/dist/{path.name}")


def test_what_is_there_is_used_without_npm(web_runtime, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert runtime.get_runtime(web_runtime) == web_runtime


def test_it_is_fetched_once(web_runtime, npm, tmp_path):
    archive, log = npm
    pack(archive, web_runtime)
    cache = tmp_path / "elsewhere" / "ort"
    for _ in range(2):
        assert runtime.is_whole(runtime.get_runtime(cache))
    (call,) = log.read_text().splitlines()
    assert call.startswith(f"pack onnxruntime-web@{runtime.VERSION} ")
    assert [p.name for p in cache.parent.iterdir()] == ["ort"]


def test_damaged_files_are_fetched_again(web_runtime, npm):
    archive, _ = npm
    pack(archive, web_runtime)
    name = next(iter(runtime.FILES))
    (web_runtime / name).write_text("damaged")
    assert not runtime.is_whole(web_runtime)
    assert runtime.is_whole(runtime.get_runtime(web_runtime))


def test_what_else_is_in_the_cache_stays(web_runtime, npm):
    archive, _ = npm
    pack(archive, web_runtime)
    (web_runtime / "notes.txt").write_text("mine")
    (web_runtime / next(iter(runtime.FILES))).unlink()
    runtime.get_runtime(web_runtime)
    assert (web_runtime / "notes.txt").read_text() == "mine"


def test_other_files_than_the_tested_ones_are_refused(web_runtime, npm, tmp_path):
    archive, _ = npm
    name = next(iter(runtime.FILES))
    (web_runtime / name).write_text("changed on its way")
    pack(archive, web_runtime)
    with pytest.raises(ConfigError, match="another onnxruntime-web"):
        runtime.get_runtime(tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_a_damaged_archive_is_refused(web_runtime, npm, tmp_path, content):
    archive, _ = npm
    archive.write_bytes(content)
    with pytest.raises(ConfigError, match="from npm is damaged"):
        runtime.get_runtime(tmp_path / "elsewhere")


def test_without_the_network_one_line_says_what_to_do(web_runtime, npm, tmp_path):
    with pytest.raises(ConfigError, match="go online for the first start, or copy") as error:
        runtime.get_runtime(tmp_path / "elsewhere")
    assert "\n" not in str(error.value)


def test_without_npm_one_line_says_what_to_do(web_runtime, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match=r"needs npm .*: install it, or copy") as error:
        runtime.get_runtime(tmp_path / "elsewhere")
    assert str(tmp_path / "elsewhere") in str(error.value)


def test_a_cache_that_cannot_be_written_is_one_line(web_runtime, npm, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        runtime.get_runtime(tmp_path / "file" / "cache")
