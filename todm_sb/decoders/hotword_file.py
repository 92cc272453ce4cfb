"""Lists of hot words, and what a tokenizer makes of them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

from sentencepiece import SentencePieceProcessor

from todm_sb.dataio.detokenizer import WORD_MARK, Detokenizer
from todm_sb.dataio.script import ends_word, is_unspaced, split_words
from todm_sb.decoders.hotwords import HotwordGraph
from todm_sb.decoders.spelling import known_spelling, strange_characters
from todm_sb.utils.errors import ConfigError, DataError, quoted
from todm_sb.utils.text_files import lines, read_text

# Of each word, in log-probability.
BOOST = 1.0
# Boosts, and weights of language models, beyond which single precision loses what the network says.
LARGEST_BOOST = 1e4
_LINE = re.compile(r"(?P<phrase>.*?)(?:\s+:(?P<boost>\S+))?\s*", re.ASCII)


def read_hotwords(path: str | Path, boost: float = BOOST) -> dict[str, float]:
    """Reads a list of hot words: a phrase a line, and after it, if it has a boost of its own,
    ``:2.5``. Empty lines and those that begin with ``#`` do not count. sherpa-onnx reads the same,
    but gives the boost to each label.

    Args:
        path: text in UTF-8.
        boost: of phrases that have none of their own.

    Returns:
        The boost of each word by phrase.

    Raises:
        ConfigError: if the file is missing, lists nothing, or a boost is no number up to
            :data:`LARGEST_BOOST`.
    """
    try:
        text = read_text(path)
    except DataError as error:
        raise ConfigError(f"hot words: {error}") from None
    except OSError as error:
        raise ConfigError(f"hot words {path}: {error.strerror or error}") from None
    phrases = {}
    for number, line in enumerate(lines(text), start=1):
        found = _LINE.fullmatch(line.strip())
        if found and found["phrase"] and not line.lstrip().startswith("#"):
            where = f"{path}, line {number}"
            own = found["boost"]
            phrases[found["phrase"]] = boost if own is None else _number(own, where)
    if not phrases:
        raise ConfigError(f"{path} lists no hot word: write a phrase a line")
    return phrases


def _number(text: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not abs(number) <= LARGEST_BOOST:
        raise ConfigError(
            f"{where}: the boost {quoted(text)} is no number up to {LARGEST_BOOST:g}: "
            "write it as in CAT :2"
        )
    return number


def hotword_graph(
    phrases: Mapping[str, float], tokenizer: SentencePieceProcessor, blank: int = 0
) -> HotwordGraph:
    """The automaton of phrases.

    Args:
        phrases: boost of each word, by phrase, spelt as the transcripts of training are. A word's
            labels share it: the fewer the network splits it into, the more a label gets.
        tokenizer: of the network.
        blank: its label.

    Raises:
        ConfigError: if the tokenizer does not know a letter of a phrase, or only its other case.
    """
    pieces = Detokenizer.of_tokenizer(tokenizer).pieces
    boosts = {}
    for phrase, boost in phrases.items():
        for form in _forms(phrase, tokenizer):
            boosts[form] = boost * len(split_words(phrase)) / len(form)
    return HotwordGraph(boosts, [*map(ends_word, pieces)], blank)


def _forms(phrase: str, tokenizer: SentencePieceProcessor) -> list[tuple[int, ...]]:
    """Labels of a phrase; where its script has no spaces, also of what stands within a text."""
    labels = tokenizer.encode_as_ids(phrase)
    if other := known_spelling(phrase, tokenizer):
        mend = f"write it as transcripts were in training, {quoted(other)}"
        raise ConfigError(f"hot word {quoted(phrase)}: {mend}")
    if tokenizer.unk_id() in labels or not labels:
        raise ConfigError(f"hot word {quoted(phrase)}: {_mend(phrase, tokenizer)}")
    forms = [tuple(labels)]
    first = tokenizer.id_to_piece(labels[0])
    if is_unspaced(phrase.strip()[0]) and first.startswith(WORD_MARK):
        if first == WORD_MARK:  # a label by itself, and what follows it stands within a text
            return [tuple(labels[1:])]
        if behind := _behind_another(phrase.strip(), tokenizer):
            forms.append(behind)
    return forms


def _behind_another(phrase: str, tokenizer: SentencePieceProcessor) -> tuple[int, ...]:
    """Labels of a phrase within a text, as it is spelt behind some letter of its script; none where
    it becomes one label with any of them."""
    for label in range(tokenizer.vocab_size()):
        letter = tokenizer.id_to_piece(label)
        if len(letter) == 1 and letter != WORD_MARK and is_unspaced(letter):
            before, labels = map(tokenizer.encode_as_ids, (letter, letter + phrase))
            if labels[: len(before)] == before and tokenizer.unk_id() not in labels:
                return tuple(labels[len(before) :])
    return ()


def _mend(phrase: str, tokenizer: SentencePieceProcessor) -> str:
    strange = strange_characters(phrase, tokenizer)
    what = quoted(strange[0]) if strange else "what"
    hint = "with a space before it, as in CAT :2, it is a boost" if ":" in strange else ""
    return f"the network's tokenizer does not know {what}: {hint or 'spell it otherwise'}"
