import hashlib
import json
import os
import shutil
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from todm_sb.export.speechbrain import export_folder
from todm_sb.utils import ownership
from todm_sb.utils.errors import ConfigError
from todm_sb.utils.ownership import RECORD, STAGING, check_place, new_export

FOREIGN = "was not written by an export"
CHANGED = "was changed since it was exported"


def write(folder, files, form="test", names=None, meanwhile=lambda: None):
    """An export of files whose contents are given."""
    with new_export(folder, form, files if names is None else names) as new:
        for name, content in files.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_text(content)
        meanwhile()


def tree(folder):
    """The contents of a folder by name, the record left out; None of a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_text() if path.is_file() else None
        for path in folder.rglob("*")
        if path.name != RECORD
    }


def record(folder):
    return json.loads((folder / RECORD).read_text())


def test_the_record_has_the_hash_of_each_file(tmp_path):
    write(tmp_path / "a b" / "c", {"x.txt": "1", "sub/y.txt": "2"})
    assert record(tmp_path / "a b" / "c") == {
        "todm_sb": "0.1.0",
        "format": "test",
        "files": {
            "sub/y.txt": hashlib.sha256(b"2").hexdigest(),
            "x.txt": hashlib.sha256(b"1").hexdigest(),
        },
    }
    assert {p.name for p in (tmp_path / "a b" / "c").iterdir()} == {"x.txt", "sub", RECORD}


def test_an_export_replaces_its_own_files_and_leaves_all_others(tmp_path):
    (tmp_path / "sub" / "theirs").mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("theirs")
    write(tmp_path, {"a": "1", "sub/b": "2", "deep/er/c": "3"})
    write(tmp_path, {"a": "4", "d": "5"}, "another")
    assert tree(tmp_path) == {
        "a": "4",
        "d": "5",
        "notes.txt": "theirs",
        "sub": None,
        "sub/theirs": None,
    }
    assert record(tmp_path)["format"] == "another"


def test_an_export_that_was_copied_elsewhere_is_still_an_export(tmp_path):
    write(tmp_path / "a", {"x": "1"})
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    write(tmp_path / "b", {"x": "2"})
    assert (tree(tmp_path / "a"), tree(tmp_path / "b")) == ({"x": "1"}, {"x": "2"})


@pytest.mark.parametrize("name", ["x", "sub/x", "bundle.json", "hyperparams.yaml"])
def test_what_no_export_wrote_is_not_written_over(tmp_path, name):
    # The last two are files that this export does not have, but that others take the folder for.
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("theirs")
    before, ran = tree(tmp_path), []
    with pytest.raises(ConfigError, match=f"{name} {FOREIGN}: move it away"):
        write(tmp_path, {"x": "1", "sub/x": "2"}, meanwhile=lambda: ran.append("in vain"))
    assert tree(tmp_path) == before
    assert not ran
    assert not (tmp_path / RECORD).exists()


def test_a_file_that_appears_meanwhile_is_not_written_over(tmp_path):
    with pytest.raises(ConfigError, match=f"x {FOREIGN}"):
        write(tmp_path, {"x": "ours"}, meanwhile=lambda: (tmp_path / "x").write_text("theirs"))
    assert tree(tmp_path) == {"x": "theirs"}


def test_a_changed_file_of_which_there_is_no_other_is_kept(tmp_path, caplog):
    write(tmp_path, {"a": "1", "sub/b": "2", "sub/c": "3", "d": "4"})
    (tmp_path / "sub" / "b").write_text("changed")
    (tmp_path / "d").write_text("changed too")
    # The new export has no sub/b at all, and the same d as the one before.
    write(tmp_path, {"a": "5", "d": "4"})
    assert tree(tmp_path) == {"a": "5", "sub": None, "sub/b": "changed", "d": "changed too"}
    assert f"{tmp_path / 'sub/b'} {CHANGED}: it is kept" in caplog.text
    assert f"{tmp_path / 'd'} {CHANGED}: it is kept" in caplog.text
    # It was let go of: the next export has nothing to do with it.
    caplog.clear()
    write(tmp_path, {"a": "6"})
    assert (tmp_path / "sub" / "b").read_text() == "changed"
    assert (tmp_path / "d").read_text() == "changed too"
    assert "sub" not in caplog.text


@pytest.mark.parametrize("name", ["a", "sub/b"])
def test_an_export_is_not_mixed_with_what_was_changed_by_hand(tmp_path, name):
    write(tmp_path, {"a": "1", "sub/b": "2", "c": "3"})
    (tmp_path / name).write_text("changed")
    before = tree(tmp_path), record(tmp_path)
    with pytest.raises(ConfigError, match=f"{name} {CHANGED}: move it away"):
        write(tmp_path, {"a": "4", "sub/b": "5", "c": "6"})
    assert (tree(tmp_path), record(tmp_path)) == before
    # Nor with one that it may have, but has not this time.
    with pytest.raises(ConfigError, match=f"{name} {CHANGED}"):
        write(tmp_path, {"c": "6"}, names=["a", "sub/b", "c"])
    (tmp_path / name).rename(tmp_path / "mine")
    write(tmp_path, {"a": "4", "sub/b": "5", "c": "6"})
    assert (tmp_path / "mine").read_text() == "changed"


def test_a_file_that_was_removed_is_written_again(tmp_path):
    write(tmp_path, {"a": "1", "sub/b": "2"})
    shutil.rmtree(tmp_path / "sub")
    write(tmp_path, {"a": "3", "sub/b": "4"})
    assert tree(tmp_path) == {"a": "3", "sub": None, "sub/b": "4"}


def test_links_are_neither_followed_nor_replaced(tmp_path, caplog):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    target = tmp_path / "exported"
    write(target, {"a": "1", "sub/b": "2", "c": "3"})
    # The same contents, so that only the link tells the difference.
    (theirs / "a").write_text("1")
    (theirs / "b").write_text("2")
    (target / "a").unlink()
    (target / "a").symlink_to(theirs / "a")
    shutil.rmtree(target / "sub")
    (target / "sub").symlink_to(theirs)
    write(target, {"c": "4"})
    assert tree(theirs) == {"a": "1", "b": "2"}
    assert (target / "a").is_symlink()
    assert (target / "sub").is_symlink()
    assert f"sub/b {CHANGED}: it is kept" in caplog.text
    for name in ("a", "sub/new"):
        with pytest.raises(ConfigError, match=f"{name} {FOREIGN}"):
            write(target, {name: "5"})
    assert tree(theirs) == {"a": "1", "b": "2"}
    assert tree(target)["c"] == "4"


def test_a_link_to_the_folder_itself_is_the_users_choice(tmp_path):
    (tmp_path / "v2").mkdir()
    (tmp_path / "latest").symlink_to(tmp_path / "v2")
    write(tmp_path / "latest", {"a": "1"})
    write(tmp_path / "latest", {"b": "2"})
    assert tree(tmp_path / "v2") == {"b": "2"}


FORGED = ["../secret", "/etc/passwd", "a/../../secret", "..", ".", "", "./a", "a//b", "a/"]
FORGED += ["c:\\x", "a\x00", "export.json", ".unfinished-export/a"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"files": {"a": "0"}}',
        "\x00",
        "9" * 5000,
        *(
            json.dumps({"todm_sb": "0.1.0", "format": "test", "files": {name: "0" * 64}})
            for name in FORGED
        ),
    ],
)
def test_a_forged_record_makes_nobody_else_an_owner(tmp_path, text):
    target = tmp_path / "exported"
    target.mkdir()
    (tmp_path / "secret").write_text("theirs")
    (target / RECORD).write_text(text)
    for attempt in (lambda: check_place(target), lambda: write(target, {"a": "1"})):
        with pytest.raises(ConfigError, match=r"export\.json was not written by an export") as e:
            attempt()
        assert "\n" not in str(e.value)
    assert (tmp_path / "secret").read_text() == "theirs"
    assert tree(target) == {}


def test_a_record_that_is_a_link_is_not_one(tmp_path):
    write(tmp_path / "a", {"x": "1"})
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").write_text("1")
    (tmp_path / "b" / RECORD).symlink_to(tmp_path / "a" / RECORD)
    with pytest.raises(ConfigError, match=r"export\.json was not written by an export"):
        write(tmp_path / "b", {"x": "2"})
    assert tree(tmp_path / "b") == {"x": "1"}


@pytest.mark.parametrize("name", ["../a", "/a", "x/../../a"])
def test_a_file_of_an_export_stays_in_its_folder(tmp_path, name):
    with pytest.raises(ConfigError, match="is no file of an export"):
        write(tmp_path / "exported", {name: "1"})
    assert not list(tmp_path.iterdir())


class BrokenOffError(Exception):
    """In place of a signal that ends the process."""


def throw(error, *_):
    raise error


OLD = {"a": "old", "bundle.json": "old", "sub/b": "old", "gone/c": "old"}
NEW = {"a": "new", "bundle.json": "new", "sub/b": "new", "sub/d": "new"}
# Two writings of the record, four removals, four moves.
CHANGES = 10


@pytest.mark.parametrize("n", range(CHANGES + 1))
def test_an_export_broken_off_at_any_moment_is_replaced_by_the_next(tmp_path, monkeypatch, n):
    (tmp_path / "theirs").write_text("theirs")
    write(tmp_path, OLD)
    changes = []

    def counted(change):
        def counting(path, *args, **kwargs):
            changes.append(path)
            if len(changes) > n:
                raise BrokenOffError
            return change(path, *args, **kwargs)

        return counting

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", counted(os.replace))
        patch.setattr(Path, "unlink", counted(Path.unlink))
        # As a kill leaves it.
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        try:
            write(tmp_path, NEW)
        except BrokenOffError:
            assert n < CHANGES
        else:
            assert n == CHANGES
    found = {k: v for k, v in tree(tmp_path).items() if v and not k.startswith(STAGING)}
    assert found.pop("theirs") == "theirs"
    # Never files of both, and the one that says what the folder is only with all others.
    assert len(set(found.values())) <= 1
    if "bundle.json" in found:
        assert found in (OLD, NEW)
    third = {"a": "third", "e": "third"}
    write(tmp_path, third)
    assert tree(tmp_path) == {"theirs": "theirs", **third}
    assert "replaced" not in record(tmp_path)


def test_a_file_changed_after_an_export_was_broken_off_is_known_as_changed(tmp_path, monkeypatch):
    write(tmp_path, OLD)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", partial(throw, BrokenOffError))
        with pytest.raises(BrokenOffError):
            write(tmp_path, NEW)
    (tmp_path / "a").write_text("changed")
    with pytest.raises(ConfigError, match=f"a {CHANGED}"):
        write(tmp_path, {"a": "third"})
    assert (tmp_path / "a").read_text() == "changed"


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, OSError(28, "No space left")])
def test_an_export_that_fails_leaves_everything_as_it_was(tmp_path, error):
    write(tmp_path / "there", {"a": "1"})
    before = tree(tmp_path), record(tmp_path / "there")
    for folder in (tmp_path / "there", tmp_path / "not" / "there"):
        expected = ConfigError if isinstance(error, OSError) else error
        with pytest.raises(expected) as caught:
            write(folder, {"a": "half"}, meanwhile=partial(throw, error))
        if expected is ConfigError:
            assert str(caught.value) == (
                f"nothing is exported to {folder}: [Errno 28] No space left"
            )
    assert (tree(tmp_path), record(tmp_path / "there")) == before


def test_two_exports_into_one_folder_do_not_mix(tmp_path):
    with new_export(tmp_path / "x", "test", ["a"]) as new:
        (new / "a").write_text("first")
        with pytest.raises(ConfigError, match="another export is being written to"):
            write(tmp_path / "x", {"a": "second"})
        # Elsewhere it is nobody's business.
        write(tmp_path / "y", {"a": "second"})
    assert (tree(tmp_path / "x"), tree(tmp_path / "y")) == ({"a": "first"}, {"a": "second"})


def test_a_file_system_without_locks_does_not_matter(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(ownership, "try_lock", refuse)
    write(tmp_path, {"a": "1"})
    assert tree(tmp_path) == {"a": "1"}


def test_a_link_in_place_of_the_unfinished_folder_is_not_emptied(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "a").write_text("theirs")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / STAGING).symlink_to(tmp_path / "theirs")
    with pytest.raises(ConfigError, match=FOREIGN):
        write(tmp_path / "x", {"a": "1"})
    assert tree(tmp_path / "theirs") == {"a": "theirs"}


@pytest.mark.parametrize("kind", ["run", "around", "file", "below a file", "dangling", "/proc"])
def test_a_place_that_cannot_hold_an_export_is_one_line(tmp_path, kind):
    run = tmp_path / "results" / "run"
    run.mkdir(parents=True)
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    target = {
        "run": run,
        "around": tmp_path / "results",
        "file": tmp_path / "file",
        "below a file": tmp_path / "file" / "x",
        "dangling": tmp_path / "dangling",
        "/proc": Path("/proc/todm_sb/x"),
    }[kind]

    def attempt():
        check_place(target, run)
        write(target, {"a": "1"})

    with pytest.raises(ConfigError, match=r"is no place for|nothing is exported to") as error:
        attempt()
    assert str(target) in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(run.iterdir())


def test_a_folder_that_must_not_be_written_is_told_before_the_work(tmp_path, monkeypatch):
    # Root may write anywhere: the system's answer is put in its mouth.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(ConfigError, match=f"{tmp_path} cannot be written: name a folder"):
        check_place(tmp_path / "x" / "y")


def test_a_folder_of_its_own_within_the_run_is_a_place(tmp_path):
    check_place(tmp_path / "run" / "exported" / "min", tmp_path / "run")


NAMES = st.sampled_from(["a", "b", "s/a", "s/b", "bundle.json", "s/t/c"])
CONTENTS = st.dictionaries(NAMES, st.sampled_from("123"), min_size=1)
STEPS = st.lists(st.tuples(st.sampled_from(["export", "edit", "remove"]), CONTENTS), max_size=8)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_nothing_but_what_an_export_wrote_is_ever_lost(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("x") / "y"
    folder.mkdir()
    theirs, ours = {}, {}
    for kind, contents in steps:
        if kind == "export":
            try:
                write(folder, contents)
            except ConfigError:
                assert {k: v for k, v in tree(folder).items() if v} == {**ours, **theirs}
            else:
                ours = {k: v for k, v in contents.items() if k not in theirs}
        for name, content in contents.items():
            if kind == "edit":
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(f"edited {content}")
                theirs[name] = f"edited {content}"
            elif kind == "remove" and (folder / name).exists():
                (folder / name).unlink()
            if kind != "export":
                ours.pop(name, None)
            if kind == "remove":
                theirs.pop(name, None)
        assert {k: v for k, v in tree(folder).items() if v} == {**ours, **theirs}


def test_every_format_replaces_every_other(bundle_parts, tmp_path):
    pytest.importorskip("onnx", reason="needs the extra onnx")
    from todm_sb.bundle.bundle import write_bundle
    from todm_sb.bundle.manifest import BundledSubnet
    from todm_sb.export.onnx import export_onnx
    from todm_sb.export.web import export_web

    parts = dict(bundle_parts)
    space = parts.pop("space")
    subnet = BundledSubnet("max", space.max, {"params": 1})
    writers = {
        "bundle": lambda folder: write_bundle(folder, **parts),
        "web": lambda folder: export_web(folder, [subnet], **parts),
        "speechbrain": lambda folder: export_folder(folder, **parts, hop=160),
        "onnx": lambda folder: export_onnx(folder, **parts),
        "onnx-int8": lambda folder: export_onnx(folder, **parts, in_8_bits=True),
    }
    target = tmp_path / "x"
    target.mkdir()
    for form in (*writers, "bundle"):
        writer = writers[form]
        (target / "model.json").write_text("theirs")
        writer(target)
        paths = [p for p in target.rglob("*") if p.is_file()]
        hashes = {
            p.relative_to(target).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in paths
        }
        del hashes[RECORD]
        del hashes["model.json"]
        assert record(target) == {"todm_sb": "0.1.0", "format": form, "files": hashes}
        (target / "model.json").unlink()
        # Alone in the folder, none of its files belongs to an export.
        (target / RECORD).rename(tmp_path / "kept")
        with pytest.raises(ConfigError, match=FOREIGN):
            writer(target)
        (tmp_path / "kept").rename(target / RECORD)
