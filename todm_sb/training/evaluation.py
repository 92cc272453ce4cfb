"""Evaluation of a supernet: which subnets are measured, and what is told of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from todm_sb.dataio.fingerprint import dev_set_id, fingerprint
from todm_sb.dataio.reading import AS_WRITTEN, Reading
from todm_sb.dataio.text import words_of_ids
from todm_sb.decoders.protocol import Searcher
from todm_sb.losses.lattice import HostLengths
from todm_sb.nnet.transducer import Transducer
from todm_sb.supernet import SearchSpace, SubnetConfig, count_parameters
from todm_sb.supernet.losses import to_host
from todm_sb.supernet.objective import Objective
from todm_sb.supernet.trunk import Labels, Trunk
from todm_sb.training.averages import Averages
from todm_sb.training.error_rates import ErrorRates
from todm_sb.training.loss_names import means_of_step
from todm_sb.training.runs import weights_id
from todm_sb.training.searcher import searcher_of, told_of
from todm_sb.utils.errors import ConfigError
from todm_sb.utils.files import write_atomic
from todm_sb.utils.processes import on_first

# By name: each subnet in each mode of the encoder.
Measured = dict[str, tuple[SubnetConfig, bool]]


class Evaluation:
    """The measured subnets on one split, batch by batch.

    Args:
        model: the supernet.
        measured: subnets and modes.
        searcher: of the model.
        tokenizer: turns label ids into words.
        objective: whose losses of the max subnet are wanted; None for error rates alone.

    ``errors`` has what was found, ``losses`` the means of max's.
    """

    def __init__(
        self,
        model: Transducer,
        measured: Measured,
        searcher: Searcher,
        tokenizer: Any,
        objective: Objective | None = None,
    ) -> None:
        self.model = model
        self.measured = measured
        self.searcher = searcher
        self.tokenizer = tokenizer
        self.objective = objective
        self.losses = Averages()
        self.errors = ErrorRates(measured)

    @classmethod
    def of(
        cls,
        model: Transducer,
        measured: Measured,
        hparams: Mapping[str, Any],
        tokenizer: Any,
        validates: bool,
    ) -> Evaluation:
        """That of a recipe: validation is greedy and wants a loss, a test decodes as it says."""
        searcher = searcher_of(hparams, model)
        if not validates:
            return cls(model, measured, searcher, tokenizer)
        return cls(model, measured, searcher.greedy(), tokenizer, hparams["objective"])

    def add(
        self, trunk: Trunk, labels: Labels, ids: list[str], words: Sequence[list[str]]
    ) -> Tensor:
        """Transcribes a batch with every measured subnet.

        Args:
            trunk, labels: of the batch.
            ids: of its utterances.
            words: that were said in each.

        Returns:
            The max subnet's loss; not a number where there is none.
        """
        loss = torch.tensor(float("nan"))
        for name, encoded in encode_each(self.model, self.measured, trunk):
            if name == "max" and self.objective is not None:
                loss = self._loss(self.objective, trunk, labels, encoded)
            hypotheses = self.searcher.search(encoded, trunk.n_frames)
            found = [words_of_ids(self.tokenizer, best.tokens) for best, *_ in hypotheses]
            self.errors.append(name, ids, found, words)
        return loss

    def _loss(self, objective: Objective, trunk: Trunk, labels: Labels, encoded: Tensor) -> Tensor:
        """That of the utterances that one can be trained on: those with labels, and no more than
        frames. The others count in the error rates alone."""
        fits = (labels.lengths > 0) & (labels.lengths <= trunk.n_frames)
        if not bool(fits.any()):
            return torch.tensor(float("nan"))
        if not bool(fits.all()):
            part = fits.nonzero().squeeze(1)
            host = HostLengths.read(trunk.n_frames[part], labels.lengths[part])
            labels, trunk = labels.rows(part, host), trunk.rows(part, host)
            encoded = encoded[part, : trunk.frames.shape[1]]
        losses, _ = objective.of_encoded(self.model, trunk, labels, encoded)
        for name, value in means_of_step(to_host([losses])).items():
            self.losses.add(name, value, len(labels.lengths))
        return losses.total

    def stats(self) -> dict[str, float]:
        """The losses of max, by the names that training logs them under, and the error rates, over
        all processes; each must call this."""
        return {**self.losses.means_of_all(), **self.errors.by_rate_and_name()}

    def write(
        self, folder: Path, split: str, left_out: Mapping[str, int], speakers: Mapping[str, str]
    ) -> list[dict[str, Any]]:
        """Writes error rates, and the errors, the speaker and the alignment of each utterance.

        Args:
            folder: of the run.
            split: name of the test set.
            left_out: see :func:`results_of`.
            speakers: by utterance; one whose speaker nobody knows has the utterance's name.

        Returns:
            See :func:`results_of`.
        """
        decoding = told_of(self.searcher)
        results = results_of(self.model, self.measured, self.errors, left_out, decoding)
        self.errors.write_alignments(folder, split)
        errors = self.errors.by_utterance()
        errors["speakers"] = [speakers.get(key) or key for key in errors["utterances"]]
        write_atomic(folder / f"errors_{split}.json", json.dumps(errors))
        write_atomic(folder / f"results_{split}.json", json.dumps(results, indent=2) + "\n")
        return results


def own_subnets(
    space: SearchSpace, named: Mapping[str, dict | None] | None
) -> dict[str, SubnetConfig]:
    """The YAML's own subnets that are measured; in a space of one point there are none.

    Args:
        space: of the supernet.
        named: the YAML's; one that is null is not measured.

    Raises:
        ConfigError: if a subnet is none, or outside the search space.
    """
    found = {}
    for name, subnet in (named or {}).items():
        if subnet is not None and space.size > 1:
            try:
                found[name] = space.check(SubnetConfig.from_dict(subnet))
            except ConfigError as error:
                raise ConfigError(f"named_subnets: {name}: {error}") from None
    return found


def forms_to_measure(
    space: SearchSpace, named: Mapping[str, dict | None] | None, modes: Sequence[bool]
) -> Measured:
    """What validation and test measure: max, min and the YAML's own subnets, each in each mode.

    Args:
        space: of the supernet.
        named: see :func:`own_subnets`.
        modes: what ``causal`` can be; the first is meant by default.

    Raises:
        ConfigError: see :func:`own_subnets`.
    """
    subnets = {"max": space.max, **own_subnets(space, named)}
    if space.size > 1:
        subnets["min"] = space.min
    return {
        name if causal == modes[0] else f"{name}-causal": (subnet, causal)
        for causal in modes
        for name, subnet in subnets.items()
    }


def what_wer_is_of(
    measured: Measured, decoding: Any, valid_csv: str, tokenizer: Any, reading: Reading = AS_WRITTEN
) -> dict[str, str]:
    """What the WER of a checkpoint is of: the dev set and how it is measured.

    Args:
        measured: subnets and modes.
        decoding: what is decoded with, of plain types.
        valid_csv: manifest of the dev set.
        tokenizer: of the run.
        reading: how the manifest is read.
    """
    forms = sorted((subnet.to_json(), causal) for subnet, causal in measured.values())
    return {
        "dev_set": on_first(dev_set_id, valid_csv, tokenizer, reading=reading),
        "measured": fingerprint([forms, decoding]),
    }


def encode_each(
    model: Transducer, measured: Measured, trunk: Trunk
) -> Iterator[tuple[str, Tensor]]:
    """What the encoder of each measured subnet makes of a batch.

    Args:
        model: the supernet.
        measured: subnets and modes.
        trunk: of the batch, in the encoder's first mode.

    Yields:
        The name of a subnet, and its (batch, T, d_model) outputs.
    """
    first, *others = model.encoder.modes
    n_frames = trunk.frames.shape[1]
    shared = {first: trunk.shared}
    shared |= {causal: model.encoder.shared(n_frames, causal) for causal in others}
    for name, (subnet, causal) in measured.items():
        yield (
            name,
            model.encoder.encode(trunk.frames, trunk.n_frames, subnet, shared[causal], causal),
        )


def results_of(
    model: Transducer,
    measured: Measured,
    errors: ErrorRates,
    left_out: Mapping[str, int],
    decoding: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """After a test: shape, mode, parameters, WER and CER of each subnet in each mode, what the
    error rates are of, how was decoded, and the id of the weights.

    The parameters of a dual-mode network's causal mode are those of its causal form.

    Args:
        model: the supernet.
        measured: subnets and modes.
        errors: of the test; see :meth:`ErrorRates.scored`.
        left_out: what of the manifest is no utterance: the number for each cause.
        decoding: see :func:`todm_sb.training.searcher.told_of`.
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
            "decoding": decoding,
            "weights": weights,
        }
        for name, (subnet, causal) in measured.items()
    ]
