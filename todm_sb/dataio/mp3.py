"""How long MP3 files are, which libsndfile tells by a frame that some have, or else guesses."""

from __future__ import annotations

import io
import mmap
import os
import re
from functools import cache, lru_cache
from pathlib import Path
from typing import BinaryIO

# Of a tag of ID3v2, before which no audio is.
TAG_HEADER = 10
# The frame that LAME and others put before the audio begins within so many bytes.
BEGINNING = 4096
# In kbit/s, of MPEG 1 and of the lower sampling rates of MPEG 2 and 2.5.
_BITRATES = {
    True: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
# In Hz, of MPEG 1; MPEG 2 has the halves, MPEG 2.5 the quarters.
_RATES = (44100, 48000, 32000)
# Beyond what is told: what encoders put before and after the audio, of which a tag can tell so many
# samples, twice 12 bits, and libsndfile takes them off; and some frames.
_SPARE_SAMPLES, _SPARE_FRAMES = 2 * 4095, 4
# Files of which it is remembered how long they are.
_REMEMBERED = 1 << 16
_BEGINNING_OF_FRAME = re.compile(rb"\xff[\xe2-\xff]")


def tells_length(file: BinaryIO) -> bool:
    """Whether a file has the frame that says how many others follow. Where it has none, libsndfile
    guesses their number from the first one and the size of all, pictures in tags included.

    Args:
        file: that is open, at any place.
    """
    file.seek(0)
    file.seek(_tag_size(file.read(TAG_HEADER)))
    return re.search(b"Xing|Info", file.read(BEGINNING)) is not None


def is_longer(source: str | bytes | Path | io.BytesIO, n_samples: int) -> bool:
    """Whether a file holds more audio than libsndfile, which reads no further, says: several that
    were joined, or one whose frames differ in size and none of which tells how many they are.

    Args:
        source: a path, or the content.
        n_samples: of each channel, that libsndfile says.
    """
    if isinstance(source, io.BytesIO):
        n, longest_frame = _samples(source.getvalue())
    else:
        status = os.stat(source)
        n, longest_frame = _samples_of_file(source, status.st_size, status.st_mtime_ns)
    return n > n_samples + _SPARE_SAMPLES + _SPARE_FRAMES * longest_frame


@lru_cache(_REMEMBERED)
def _samples_of_file(path: str | bytes | Path, size: int, changed: int) -> tuple[int, int]:
    with (
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        return _samples(data)


def _samples(data: bytes | mmap.mmap) -> tuple[int, int]:
    """Samples in all frames of Layer III, and in the longest, by their headers."""
    total = longest = at = 0
    in_step = False  # a frame ends here
    while at < len(data) - 4:
        size, samples = _frame(data, at)
        if size and (in_step or at + size == len(data) or _frame(data, at + size)[0]):
            tells = not longest and re.search(b"Xing|Info", data[at : at + size])
            total, longest = total + (0 if tells else samples), max(longest, samples)
            at, in_step = at + size, True
        elif data[at : at + 3] == b"ID3":
            at += _tag_size(data[at : at + TAG_HEADER])
        else:
            found = _BEGINNING_OF_FRAME.search(data, at + 1)
            at, in_step = found.start() if found else len(data), False
    return total, longest


def _frame(data: bytes | mmap.mmap, at: int) -> tuple[int, int]:
    """Bytes and samples of the frame that begins at a place; 0 where no whole one does."""
    if data[at : at + 1] != b"\xff" or at + 4 > len(data):
        return 0, 0
    size, samples = _frame_of(data[at + 1], data[at + 2])
    return (size, samples) if at + size <= len(data) else (0, 0)


@cache
def _frame_of(second: int, third: int) -> tuple[int, int]:
    """The same by two bytes of the header."""
    version, layer = second >> 3 & 3, second >> 1 & 3
    bitrate, rate, padding = third >> 4, third >> 2 & 3, third >> 1 & 1
    if second < 0xE0 or version == 1 or layer != 1 or bitrate in (0, 15) or rate == 3:
        return 0, 0
    samples = 1152 if version == 3 else 576
    hertz = _RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    size = samples // 8 * 1000 * _BITRATES[version == 3][bitrate - 1] // hertz + padding
    return size, samples


def _tag_size(header: bytes) -> int:
    """Bytes of a tag of ID3v2 that begins so, 0 if none does."""
    if not header.startswith(b"ID3"):
        return 0
    return TAG_HEADER + sum(byte << 7 * i for i, byte in enumerate(reversed(header[6:])))
