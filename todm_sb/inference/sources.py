"""What to transcribe: files, folders, lists of files, standard input."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from todm_sb.dataio.audio import SUFFIXES
from todm_sb.utils.errors import ConfigError, DataError
from todm_sb.utils.folders import files_below
from todm_sb.utils.text_files import lines, read_text

STDIN = "-"


@dataclass(frozen=True)
class Source:
    """Some audio.

    Args:
        path: of its file, or :data:`STDIN`.
        name: what its transcript is called: for a file its stem, for one of a folder its path
            below the folder without suffix.
    """

    path: str
    name: str

    @classmethod
    def of_file(cls, path: str) -> Source:
        """A file that was named."""
        return cls(path, "stdin" if path == STDIN else Path(path).stem)


def sources_of(paths: Sequence[str], lists: Sequence[str] = ()) -> list[Source]:
    """All that is named, in its order, those of folders by name.

    A missing file is one, too: it costs the others nothing.

    Args:
        paths: of files and folders, or :data:`STDIN`.
        lists: of files that name a file or folder a line, relative to the list, so that ``-`` is a
            file of that name; :data:`STDIN` for one on standard input.

    Raises:
        ConfigError: if nothing is named, a list cannot be read, or standard input is named twice.
    """
    if [*paths, *lists].count(STDIN) > 1:
        raise ConfigError("standard input (-) can be one thing only: name it once")
    if STDIN in (*paths, *lists) and (sys.stdin is None or sys.stdin.isatty()):
        what = "closed" if sys.stdin is None else "a terminal"
        raise ConfigError(f"- is standard input, {what} here: send something in, as with < file")
    listed = [path for name in lists for path in _of_list(name)]
    listed = [os.path.join(os.curdir, path) if path == STDIN else path for path in listed]
    found = [source for path in (*paths, *listed) for source in _of_path(path)]
    if not found:
        raise ConfigError("nothing to transcribe: name audio files, folders that hold some, or -")
    return found


def _of_list(name: str) -> list[str]:
    if name == STDIN:  # from a shell, where a name need not be UTF-8
        return _paths(os.fsdecode(sys.stdin.buffer.read()))
    try:
        text = read_text(name)
    except DataError as error:
        raise ConfigError(str(error)) from None
    except OSError as error:
        raise ConfigError(f"list {name} cannot be read: {error.strerror or error}") from None
    folder = Path(name).parent
    return [str(folder / path) for path in _paths(text)]


def _paths(text: str) -> list[str]:
    return [os.path.expanduser(line) for line in lines(text) if line.strip()]


def _of_path(path: str) -> list[Source]:
    if path == STDIN or not os.path.isdir(path):
        return [Source.of_file(path)]
    folder = Path(path)
    audio = sorted(x for x in files_below(folder) if x.suffix.lower() in SUFFIXES)
    if not audio:
        raise ConfigError(f"{path} holds no audio file: name its files if they are audio")
    return [Source(str(x), str(x.relative_to(folder).with_suffix(""))) for x in audio]


def check_names(sources: Sequence[Source], called: Callable[[str], str] = str) -> None:
    """Checks that the name of each transcript is its own.

    Args:
        sources: of the transcripts.
        called: how their format writes a name.

    Raises:
        ConfigError: if two have the same.
    """
    seen: dict[str, Source] = {}
    for source in sources:
        name = called(source.name)
        other = seen.setdefault(os.path.normcase(name), source)
        if other is not source:
            raise ConfigError(
                f"{other.path} and {source.path} would both be written as {name}: give the "
                "folder that holds both, or each to a command of its own"
            )
