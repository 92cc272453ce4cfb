"""Back-off n-gram language models in the ARPA form that SRILM, KenLM and others write.

Katz (1987): ``P(w | h) = P*(w | h)`` where the n-gram (h, w) is listed, else
``backoff(h) P(w | h')``, h' being h without its first word. Where the file lists ``<unk>``, that
stands for all words that it does not list by themselves, also as what others follow (SRILM's
``-unk``, KenLM). Logarithms are natural here; the file has those of base 10.
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from todm_sb.utils.errors import ConfigError, quoted
from todm_sb.utils.text_files import BOM

START, END, UNKNOWN = "<s>", "</s>", "<unk>"
_SECTION = re.compile(r"\\(\d{1,2})-grams:")
_LOG_10 = math.log(10)
Context = tuple[str, ...]


@dataclass
class NGram:
    """An n-gram language model.

    Args:
        order: words of the longest n-grams.
        following: for each context, the log-probability of each word that is listed after it.
        backoffs: logarithm of each context's weight, where it has one.
    """

    order: int
    following: dict[Context, dict[str, float]] = field(default_factory=dict)
    backoffs: dict[Context, float] = field(default_factory=dict)

    @property
    def words(self) -> list[str]:
        """The words it knows, those of its own left out."""
        return [w for w in self.following[()] if w not in (START, END, UNKNOWN)]

    @cached_property
    def unknown(self) -> float:
        """Log-probability of a word that it does not know: that of ``<unk>``, or of the rarest.

        ``<s>`` is none of the words: SRILM lists it with 10^-99, since nothing predicts it."""
        words = self.following[()]
        return words[UNKNOWN] if UNKNOWN in words else min(map(words.__getitem__, self.words))

    def context(self, words: Context) -> Context:
        """As much of a history as counts."""
        return tuple(map(self._listed, words[max(0, len(words) - self.order + 1) :]))

    def _listed(self, word: str) -> str:
        """The word, or ``<unk>`` if that stands for it."""
        words = self.following[()]
        return word if word in words or word == START or UNKNOWN not in words else UNKNOWN

    def backed_off(self, context: Context) -> Iterator[tuple[float, dict[str, float]]]:
        """Where a word after a context of :meth:`context` is looked for, the longest one first.

        Yields:
            What is added to the log-probabilities, and these, by word.
        """
        total = 0.0
        for begin in range(len(context) + 1):
            yield total, self.following.get(context[begin:], {})
            total += self.backoffs.get(context[begin:], 0.0)

    def log_prob(self, context: Context, word: str) -> float:
        """Log-probability of a word.

        Args:
            context: words before it.
            word: it, or ``</s>`` for the end.
        """
        total, word = 0.0, self._listed(word)
        for total, words in self.backed_off(self.context(context)):
            if word in words:
                return total + words[word]
        return total + self.unknown


def read_arpa(path: str | Path) -> NGram:
    """Reads a language model.

    Args:
        path: of the ARPA file, which may be compressed by gzip.

    Raises:
        ConfigError: if it is missing or no such file.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
        opened = gzip.open if compressed else open
        with opened(path, "rt", encoding="utf-8", newline="\n") as file:
            return _read(file, path)
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no n-gram model in ARPA form: it is not UTF-8") from None
    except (EOFError, zlib.error) as error:
        raise ConfigError(f"{path} is damaged: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None


def _read(lines: Iterable[str], path: Path) -> NGram:
    model, order, ended = NGram(0), 0, False
    for number, raw in enumerate(lines, start=1):
        line = raw.strip(" \t\r\n" + BOM)
        if section := _SECTION.fullmatch(line):
            order = int(section[1])
            model.order = max(model.order, order)
        elif line == "\\end\\":
            ended = True
            break
        elif order and line:
            try:
                _add(model, order, line)
            except ValueError:
                raise ConfigError(
                    f"{path}, line {number}: {quoted(line, 80)} is no {order}-gram of ARPA form"
                ) from None
    if not (ended and model.following.get(())):
        what = "it breaks off" if order else "it has no \\1-grams:"
        raise ConfigError(f"{path} is no n-gram model in ARPA form: {what}")
    if not model.words:
        raise ConfigError(f"{path} lists no word")
    return model


def _add(model: NGram, order: int, line: str) -> None:
    """Takes a line: log-probability, words and, if it is a context, the back-off weight."""
    log_prob, *words = re.split("[ \t]+", line)
    words, rest = words[:order], words[order:]
    numbers = [_LOG_10 * float(x) for x in (log_prob, *rest)]
    if len(words) < order or len(rest) > 1 or not all(map(math.isfinite, numbers)):
        raise ValueError
    model.following.setdefault(tuple(words[:-1]), {})[words[-1]] = numbers[0]
    if rest:
        model.backoffs[tuple(words)] = numbers[1]
