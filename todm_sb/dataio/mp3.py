"""Whether an MP3 file tells its own length."""

from __future__ import annotations

import re
from typing import BinaryIO

# Of a tag of ID3v2, before which no audio is.
TAG_HEADER = 10
# The frame that LAME and others put before the audio begins within so many bytes.
BEGINNING = 4096


def tells_length(file: BinaryIO) -> bool:
    """Whether a file has the frame that says how many others follow. Where it has none, libsndfile
    guesses their number from the first one and the size of all, pictures in tags included.

    Args:
        file: that is open, at any place.
    """
    file.seek(0)
    header = file.read(TAG_HEADER)
    tag = 0
    if header.startswith(b"ID3"):
        tag = TAG_HEADER
        for i, byte in enumerate(reversed(header[6:])):
            tag += byte << 7 * i
    file.seek(tag)
    return re.search(b"Xing|Info", file.read(BEGINNING)) is not None
