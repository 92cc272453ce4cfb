"""Evaluation of a supernet: which subnets are measured, and what is told of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from todm_sb.dataio.fingerprint import dev_set_id, fingerprint
from todm_sb.nnet.transducer import Transducer
from todm_sb.supernet import SearchSpace, SubnetConfig, count_parameters
from todm_sb.supernet.sandwich import Labels, Objective, Trunk
from todm_sb.training.error_rates import ErrorRates
from todm_sb.training.runs import weights_id
from todm_sb.utils.processes import on_first

# By name: each subnet in each mode of the encoder.
Measured = dict[str, tuple[SubnetConfig, bool]]


def subnets_to_measure(
    space: SearchSpace, named: Mapping[str, dict | None] | None
) -> dict[str, SubnetConfig]:
    """The subnets that validation and test measure, by name: max, min and the YAML's own.

    Args:
        space: of the supernet.
        named: the YAML's; one that is null is not measured.

    Raises:
        ConfigError: if one is outside the search space.
    """
    if space.size == 1:
        return {"max": space.max}
    own = {
        name: space.check(SubnetConfig.from_dict(subnet))
        for name, subnet in (named or {}).items()
        if subnet is not None
    }
    return {"max": space.max, **own, "min": space.min}


def in_each_mode(subnets: Mapping[str, SubnetConfig], modes: Sequence[bool]) -> Measured:
    """What is measured of these subnets: each in each mode of the encoder.

    Args:
        subnets: by name.
        modes: what ``causal`` can be; the first is meant by default.
    """
    return {
        name if causal == modes[0] else f"{name}-causal": (subnet, causal)
        for causal in modes
        for name, subnet in subnets.items()
    }


def what_wer_is_of(
    measured: Measured, max_symbols: int, valid_csv: str, tokenizer: Any
) -> dict[str, str]:
    """What the WER of a checkpoint is of: the dev set and how it is measured.

    Args:
        measured: subnets and modes.
        max_symbols: of the search.
        valid_csv: manifest of the dev set.
        tokenizer: of the run.
    """
    forms = sorted((subnet.to_json(), causal) for subnet, causal in measured.values())
    return {
        "dev_set": on_first(dev_set_id, valid_csv, tokenizer),
        "measured": fingerprint([forms, max_symbols]),
    }


def validation_loss(
    objective: Objective, model: Transducer, trunk: Trunk, labels: Labels
) -> tuple[Tensor | None, int]:
    """The max subnet's loss of the utterances that one can be trained on: those with labels, and
    no more than frames. The others count in the error rates alone.

    Returns:
        The loss, or None where there is no such utterance, and their number.
    """
    fits = (labels.lengths > 0) & (labels.lengths <= trunk.n_frames)
    if not bool(fits.any()):
        return None, 0
    if not bool(fits.all()):
        part = fits.nonzero().squeeze(1)
        labels = labels.rows(part)
        trunk = trunk.rows(part, labels.ids.shape[1])
    losses, _ = objective(model, trunk, labels, None)
    return losses.total, len(labels.lengths)


def results_of(
    model: Transducer, measured: Measured, errors: ErrorRates, left_out: Mapping[str, int]
) -> list[dict[str, Any]]:
    """After a test: shape, mode, parameters, WER and CER of each subnet in each mode, what the
    error rates are of, and the id of the weights.

    The parameters of a dual-mode network's causal mode are those of its causal form.

    Args:
        model: the supernet.
        measured: subnets and modes.
        errors: of the test; see :meth:`ErrorRates.scored`.
        left_out: what of the manifest is no utterance: the number for each cause.
    """
    scored = {**errors.scored(), "left_out": left_out}
    rates, weights = errors.rates(), weights_id(model)
    first, *others = model.encoder.modes
    forms = {first: model, **{causal: model.causal_form() for causal in others}}
    return [
        {
            "subnet": name,
            **subnet.to_dict(),
            "causal": causal,
            "parameters": count_parameters(forms[causal], subnet),
            **rates[name],
            **scored,
            "weights": weights,
        }
        for name, (subnet, causal) in measured.items()
    ]
