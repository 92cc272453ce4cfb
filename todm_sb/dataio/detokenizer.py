"""From label ids to text as SentencePiece's ``decode_ids`` does it, but without its model, and as
the labels come.

A piece is text, in which :data:`WORD_MARK` stands for a space, or a byte; bytes side by side are
UTF-8. ``tokens.txt``, which recognisers such as sherpa-onnx read, has a line a label: its piece, a
space, and its id. ``todm_sb/web/page/tokens.js`` is the same in JavaScript.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from todm_sb.dataio.script import WORD_MARK as WORD_MARK
from todm_sb.utils.errors import ConfigError, quoted

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor
# How tokens.txt names blank, which is label 0, and SentencePiece's unknown piece.
BLANK_NAME, UNKNOWN_NAME = "<blk>", "<unk>"
UNKNOWN_TEXT = " \u2047 "

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass
class TextState:
    """Where a text stands that is said label by label; its size does not grow with the text.

    Args:
        begun: whether anything has been said.
        pending: bytes that may become a character.
    """

    begun: bool = False
    pending: bytes = b""


class Detokenizer:
    """Turns label ids into text.

    Args:
        pieces: by id; text, or the value of a byte.
    """

    def __init__(self, pieces: Iterable[str | int]) -> None:
        self.pieces = list(pieces)

    @classmethod
    def of_tokenizer(cls, tokenizer: SentencePieceProcessor) -> Detokenizer:
        """With the pieces of a SentencePiece model."""
        return cls(_piece(tokenizer, i) for i in range(tokenizer.get_piece_size()))

    @classmethod
    def of_tokens(cls, tokens: str) -> Detokenizer:
        """With the pieces of a ``tokens.txt``.

        Args:
            tokens: its text.

        Raises:
            ConfigError: if a line ends in another id than its own.
        """
        pieces = []
        for i, line in enumerate(tokens.rstrip().split("\n")):
            name, _, number = line.rpartition(" ")
            if number.rstrip("\r") != str(i):
                raise ConfigError(f"line {i + 1}, {quoted(line)}, must end in the id {i}")
            pieces.append(_piece_of_name(name))
        return cls(pieces)

    def text(self, ids: Iterable[int]) -> str:
        """The text of label ids; bytes that are no UTF-8 are U+FFFD each."""
        state = TextState()
        return self.feed(state, ids) + self.end(state)

    def feed(self, state: TextState, ids: Iterable[int]) -> str:
        """What the next labels add to a text; a character is held back until its bytes are there.

        Args:
            state: where the text stands; it is moved on.
            ids: the labels.
        """
        return "".join([self._say(state, self.pieces[i]) for i in ids])

    def end(self, state: TextState) -> str:
        """What was held back of a text that ends here."""
        text, state.pending = _characters(state.pending, final=True)
        return text

    def _say(self, state: TextState, piece: str | int) -> str:
        if isinstance(piece, int):
            text, state.pending = _characters(state.pending + bytes([piece]), final=False)
        else:
            text = self.end(state)
            # A text does not begin with the mark of its first word.
            if not (state.begun or text):
                piece = piece.removeprefix(WORD_MARK)
            text += piece.replace(WORD_MARK, " ")
        state.begun = state.begun or bool(text)
        return text


def tokens_of(tokenizer: SentencePieceProcessor) -> str:
    """The ``tokens.txt`` of a tokenizer; label 0 is blank.

    Raises:
        ConfigError: if a piece would be taken for something else.
    """
    names = [_name(tokenizer, i) for i in range(tokenizer.get_piece_size())]
    tokens = "".join(f"{name} {i}\n" for i, name in enumerate([BLANK_NAME, *names[1:]]))
    read = Detokenizer.of_tokens(tokens).pieces
    for i, piece in enumerate(Detokenizer.of_tokenizer(tokenizer).pieces[1:], start=1):
        if read[i] != piece:
            raise ConfigError(f"piece {i} of the tokenizer, {piece!r}, cannot be put in tokens.txt")
    return tokens


def _piece(tokenizer: SentencePieceProcessor, i: int) -> str | int:
    if tokenizer.is_control(i):
        return ""
    if tokenizer.is_unknown(i):
        return tokenizer.decode_ids([i])
    piece = tokenizer.id_to_piece(i)
    return _byte(piece) if tokenizer.is_byte(i) else piece


def _name(tokenizer: SentencePieceProcessor, i: int) -> str:
    if tokenizer.is_control(i):
        return ""
    if tokenizer.is_unknown(i):
        return UNKNOWN_NAME
    # A line break would end the line; as a byte it says the same.
    return tokenizer.id_to_piece(i).replace("\n", "<0x0A>")


def _piece_of_name(name: str) -> str | int:
    if name in (BLANK_NAME, UNKNOWN_NAME):
        return UNKNOWN_TEXT
    return _byte(name) if _BYTE.fullmatch(name) else name.replace("<0x0A>", "\n")


def _byte(name: str) -> str | int:
    """The byte of a name that :data:`_BYTE` matches; below 128 it is a character by itself."""
    value = int(name[len("<0x") : -1], 16)
    return value if value >= 128 else chr(value)


def _characters(data: bytes, final: bool) -> tuple[str, bytes]:
    """The characters of bytes, and the bytes that are left; a byte of no character is U+FFFD.

    Args:
        data: the bytes.
        final: no byte follows them.
    """
    text = ""
    while data:
        try:
            known, n = codecs.utf_8_decode(data, "strict", final)
        except UnicodeDecodeError as error:
            known, n = data[: error.start].decode() + "\ufffd", error.start + 1
        if n == 0:
            break
        text, data = text + known, data[n:]
    return text, data
