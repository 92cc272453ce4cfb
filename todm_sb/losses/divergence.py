"""What the losses ask of a divergence: how far a student's distribution is from the teacher's."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Divergence(Protocol):
    """How a student is compared with a teacher at each lattice node.

    A class derived from this needs :meth:`value` and :meth:`gradient`. One that has more to tell
    of a node than its value (which side of it was the larger one, say) also says so in the others.

    Arguments of the methods are, at any number of nodes:

    - ``log_q``: (..., V), log-probabilities of the student.
    - ``log_p``: (..., V), log-probabilities of the teacher.
    - ``labels``: (...) integers, the label after each node, or blank where none follows.
    - ``blank``: id of blank.
    """

    # Numbers that are kept of each node besides the value.
    n_notes: int = 0

    @abstractmethod
    def value(self, log_q: Tensor, log_p: Tensor, labels: Tensor, blank: int) -> Tensor:
        """(...), the divergence at each node, in nats."""
        ...

    @abstractmethod
    def gradient(self, log_q: Tensor, log_p: Tensor, labels: Tensor, blank: int) -> Tensor:
        """(..., V), the gradient of each node's value at ``log_q``, whatever autograd says of
        :meth:`value`; up to a multiple of the student's probabilities, which a log-softmax does not
        hand on. It is written to by the caller."""
        ...

    def at_nodes(
        self, log_q: Tensor, log_p: Tensor, labels: Tensor, blank: int
    ) -> tuple[Tensor, ...]:
        """(...) each: the value, then the ``n_notes`` others."""
        return (self.value(log_q, log_p, labels, blank),)

    def summary(self, notes: Tensor, weights: Tensor) -> dict[str, Tensor]:
        """What is logged besides the value, by name; none of it differentiable.

        Args:
            notes: (batch, T, S, n_notes), of each node.
            weights: (batch, T, S), how much each node counts.

        Returns:
            Scalars that may be averaged over the utterances of several batches.
        """
        return {}
