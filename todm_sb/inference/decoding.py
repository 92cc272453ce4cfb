"""How a recogniser searches: beam, alternatives, hot words and a language model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor
from torch import nn

from todm_sb.decoders.fusion import Fusion
from todm_sb.decoders.hotword_file import BOOST, LARGEST_BOOST, hotword_graph
from todm_sb.decoders.ngram import NGram, read_arpa
from todm_sb.decoders.ngram_fusion import ngram_fusion
from todm_sb.decoders.transducer import TransducerSearcher
from todm_sb.inference.language_models import rnn_fusion
from todm_sb.utils.errors import ConfigError, quoted

# Hypotheses kept where a beam is needed and no number is given.
BEAM = 4
LM_WEIGHT = 0.3


@dataclass(frozen=True)
class Decoding:
    """How to search.

    Args:
        beam_size: hypotheses kept; 1 is greedy search. None for what the network was exported
            with, or, where that is greedy and does not do, :data:`BEAM` or ``nbest``.
        nbest: alternatives wanted, of different texts: fewer where the beam holds no more.
        hotwords: phrases to prefer, spelt as the transcripts of training are, each with its boost
            a word; or without, then each has :data:`todm_sb.decoders.hotword_file.BOOST`.
        lm: a language model: an n-gram model, a network as of
            :class:`todm_sb.decoders.language_model.ShallowFusion`, or the path of an ARPA file.
        lm_weight: its weight.

    Raises:
        ConfigError: if a number makes no sense, or two do not fit together.
    """

    beam_size: int | None = None
    nbest: int = 1
    hotwords: Mapping[str, float] | tuple[str, ...] = field(default_factory=dict)
    lm: NGram | nn.Module | str | Path | None = None
    lm_weight: float = LM_WEIGHT

    def __post_init__(self) -> None:
        if self.nbest < 1 or (self.beam_size is not None and self.beam_size < 1):
            raise ConfigError("beam size and nbest must be at least 1")
        if self.beam_size is not None and self.nbest > self.beam_size:
            raise ConfigError(
                f"nbest {self.nbest} of a beam of {self.beam_size}: the beam must hold as many"
            )
        if isinstance(self.hotwords, str):
            raise ConfigError(
                f"hotwords {quoted(self.hotwords)} is one text: give a list, or a dict"
            )
        boosts = self.hotwords.values() if isinstance(self.hotwords, Mapping) else ()
        if not all(abs(x) <= LARGEST_BOOST for x in (*boosts, self.lm_weight)):
            raise ConfigError(
                "boosts of hot words and the language model's weight must be finite, and "
                f"{LARGEST_BOOST:g} at most"
            )
        if self.beam_size == 1 and self._needs_beam:
            raise ConfigError(
                "a beam of 1 is greedy search, which knows no hot words or language model: "
                f"give a beam size of 2 or more, e.g. {BEAM}"
            )

    @property
    def _needs_beam(self) -> bool:
        return self.nbest > 1 or bool(self.hotwords) or self.lm is not None

    def searcher(
        self, base: TransducerSearcher, tokenizer: SentencePieceProcessor, device: Any
    ) -> TransducerSearcher:
        """What searches so; where alternatives are wanted, it finds all that its beam holds.

        Args:
            base: of the network, with all that is not said here.
            tokenizer: of the network.
            device: that it will search on.

        Raises:
            ConfigError: if hot words or language model are not of this network.
        """
        beam_size = self.beam_size or base.beam_size
        if self.beam_size is None and self._needs_beam:
            beam_size = max(beam_size, BEAM, self.nbest)
        kept = beam_size > 1
        return TransducerSearcher(
            base.model,
            beam_size,
            base.max_symbols,
            beam_size if self.nbest > 1 else 1,  # some may be of one text
            base.lm if kept else None,
            base.lm_weight if kept else 0.0,
            base.state_beam,
            self._fusions(tokenizer, device),
        )

    def _fusions(self, tokenizer: SentencePieceProcessor, device: Any) -> list[Fusion]:
        fusions: list[Fusion] = []
        if self.hotwords:
            words = self.hotwords
            boosts = words if isinstance(words, Mapping) else dict.fromkeys(words, BOOST)
            fusions.append(hotword_graph(boosts, tokenizer).to(device))
        lm = read_arpa(self.lm) if isinstance(self.lm, str | Path) else self.lm
        if isinstance(lm, NGram):
            fusions.append(ngram_fusion(lm, tokenizer, self.lm_weight))
        elif lm is not None:
            network = lm.to(device).eval()
            fusions.append(rnn_fusion(network, self.lm_weight, tokenizer.vocab_size()))
        return fusions
