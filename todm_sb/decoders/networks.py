"""What a search needs of a transducer's networks, whoever made them."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from todm_sb.nnet.predictor import State
from todm_sb.nnet.transducer import Transducer


class SearchNetworks(Protocol):
    """Encoder projection, predictor step and joiner; all of a search that knows the network.

    The two projections are whatever can be done once a frame and once a label; :meth:`join` is
    what remains for each lattice node.
    """

    @property
    def blank(self) -> int:
        """Id of blank."""

    def project_encoder(self, encoded: Tensor) -> Tensor:
        """(batch, T, d_model) -> (batch, T, d_encoder)."""

    def predict(self, labels: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Takes one label.

        Args:
            labels: (batch,) integers; blank is the start symbol.
            state: of the predictor before it, each tensor batch first; None for the beginning.

        Returns:
            (batch, d_predictor), projected, and the state after the label.
        """

    def join(self, encoder: Tensor, predictor: Tensor) -> Tensor:
        """Logits of every pair of a frame and a predictor output.

        Args:
            encoder: (batch, T, d_encoder), of :meth:`project_encoder`.
            predictor: (batch, U, d_predictor), of :meth:`predict`.

        Returns:
            (batch, T, U, V)
        """


class TransducerNetworks:
    """Those of our own transducer.

    Args:
        model: predictor and joiner are used.
    """

    def __init__(self, model: Transducer) -> None:
        self.model = model

    @property
    def blank(self) -> int:
        """Id of blank."""
        return self.model.blank

    def project_encoder(self, encoded: Tensor) -> Tensor:
        """See :class:`SearchNetworks`."""
        return self.model.joiner.project_encoder(encoded)

    def predict(self, labels: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """See :class:`SearchNetworks`."""
        outputs, state = self.model.predictor.step(labels, state)
        return self.model.joiner.project_predictor(outputs), state

    def join(self, encoder: Tensor, predictor: Tensor) -> Tensor:
        """See :class:`SearchNetworks`."""
        return self.model.joiner(encoder.unsqueeze(2), predictor.unsqueeze(1))


def search_networks(model: Transducer | SearchNetworks) -> SearchNetworks:
    """Our transducer as :class:`SearchNetworks`; anything else is taken for such already."""
    return TransducerNetworks(model) if isinstance(model, Transducer) else model
