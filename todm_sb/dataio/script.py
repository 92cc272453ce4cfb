"""Where words begin, in scripts with and without spaces."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

WORD_MARK = "\u2581"


def is_wide(character: str) -> bool:
    """Whether a character is of a script that is written without spaces and a word by itself here:
    the wide ones of Chinese, Japanese and Korean, but for Hangul, which has spaces."""
    wide = unicodedata.east_asian_width(character) in "WF"
    return wide and not unicodedata.name(character, "").startswith("HANGUL")


def begins_word(piece: str | int) -> bool:
    """Whether a piece begins a word, whatever comes before it.

    Args:
        piece: of :class:`todm_sb.dataio.detokenizer.Detokenizer`; a byte begins none.
    """
    return isinstance(piece, str) and (piece[:1] == WORD_MARK or is_wide(piece[:1] or " "))


def join_words(words: Iterable[str]) -> str:
    """Words as a text: a space between two, unless one of them is written without."""
    text = ""
    for word in words:
        if text and word and not (is_wide(text[-1]) or is_wide(word[0])):
            text += " "
        text += word
    return text
