"""Where words begin, in scripts with and without spaces."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

WORD_MARK = "\u2581"
# What the names of letters begin with in scripts that have no spaces between words, and in which a
# character is no word either.
_UNSPACED = ("THAI ", "LAO ", "KHMER ", "MYANMAR ")


def is_wide(text: str) -> bool:
    """Whether a text begins with a character that is a word by itself here, since its script has
    no spaces: the wide ones of Chinese and Japanese, but not Hangul."""
    wide = unicodedata.east_asian_width(text[0]) in "WF"
    return wide and not unicodedata.name(text[0], "").startswith("HANGUL")


def begins_word(piece: str | int) -> bool:
    """Whether a piece begins a word, whatever comes before it.

    Args:
        piece: of :class:`todm_sb.dataio.detokenizer.Detokenizer`; a byte begins none.
    """
    return isinstance(piece, str) and (piece[:1] == WORD_MARK or is_wide(piece[:1] or " "))


def is_unspaced(text: str) -> bool:
    """Whether a text begins with a character of a script without spaces between words."""
    return is_wide(text) or unicodedata.name(text[0], "").startswith(_UNSPACED)


def ends_word(piece: str | int) -> bool:
    """Whether a word ends before a piece: at another one, at punctuation or a symbol, and, in a
    script without spaces, perhaps at any letter.

    Args:
        piece: see :func:`begins_word`.
    """
    if not isinstance(piece, str) or not piece:
        return False
    kind = unicodedata.category(piece[0])[0]
    return begins_word(piece) or kind in "PS" or (is_unspaced(piece) and kind != "M")


def split_words(text: str) -> list[str]:
    """The words of a text: what stands between white space, and each wide character."""
    return "".join(f" {c} " if is_wide(c) else c for c in text).split()


def join_words(words: Iterable[str]) -> str:
    """Words as a text: a space between two, unless one of them is written without."""
    text = ""
    for word in words:
        if text and word and not (is_wide(text[-1]) or is_wide(word[0])):
            text += " "
        text += word
    return text
