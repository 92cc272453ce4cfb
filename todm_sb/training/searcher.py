"""How a recipe decodes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from todm_sb.decoders.protocol import Searcher
from todm_sb.decoders.transducer import TransducerSearcher
from todm_sb.nnet.transducer import Transducer
from todm_sb.utils.errors import ConfigError, quoted


def searcher_of(hparams: Mapping[str, Any], model: Transducer) -> Searcher:
    """The searcher of a recipe, or of a run.

    Args:
        hparams: which may have ``beam_size`` and ``max_symbols``; they count where there is no key
            ``searcher``.
        model: that it is to search with.

    Raises:
        ConfigError: if it is none, or the model lacks what it needs.
    """
    sizes = {key: hparams[key] for key in ("beam_size", "max_symbols") if key in hparams}
    make = hparams.get("searcher", partial(TransducerSearcher, **sizes))
    built = isinstance(make, Searcher) and not isinstance(make, type)
    try:
        searcher = make(model) if callable(make) and not built else None
    except ConfigError:
        raise
    except Exception as error:  # it is any code; an argument that it does not have, say
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"searcher: {reason}") from error
    if not isinstance(searcher, Searcher):
        raise ConfigError(
            f"searcher cannot be {quoted(make)}: name a class, such as "
            "!name:todm_sb.decoders.transducer.TransducerSearcher"
        )
    return searcher


def decoding_of(hparams: Mapping[str, Any], model: Transducer) -> Any:
    """Plain values that tell apart how error rates of validation are measured.

    Of greedy transducer search it is its ``max_symbols`` alone, as it always was.

    Args:
        hparams, model: see :func:`searcher_of`.
    """
    searcher = searcher_of(hparams, model).greedy()
    if type(searcher) is TransducerSearcher:
        return searcher.max_symbols
    arguments = getattr(hparams["searcher"], "keywords", {})
    plain = {k: v for k, v in sorted(arguments.items()) if isinstance(v, str | int | float | None)}
    return [type(searcher).__qualname__, plain]


def told_of(searcher: Searcher) -> dict[str, Any]:
    """Plain values that tell how a test decoded.

    Args:
        searcher: of the test.
    """
    sizes = {key: getattr(searcher, key, None) for key in ("beam_size", "max_symbols")}
    plain = {key: value for key, value in sizes.items() if isinstance(value, int)}
    return {"searcher": type(searcher).__qualname__, **plain}


def max_symbols_of(hparams: Mapping[str, Any], model: Transducer) -> int:
    """Labels a frame at most in validation; of a searcher that has no such number, the key's.

    Args:
        hparams, model: see :func:`searcher_of`.
    """
    told = told_of(searcher_of(hparams, model).greedy())
    return told.get("max_symbols", hparams["max_symbols"])
