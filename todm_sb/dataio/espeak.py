"""Text to speech with espeak-ng, called through ctypes from the `espeakng_loader` wheel.

espeak-ng (1.52) carries state from one utterance into the next, and neither ``espeak_Initialize``
nor ``espeak_ng_SetRandSeed`` resets all of it. So each utterance is spoken by a freshly loaded copy
of the library, which takes about 5 ms: what is said then depends on the arguments alone and not on
what was said before.
"""

from __future__ import annotations

import _ctypes
import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from todm_sb.utils.errors import DataError
from todm_sb.utils.extras import installing

SAMPLE_RATE = 22050
"""Hz; what espeak-ng's own voices speak at."""

# The names and values of espeak-ng's speak_lib.h.
AUDIO_OUTPUT_SYNCHRONOUS = 2
INITIALIZE_DONT_EXIT = 1 << 15
CHARS_UTF8 = 1
POS_CHARACTER = 1
PARAMETER_RATE, PARAMETER_PITCH, PARAMETER_RANGE = 1, 3, 4

EVENT_LIST_END, EVENT_WORD = 0, 1


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    """espeak-ng's ``espeak_EVENT``."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),  # of the first character, from 1
        ("length", ctypes.c_int),  # in characters
        ("audio_position", ctypes.c_int),  # in milliseconds
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_SynthCallback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)

# The library has one voice and one callback for the whole process.
_lock = threading.Lock()


@dataclass(frozen=True)
class Voice:
    """A way of speaking.

    Args:
        accent: espeak-ng's voice, such as ``en-us``.
        variant: espeak-ng's variant of it (the speaker's vocal tract), such as ``m3``.
        pitch: 0 to 99, 50 being the variant's own.
        rate: words a minute.
        pitch_range: 0 (monotone) to 99, 50 being the variant's own.
    """

    accent: str
    variant: str
    pitch: int = 50
    rate: int = 175
    pitch_range: int = 50

    @property
    def name(self) -> str:
        """What espeak-ng calls the accent and the variant together."""
        return f"{self.accent}+{self.variant}"


def synthesize(text: str, voice: Voice) -> np.ndarray:
    """Speaks a text; see :func:`synthesize_with_times`.

    Returns:
        Samples between -1 and 1, float64, at `SAMPLE_RATE`.
    """
    return synthesize_with_times(text, voice)[0]


def synthesize_with_times(text: str, voice: Voice) -> tuple[np.ndarray, list[tuple[str, float]]]:
    """Speaks a text, and says when each word begins.

    Calls from several threads are served one after the other; the library holds no GIL.

    Args:
        text: what to say.
        voice: how to say it.

    Returns:
        Samples between -1 and 1, float64, at `SAMPLE_RATE`; and each word with the second at which
        espeak-ng begins it, in steps of a millisecond.

    Raises:
        DataError: if espeak-ng is not installed, cannot start or does not know the voice.
    """
    chunks: list[bytes] = []
    words: list[tuple[str, float]] = []

    @_SynthCallback
    def collect(samples, count, events) -> int:
        if samples and count > 0:
            chunks.append(ctypes.string_at(samples, count * ctypes.sizeof(ctypes.c_short)))
        i = 0
        while events[i].type != EVENT_LIST_END:
            event = events[i]
            if event.type == EVENT_WORD:
                begin = event.text_position - 1
                words.append((text[begin : begin + event.length], event.audio_position / 1000))
            i += 1
        return 0  # go on

    encoded = text.encode()
    with _lock, _fresh_library() as (espeak, data):
        espeak.espeak_SetSynthCallback(collect)
        # espeak-ng itself passes over an unknown variant in silence.
        known = (Path(data) / "voices" / "!v" / voice.variant).is_file()
        if not known or espeak.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise DataError(f"espeak-ng has no voice '{voice.name}'")
        espeak.espeak_SetParameter(PARAMETER_RATE, voice.rate, 0)
        espeak.espeak_SetParameter(PARAMETER_PITCH, voice.pitch, 0)
        espeak.espeak_SetParameter(PARAMETER_RANGE, voice.pitch_range, 0)
        status = espeak.espeak_Synth(
            encoded, len(encoded) + 1, 0, POS_CHARACTER, 0, CHARS_UTF8, None, None
        )
        if status != 0:
            raise DataError(f"espeak-ng could not say '{text}' as '{voice.name}' (code {status})")
    return np.frombuffer(b"".join(chunks), dtype=np.int16) / 32768.0, words


@contextmanager
def _fresh_library() -> Iterator[tuple[ctypes.CDLL, str]]:
    """A newly loaded espeak-ng and the folder of its data, unloaded again afterwards."""
    try:
        import espeakng_loader
    except ImportError as error:
        raise DataError(
            f"the mini corpus is spoken by espeak-ng, which is not installed: {installing('demo')}"
        ) from error

    data = str(espeakng_loader.get_data_path())
    espeak = ctypes.CDLL(str(espeakng_loader.get_library_path()))
    espeak.espeak_Synth.argtypes = [
        ctypes.c_char_p,  # text
        ctypes.c_size_t,  # its size, the closing zero included
        ctypes.c_uint,  # start
        ctypes.c_int,  # unit of the start
        ctypes.c_uint,  # end, 0 for none
        ctypes.c_uint,  # flags
        ctypes.c_void_p,
        ctypes.c_void_p,
    ]
    espeak.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
    try:
        rate = espeak.espeak_Initialize(
            AUDIO_OUTPUT_SYNCHRONOUS, 0, data.encode(), INITIALIZE_DONT_EXIT
        )
        if rate != SAMPLE_RATE:
            raise DataError(f"espeak-ng could not start from {data} (code {rate})")
        try:
            espeak.espeak_ng_SetRandSeed(1)  # else its noises begin at random
            yield espeak, data
        finally:
            espeak.espeak_Terminate()
    finally:
        _unload(espeak)


def _unload(library: ctypes.CDLL) -> None:
    """Takes a shared library out of the process, and its static variables with it."""
    close = "FreeLibrary" if sys.platform == "win32" else "dlclose"
    getattr(_ctypes, close)(library._handle)
