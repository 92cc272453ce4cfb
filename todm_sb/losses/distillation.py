"""In-place knowledge distillation by alpha-divergence (Wang et al. 2021, AlphaNet,
arXiv:2102.07954).

With teacher p, student q and w = p / q,

    D_a(p || q) = (sum_i q_i w_i^a - 1) / (a (a - 1)),

KL(p || q) in the limit a -> 1 and KL(q || p) in the limit a -> 0. A negative alpha punishes a
student that is over-confident where the teacher is not, a positive one a student that misses
the teacher's modes; the adaptive loss takes, at each node, whichever side is worse.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from todm_sb.losses.divergence import Divergence
from todm_sb.utils.errors import ConfigError, quoted

CLASSES = ("vocabulary", "three")

# Stands for log 0 on both sides, where a node has no label: the class then weighs nothing.
_ABSENT = -1e4


class AlphaDivergence(Divergence):
    """Divergence of a student from a teacher at each lattice node.

    Args:
        alphas: the sides compared; the larger divergence counts. ``(-1, 1)`` is adaptive,
            a list of one a fixed alpha, ``(1,)`` is KL.
        clip: bound beta on ``w^a`` for a other than 0 and 1, against the heavy tail of
            importance ratios (AlphaNet). It ceases to bite as a approaches 0; as a approaches 1
            the value has no limit where ``w`` exceeds beta, as what is cut off is divided by a - 1.
        classes: ``vocabulary`` compares all labels; ``three`` the probabilities of blank, of the
            correct label and of all others together (Panchapagesan et al. 2021,
            arXiv:2011.06110).

    Raises:
        ConfigError: on an unknown ``classes``, no alpha, or a clip below 1.
    """

    n_notes = 1

    def __init__(
        self,
        alphas: Sequence[float] = (-1.0, 1.0),
        clip: float = 5.0,
        classes: str = "vocabulary",
    ) -> None:
        if classes not in CLASSES:
            raise ConfigError(f"classes must be one of {CLASSES}, not {quoted(classes)}")
        is_list = isinstance(alphas, Sequence) and not isinstance(alphas, str)
        if not is_list or not alphas or not all(math.isfinite(a) for a in alphas):
            raise ConfigError(f"alphas must hold at least one number, not {quoted(alphas)}")
        if not clip >= 1:
            raise ConfigError(f"clip must be at least 1, the ratio of equal distributions: {clip}")
        self.alphas = tuple(float(a) for a in alphas)
        self.clip = clip
        self.classes = classes

    def value(self, log_q: Tensor, log_p: Tensor, labels: Tensor, blank: int) -> Tensor:
        """Divergence at each node.

        Args:
            log_q, log_p, labels, blank: as of :meth:`at_nodes`.

        Returns:
            (...), at least 0 up to rounding and clipping.
        """
        return self.at_nodes(log_q, log_p, labels, blank)[0]

    def at_nodes(
        self, log_q: Tensor, log_p: Tensor, labels: Tensor, blank: int
    ) -> tuple[Tensor, Tensor]:
        """Divergence at each node, and which alpha it is of.

        Args:
            log_q: (..., V) log-probabilities of the student.
            log_p: (..., V) log-probabilities of the teacher.
            labels: (...) integers, the label after each node, or blank where none follows.
            blank: id of blank.

        Returns:
            (...), at least 0 up to rounding and clipping; (...), index of the alpha in ``alphas``,
            the first where both are equal.
        """
        if self.classes == "three":
            log_q, log_p = (three_classes(x, labels, blank) for x in (log_q, log_p))
        value, _, side = self._worst_side(log_q, log_p)
        return value, side

    def gradient(self, log_q: Tensor, log_p: Tensor, labels: Tensor, blank: int) -> Tensor:
        """Gradient of each node's divergence at the student's log-probabilities.

        It is AlphaNet's, ``-E_q[rho(w) grad log q]`` with ``rho(w) = w f'(w) - f(w)`` and w held
        fixed; clipping bounds ``w^a`` in both.

        Args:
            log_q, log_p, labels, blank: as of :meth:`value`.

        Returns:
            (..., V), up to a multiple of the student's probabilities, which a log-softmax does not
            hand on.
        """
        if self.classes == "vocabulary":
            return self._worst_side(log_q, log_p)[1].neg_()
        classes = three_classes(log_q, labels, blank)
        weight = self._worst_side(classes, three_classes(log_p, labels, blank))[1].neg_()
        # The rest's probability is a sum; its logarithm's gradient is each label's share in it.
        gradient = (log_q - classes[..., 2:]).exp_().mul_(weight[..., 2:])
        labels = labels.unsqueeze(-1)
        at_label = torch.where(labels == blank, weight[..., :1], weight[..., 1:2])
        gradient[..., blank] = weight[..., 0]
        return gradient.scatter_(-1, labels, at_label)

    def summary(self, notes: Tensor, weights: Tensor) -> dict[str, Tensor]:
        """At what share of the nodes each of several alphas' sides is the larger one.

        Args:
            notes, weights: see :meth:`Divergence.summary`.
        """
        if len(self.alphas) == 1:
            return {}
        side, total = notes[..., 0], weights.sum()
        return {
            f"alpha {alpha:g}": (weights * (side == i)).sum() / total
            for i, alpha in enumerate(self.alphas)
        }

    def _worst_side(self, log_q: Tensor, log_p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The largest of the alphas' divergences, its ``q rho(w)`` of each class, its index."""
        log_clip = math.log(self.clip)
        value, weight = _value_and_weight(log_q, log_p, self.alphas[0], log_clip)
        side = torch.zeros_like(value, dtype=torch.long)
        for index, alpha in enumerate(self.alphas[1:], 1):
            other, other_weight = _value_and_weight(log_q, log_p, alpha, log_clip)
            larger = other > value
            weight = torch.where(larger.unsqueeze(-1), other_weight, weight)
            side = side.masked_fill_(larger, index)
            value = torch.maximum(value, other)
        return value, weight, side


