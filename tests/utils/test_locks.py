"""A lock keeps others out of a folder for as long as its process lives, and no longer."""

import errno
import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys

import pytest

from todm_sb.utils.locks import NAME, FolderInUseError, FolderLock, is_locked

HOLDER = """
import multiprocessing, sys, time
from pathlib import Path
from todm_sb.utils.locks import FolderLock

with FolderLock(Path(sys.argv[1])):
    # As a data-loader worker that has not noticed yet that its parent is gone.
    worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    worker.start()
    print(worker.pid, flush=True)
    time.sleep(600)
"""


def test_another_process_is_told_who_has_the_lock_and_gets_it_once_that_is_killed(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        worker = int(holder.stdout.readline())
        try:
            assert is_locked(tmp_path)
            with pytest.raises(FolderInUseError, match=rf"in use by process {holder.pid} on .*: "):
                FolderLock(tmp_path)
        finally:
            holder.kill()
            holder.wait()
        try:
            os.kill(worker, 0)  # it is alive
            assert not is_locked(tmp_path)
            FolderLock(tmp_path).release()
        finally:
            os.kill(worker, signal.SIGKILL)


def test_a_lock_is_given_up_and_can_be_had_again(tmp_path):
    folder = tmp_path / "new" / "folder"
    assert not is_locked(folder)
    assert not folder.exists()
    with FolderLock(folder):
        assert is_locked(folder)
        with pytest.raises(FolderInUseError):
            FolderLock(folder)
        assert is_locked(folder)
    assert not is_locked(folder)
    with FolderLock(folder) as again:
        assert not again.problem


def test_who_asks_for_a_lock_leaves_nothing_behind(tmp_path):
    assert not is_locked(tmp_path)
    assert not list(tmp_path.iterdir())


INHERITS = """
import os, sys
from pathlib import Path
from todm_sb.utils.locks import INHERITED, FolderInUseError, FolderLock, is_locked

folder, other = map(Path, sys.argv[1:])
FolderLock(other).release()  # what was handed over is not for this one
with FolderLock(folder):
    assert is_locked(folder)
    assert INHERITED not in os.environ
print(is_locked(folder))
"""


def test_a_process_that_is_started_takes_the_lock_over(tmp_path):
    folders = [tmp_path / name for name in ("a", "b")]
    with FolderLock(folders[0]) as lock:
        child = subprocess.Popen(
            [sys.executable, "-c", INHERITS, *map(str, folders)],
            stdout=subprocess.PIPE,
            env={**os.environ, **lock.handed_over()},
            pass_fds=[lock.descriptor],
            text=True,
        )
    out, _ = child.communicate()
    assert (child.returncode, out) == (0, "False\n")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_is_said_and_holds_nobody_back(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with FolderLock(tmp_path) as first, FolderLock(tmp_path):
        assert f"{tmp_path} cannot be locked ({os.strerror(number)})" in first.problem
        assert not is_locked(tmp_path)


def _take(folder):
    FolderLock(folder).release()


def test_another_error_than_a_missing_lock_is_one(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="broken"):
        FolderLock(tmp_path)


def test_a_forked_process_neither_has_the_lock_nor_ends_it(tmp_path):
    with FolderLock(tmp_path):
        child = multiprocessing.get_context("fork").Process(target=_take, args=(tmp_path,))
        child.start()
        child.join()
        assert child.exitcode == 1  # it was refused
        assert is_locked(tmp_path)
    assert (tmp_path / NAME).exists()
