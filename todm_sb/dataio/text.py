"""Words as errors are counted: one normaliser for what was said and for what was decoded.

A tokenizer normalises what a network learns from (NFKC, unless it was trained otherwise; some fold
case). Words of references are normalised by it, too, or the Unicode form of a transcript would
count as errors. What it does not know stays in them, and is an error by right.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from todm_sb.dataio.detokenizer import WORD_MARK

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

# What a normaliser makes of a text can be in its table again; once more is enough as a rule.
PASSES = 8
# Terminals obey them.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


def words_of_text(tokenizer: SentencePieceProcessor, text: str) -> list[str]:
    """The words of a transcript, as errors are counted.

    Args:
        tokenizer: of the network.
        text: what was said, in any Unicode form.
    """
    for _ in range(PASSES):
        words = tokenizer.normalize(text).replace(WORD_MARK, " ").split()
        before, text = text, " ".join(words)
        if text == before:
            break
    return words


def words_of_ids(tokenizer: SentencePieceProcessor, ids: Sequence[int]) -> list[str]:
    """The words of what a network decoded, as errors are counted.

    Args:
        tokenizer: of the network.
        ids: labels.
    """
    return words_of_text(tokenizer, tokenizer.decode_ids(list(ids)))


def printable(text: str, escape: str = "\\x{:02x}") -> str:
    r"""A text for a terminal: control characters are escaped, e.g. ``\x1b``.

    A tokenizer with byte pieces can say any character.

    Args:
        text: any.
        escape: format of a character's number.
    """
    return _CONTROL.sub(lambda found: escape.format(ord(found[0])), text)