def three_classes(log_probs: Tensor, labels: Tensor, blank: int) -> Tensor:
    """Log-probabilities of blank, the next label, and the rest.

    Args:
        log_probs: (..., V).
        labels: (...) integers, the label after each node, or blank where none follows.
        blank: id of blank.

    Returns:
        (..., 3)
    """
    labels = labels.unsqueeze(-1).expand(*log_probs.shape[:-1], 1)
    is_blank = torch.arange(log_probs.shape[-1], device=labels.device) == blank
    rest = log_probs.masked_fill(is_blank, _ABSENT).scatter(-1, labels, _ABSENT)
    label = log_probs.gather(-1, labels).masked_fill(labels == blank, _ABSENT)
    return torch.cat([log_probs[..., blank, None], label, rest.logsumexp(-1, keepdim=True)], dim=-1)


def _value_and_weight(
    log_q: Tensor, log_p: Tensor, alpha: float, log_clip: float
) -> tuple[Tensor, Tensor]:
    """D_a and ``q rho(w)`` of each class, up to terms constant in w, which add nothing to the
    gradient since ``E_q[grad log q] = 0``."""
    log_w = log_p - log_q
    if alpha == 1:
        p = log_p.exp()
        return (p * log_w).sum(-1), p
    if alpha == 0:
        weight = log_q.exp() * log_w
        return -weight.sum(-1), weight
    # Near 0 and 1, w^a - 1 and w^(a - 1) - 1 are small beside the 1, as is what the sum of a
    # rounded distribution differs from 1 by, and both are divided by a (a - 1): so the difference
    # is taken inside the sum, of q's or of p's terms, and by expm1.
    if alpha < 0.5:
        change = _exp_expm1(log_q, (alpha * log_w).clamp_(max=log_clip))
        weight = change / alpha
    else:
        change = _exp_expm1(log_p, torch.minimum((alpha - 1) * log_w, log_clip - log_w))
        weight = (change + log_p.exp()) / alpha
    return change.sum(-1) / (alpha * (alpha - 1)), weight


def _exp_expm1(x: Tensor, y: Tensor) -> Tensor:
    """``exp(x) (exp(y) - 1)``, which may be finite where ``exp(y)`` is not."""
    return torch.exp(x + y.clamp(min=0)).mul_(torch.expm1(-y.abs()).copysign_(y))
