r"""Reading text exactly: UTF-8, lines that end at ``\n`` or ``\r\n``, words between ASCII spaces.

``str.splitlines`` and ``str.split`` also cut at U+2028, U+0085, U+00A0, U+3000 and a dozen more,
and Python's text mode at a lone ``\r``: characters that a transcript, a name or a path may hold.
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from todm_sb.errors import DataError

# Byte order mark of UTF-8; some programs put one before that which is there.
BOM = "\ufeff"


def read_text(path: str | Path) -> str:
    """The characters of a UTF-8 file as they are, but for byte order marks at its start.

    Args:
        path: the file.

    Raises:
        DataError: if it is not UTF-8, or holds the NUL characters that text has not.
        OSError: if it cannot be read.
    """
    try:
        data = Path(path).read_bytes()
        text = data.decode()
    except UnicodeDecodeError as error:
        reason = f"{error.reason} at byte {error.start}"
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            reason = "it is UTF-16"
        raise DataError(f"{path} is not UTF-8 text ({reason}): save it as UTF-8") from None
    if "\0" in text:  # what UTF-16 without a byte order mark looks like
        raise DataError(f"{path} is UTF-16, not UTF-8 text, or no text at all: save it as UTF-8")
    return text.lstrip(BOM)


def lines(text: str) -> list[str]:
    r"""The lines of a text without their ends, which are ``\n`` and ``\r\n`` alone.

    Args:
        text: a last line need not have an end.
    """
    found = re.split(r"\r?\n", text)
    return found if found[-1] else found[:-1]


def words(line: str) -> list[str]:
    r"""What stands between ASCII white space (space, ``\t``, ``\n``, ``\r``, ``\f``, ``\v``).

    Args:
        line: a transcript.
    """
    return re.findall(r"\S+", line, re.ASCII)
