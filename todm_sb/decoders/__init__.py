"""Searches for the best label sequence of a transducer."""

from typing import TYPE_CHECKING

from todm_sb.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from todm_sb.decoders.beam import beam_search
    from todm_sb.decoders.ctc import CTCSearcher
    from todm_sb.decoders.greedy import greedy_search
    from todm_sb.decoders.hypothesis import Hypothesis
    from todm_sb.decoders.language_model import ShallowFusion
    from todm_sb.decoders.protocol import Searcher
    from todm_sb.decoders.speechbrain import TransducerBeamSearcher
    from todm_sb.decoders.transducer import TransducerSearcher

__all__ = [
    "CTCSearcher",
    "Hypothesis",
    "Searcher",
    "ShallowFusion",
    "TransducerBeamSearcher",
    "TransducerSearcher",
    "beam_search",
    "greedy_search",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "todm_sb.decoders.beam": ["beam_search"],
        "todm_sb.decoders.ctc": ["CTCSearcher"],
        "todm_sb.decoders.greedy": ["greedy_search"],
        "todm_sb.decoders.hypothesis": ["Hypothesis"],
        "todm_sb.decoders.language_model": ["ShallowFusion"],
        "todm_sb.decoders.protocol": ["Searcher"],
        "todm_sb.decoders.speechbrain": ["TransducerBeamSearcher"],
        "todm_sb.decoders.transducer": ["TransducerSearcher"],
    },
)
