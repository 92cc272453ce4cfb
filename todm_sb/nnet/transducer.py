"""The whole network that is trained and deployed."""

from __future__ import annotations

import copy
import math
from typing import Any, TypeVar

import torch
from torch import nn

from todm_sb.nnet.elastic import copy_with
from todm_sb.nnet.encoders import Encoder, build_encoder, causal_form, check_encoder
from todm_sb.nnet.joiner import Joiner, SimpleJoiner
from todm_sb.nnet.kinds import own_arguments
from todm_sb.nnet.predictor import LSTMPredictor, StatelessPredictor
from todm_sb.utils.errors import ConfigError
from todm_sb.utils.schema import anything, flag, integer, mapping, number, one_of

Module = TypeVar("Module", bound=nn.Module)

# Share of blanks that an untrained network expects; an alignment has about ten frames a label.
BLANK_PRIOR = 0.9

# Parts that only training needs, and the arguments that ask for them.
AUXILIARIES = {"ctc_output": "ctc", "simple_joiner": "simple_joiner"}

PREDICTORS: dict[str, type[LSTMPredictor | StatelessPredictor]] = {
    "lstm": LSTMPredictor,
    "stateless": StatelessPredictor,
}

# Far beyond any network that speech needs, and small enough to be harmless.
WIDTH = integer(1, 65536)
_SHARE = number(0, 1)
_PREDICTOR = mapping(
    {"kind": one_of(*PREDICTORS), "d_model": WIDTH},
    {"n_layers": integer(1, 16), "context": integer(1, 64), "dropout": _SHARE},
)
# What the arguments of a deployed Transducer can be.
NETWORK_CHECKS = {
    "vocab_size": integer(2, 1 << 20),
    "d_joint": WIDTH,
    "encoder": check_encoder,
    "predictor": _PREDICTOR,
}
# And in training, where the encoder has checked its own.
_CHECK = mapping(NETWORK_CHECKS | {"encoder": anything} | dict.fromkeys(AUXILIARIES.values(), flag))


class Transducer(nn.Module):
    """RNN transducer: encoder, predictor and joiner, sized to each other.

    Built from plain types, which :attr:`config` keeps: ``Transducer(**network.config)`` is a
    network of the same shape, wherever it is written down (YAML, JSON).

    Args:
        vocab_size: labels with blank, which is label 0.
        encoder: ``kind`` and arguments of :func:`todm_sb.nnet.encoders.build_encoder`.
        predictor: ``kind`` (``lstm`` or ``stateless``) and further arguments of that class.
        d_joint: width of the joint space.
        ctc: whether to add a linear CTC head on the encoder, an auxiliary of training.
        simple_joiner: whether to add the joiner that prunes the lattice, an auxiliary of training.

    Raises:
        ConfigError: on an argument that a part does not have, or one that is out of range.
    """

    blank = 0

    def __init__(
        self,
        vocab_size: int,
        encoder: dict[str, Any],
        predictor: dict[str, Any],
        d_joint: int,
        ctc: bool = False,
        simple_joiner: bool = False,
    ) -> None:
        super().__init__()
        self.encoder: Encoder = build_encoder(encoder)
        self.config = {
            "vocab_size": vocab_size,
            "encoder": self.encoder.config,
            "predictor": predictor,
            "d_joint": d_joint,
            "ctc": ctc,
            "simple_joiner": simple_joiner,
        }
        _CHECK(self.config, "network")
        kind = predictor["kind"]
        options = {key: value for key, value in predictor.items() if key != "kind"}
        options = own_arguments("predictor", kind, options, PREDICTORS)
        self.config["predictor"] = {"kind": kind, **options}
        self.predictor = _build(
            "predictor",
            PREDICTORS[kind],
            {"vocab_size": vocab_size, "blank": self.blank, **options},
        )
        d_encoder, d_predictor = self.encoder.d_model, self.predictor.d_model
        self.joiner = Joiner(d_encoder, d_predictor, d_joint, vocab_size)
        self.ctc_output = nn.Linear(d_encoder, vocab_size) if ctc else None
        self.simple_joiner = (
            SimpleJoiner(d_encoder, d_predictor, vocab_size) if simple_joiner else None
        )
        for output in (
            self.joiner.output,
            self.ctc_output,
            None if self.simple_joiner is None else self.simple_joiner.encoder,
        ):
            if output is not None:
                _expect_blank(output, self.blank)

    def deployed(self) -> Transducer:
        """A copy without the auxiliaries of training."""
        network = copy.deepcopy(self)
        for part in AUXILIARIES:
            setattr(network, part, None)
        network.config |= dict.fromkeys(AUXILIARIES.values(), False)
        return network

    def causal_form(self) -> Transducer:
        """A network that is causal, as streams need it: this one, or what this one computes as a
        causal one, without what that leaves out.

        Raises:
            ConfigError: if this one needs whole utterances.
        """
        encoder = causal_form(self.encoder)
        if encoder is self.encoder:
            return self
        network = copy_with(self, {self.encoder: encoder})
        network.config["encoder"] = encoder.config
        return network

    def shared_parts(self) -> list[nn.Module]:
        """What is deployed besides the encoder, whichever subnet it is."""
        left_out = {"encoder", *AUXILIARIES}
        return [part for name, part in self.named_children() if name not in left_out]


@torch.no_grad()
def _expect_blank(output: nn.Linear, blank: int) -> None:
    """Sets the bias to :data:`BLANK_PRIOR` for blank and equal shares for the labels.

    From equal shares for all, training spends its first hundreds of steps on how rare labels are,
    the more so with ScaledAdam, which moves a small bias in small steps: on connected digits the
    loss after 140 steps is 0.4 instead of 2.7 nats a label.
    """
    n_labels = output.out_features - 1
    output.bias.zero_()
    output.bias[blank] = math.log(BLANK_PRIOR / (1 - BLANK_PRIOR) * n_labels)


def _build(name: str, cls: type[Module], options: dict[str, Any]) -> Module:
    try:
        return cls(**options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name}: {error}") from error
