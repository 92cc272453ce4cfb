"""Shallow fusion with an n-gram model, of pieces or of words."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from sentencepiece import SentencePieceProcessor
from torch import Tensor

from todm_sb.dataio.detokenizer import Detokenizer
from todm_sb.dataio.script import WORD_MARK, begins_word, is_wide, split_words
from todm_sb.decoders.fusion import Fusion
from todm_sb.decoders.ngram import END, START, UNKNOWN, Context, NGram
from todm_sb.decoders.spelling import known_spelling
from todm_sb.nnet.predictor import State
from todm_sb.utils.errors import ConfigError, quoted

# Rows of scores that are kept, one a context of pieces.
ROWS = 4096
# Words of a model that are looked at to see whether it is of this language and spelling.
SAMPLE = 1000


class _History(NamedTuple):
    """What a hypothesis has said, as far as it counts.

    Args:
        context: units before the next one.
        pending: labels since the last one that began a word, which may go on; of pieces there are
            none.
    """

    context: Context
    pending: tuple[int, ...] = ()


class _Histories(threading.local):
    """Numbers of histories; each thread, with the one search that it is at, has its own."""

    def __init__(self) -> None:
        self.clear()

    def __reduce__(self) -> tuple[type[_Histories], tuple[()]]:
        """A copy begins anew."""
        return _Histories, ()

    def clear(self) -> None:
        """Begins anew."""
        self._numbers: dict[_History, int] = {}
        self._histories: list[_History] = []

    def numbers_of(self, histories: Sequence[_History]) -> Tensor:
        """(histories,), integers; what is new gets the next one."""
        for history in histories:
            if history not in self._numbers:
                self._numbers[history] = len(self._histories)
                self._histories.append(history)
        return torch.tensor([*map(self._numbers.__getitem__, histories)], dtype=torch.long)

    def of_numbers(self, numbers: Tensor) -> list[_History]:
        """The inverse."""
        return [self._histories[number] for number in numbers.tolist()]


class _NGramFusion(ABC):
    """Keeps the histories of hypotheses; their numbers are the states.

    Args:
        model: the language model.
        pieces: by label.
        weight: of its log-probabilities.
        blank: id of blank.
    """

    def __init__(
        self, model: NGram, pieces: list[str | int], weight: float, blank: int = 0
    ) -> None:
        self.model = model
        self.pieces = pieces
        self.weight = weight
        self.blank = blank
        self._histories = _Histories()

    def predict(self, labels: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """See :class:`todm_sb.decoders.fusion.Fusion`."""
        if state is None:
            self._histories.clear()
            new = [_History(self.model.context((START,)))] * len(labels)
        else:
            before = self._histories.of_numbers(state[0])
            new = [self._after(*x) for x in zip(before, labels.tolist(), strict=True)]
        numbers = self._histories.numbers_of(new)
        rows = [self._row(history) for history in new]
        gains = torch.stack(rows) if rows else torch.zeros(0, len(self.pieces))
        gains = self.weight * gains
        gains[:, self.blank] = 0
        return gains.to(labels.device), (numbers.to(labels.device),)

    def final(self, state: State) -> Tensor:
        """See :class:`todm_sb.decoders.fusion.Fusion`: the end of the sentence."""
        ends = [self._end(history) for history in self._histories.of_numbers(state[0])]
        return self.weight * torch.tensor(ends, device=state[0].device)

    @abstractmethod
    def _after(self, history: _History, label: int) -> _History:
        """The history with one more label."""

    @abstractmethod
    def _row(self, history: _History) -> Tensor:
        """(V,), the log-probability that each next label adds."""

    @abstractmethod
    def _end(self, history: _History) -> float:
        """The log-probability that the end of the sentence adds."""


class PieceNGramFusion(_NGramFusion):
    """With a model of pieces: each label is scored at once."""

    def __init__(
        self, model: NGram, pieces: list[str | int], weight: float, blank: int = 0
    ) -> None:
        super().__init__(model, pieces, weight, blank)
        self._labels = {piece: i for i, piece in enumerate(pieces) if i != blank}
        self._row_after = lru_cache(ROWS)(self._computed)

    def _after(self, history: _History, label: int) -> _History:
        return _History(self.model.context((*history.context, str(self.pieces[label]))))

    def _row(self, history: _History) -> Tensor:
        return self._row_after(history.context)

    def _computed(self, context: Context) -> Tensor:
        row = torch.full((len(self.pieces),), self.model.log_prob(context, UNKNOWN))
        for total, listed in reversed([*self.model.backed_off(context)]):
            known = [(self._labels[x], total + p) for x, p in listed.items() if x in self._labels]
            if known:
                labels, log_probs = zip(*known, strict=True)
                row[list(labels)] = torch.tensor(log_probs)
        return row

    def _end(self, history: _History) -> float:
        return self.model.log_prob(history.context, END)


class WordNGramFusion(_NGramFusion):
    """With a model of words: a word is scored when the next one begins, or the sentence ends."""

    def __init__(
        self, model: NGram, pieces: list[str | int], weight: float, blank: int = 0
    ) -> None:
        super().__init__(model, pieces, weight, blank)
        self._detokenizer = Detokenizer(pieces)
        self._begins = torch.tensor([begins_word(piece) for piece in pieces]).float()

    def _after(self, history: _History, label: int) -> _History:
        if not self._begins[label]:
            return history._replace(pending=(*history.pending, label))
        return _History(self._complete(history)[0], (label,))

    def _row(self, history: _History) -> Tensor:
        return self._complete(history)[1] * self._begins

    def _end(self, history: _History) -> float:
        context, log_prob = self._complete(history)
        return log_prob + self.model.log_prob(context, END)

    def _complete(self, history: _History) -> tuple[Context, float]:
        """The context after what is pending, and its log-probability."""
        context, log_prob = history.context, 0.0
        for word in split_words(self._detokenizer.text(history.pending)):
            log_prob += self.model.log_prob(context, word)
            context = self.model.context((*context, word))
        return context, log_prob


def ngram_fusion(
    model: NGram, tokenizer: SentencePieceProcessor, weight: float, blank: int = 0
) -> Fusion:
    """Fusion with a model of the tokenizer's pieces, as ``spm_encode`` writes them, or of words,
    which in Chinese and Japanese are characters. It is of pieces if it knows nothing else, and no
    such character, or where words begin; ``spm_encode`` writes letters that no piece has, too.

    Raises:
        ConfigError: if most of its words could never be said.
    """
    pieces = Detokenizer.of_tokenizer(tokenizer).pieces
    names = [tokenizer.id_to_piece(i) if tokenizer.is_byte(i) else x for i, x in enumerate(pieces)]
    all_are_pieces = set(model.words) <= set(names) and not any(map(is_wide, model.words))
    if all_are_pieces or any(WORD_MARK in word for word in model.words):
        return PieceNGramFusion(model, names, weight, blank)
    frequent = sorted(model.words, key=model.following[()].__getitem__, reverse=True)
    sample = frequent[:SAMPLE]
    strange = [
        word
        for word in sample
        if tokenizer.unk_id() in tokenizer.encode_as_ids(word)
        or known_spelling(word, tokenizer)
        or len(split_words(word)) > 1
    ]
    if 2 * len(strange) > len(sample):
        raise ConfigError(
            f"the language model's words, such as {quoted(strange[0])}, are not spelt as the "
            "transcripts of training were (letter case? Chinese and Japanese: a space after each "
            "character): make it from text that is"
        )
    return WordNGramFusion(model, pieces, weight, blank)
