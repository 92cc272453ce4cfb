"""A lock on a folder, which ends with the process that holds it, however that ends.

It is an advisory lock (``flock``) on a file in the folder. The operating system lifts it when the
last descriptor of its holder is closed, by SIGKILL, too: no lock is left behind, only the file.
POSIX's own locks (``lockf``) would end as soon as anything in the process closed that file, and
could not be handed to a process that is started. That a forked process does not hold them, as it
does these, is seen to here: data-loader workers outlive a killed training by seconds, and would
keep its folder locked.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from pathlib import Path
from types import TracebackType

from todm_sb.utils.errors import ConfigError

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    import msvcrt

NAME = ".lock"
# Tells a process that is started which of its descriptors holds a lock.
INHERITED = "TODM_SB_LOCK"

# What file systems answer that have no locks; some of networks, as they are mounted.
UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
# Looks at a lock that is held, and seconds between them: who asks :func:`is_locked` has it briefly.
ATTEMPTS, PAUSE = 5, 0.05
# The byte that Windows locks; nobody can read it meanwhile, hence far from the text.
FAR = 1 << 30

_held: set[int] = set()


class FolderInUseError(ConfigError):
    """Another process has the lock."""


class FolderLock:
    """The lock on a folder, from its construction until it is released.

    ``problem`` says, for a log, why it holds nobody back where the file system has no locks, and is
    empty where it has.

    Args:
        folder: made if need be.

    Raises:
        FolderInUseError: if another process has it.
        OSError: if the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / NAME
        self.problem = ""
        inherited = _inherited(path)
        self.descriptor = (
            os.open(path, os.O_RDWR | os.O_CREAT, 0o644) if inherited is None else inherited
        )
        _held.add(self.descriptor)
        try:
            if inherited is None:
                self._take(folder)
            _write_holder(self.descriptor)
        except BaseException:
            self._close()
            raise

    def _take(self, folder: Path) -> None:
        for _ in range(ATTEMPTS):
            if self._is_taken(folder):
                return
            time.sleep(PAUSE)
        raise FolderInUseError(
            f"{folder} is in use by {_holder(self.descriptor)}: wait for its end, end it, or give "
            "another --output_folder"
        )

    def _is_taken(self, folder: Path) -> bool:
        try:
            return try_lock(self.descriptor)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            self.problem = (
                f"{folder} cannot be locked ({error.strerror}): see to it that nothing else writes "
                "there"
            )
        return True

    def release(self) -> None:
        """Gives the lock up; once, or again for nothing. Who inherited it still has it."""
        if self.descriptor in _held:
            os.ftruncate(self.descriptor, 0)  # as it was before
            self._close()

    def _close(self) -> None:
        _held.remove(self.descriptor)
        os.close(self.descriptor)

    def handed_over(self) -> dict[str, str]:
        """The variable of its environment by which a process that is started finds the lock, if
        it is also given the descriptor (``subprocess``'s ``pass_fds``)."""
        return {INHERITED: str(self.descriptor)}

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def is_locked(folder: Path) -> bool:
    """Whether a process has the lock on a folder; leaves nothing there."""
    try:
        descriptor = os.open(folder / NAME, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not try_lock(descriptor, shared=True)
    except OSError as error:
        return error.errno not in UNSUPPORTED
    finally:
        os.close(descriptor)


def try_lock(descriptor: int, shared: bool = False) -> bool:
    """Takes the lock, unless another has it; says whether it is taken.

    Raises:
        OSError: if the file system has no locks, or fails.
    """
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, FAR, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # the latter on Windows
        return False
    return True


def _inherited(path: Path) -> int | None:
    """The descriptor by which this process was handed the lock on a file; None if it was not."""
    try:
        descriptor = int(os.environ[INHERITED])
        if not os.path.samestat(os.fstat(descriptor), os.stat(path)):
            return None
    except (KeyError, ValueError, OSError):
        return None
    del os.environ[INHERITED]
    os.set_inheritable(descriptor, False)
    return descriptor


def _write_holder(descriptor: int) -> None:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    text = f"process {os.getpid()} on {socket.gethostname()}, since {since}"
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, text.encode())


def _holder(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    text = os.read(descriptor, 1000).decode(errors="replace")
    return " ".join(text.split()) or "another process"


def _forget_in_child() -> None:
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
