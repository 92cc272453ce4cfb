"""Units of a plain network in the order of their importance, so that a supernet can begin from it.

A subnet uses leading parts: the first hidden units of a feed-forward layer, the first pairs of SSM
heads. In a network that was trained by itself any unit can matter. What a layer computes does not
depend on the order of its units, so they are put into one in which the first matter most (after
Cai et al. 2020, Once-for-All, arXiv:1908.09791, who sort by the norm of weights).

How much a unit matters is measured: the mean square of what it adds to the layer's output, over
frames of speech. That is the squared error of leaving the unit out, and no other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from todm_sb.nnet.elastic import ElasticFFN, copy_with
from todm_sb.nnet.masking import frame_mask
from todm_sb.nnet.ssm import MultiHeadSSM
from todm_sb.nnet.transducer import Transducer
from todm_sb.space.dimensions import FFN, HEADS

# What is measured, by the dimension whose leading part it has.
ELASTIC: dict[str, type[nn.Module]] = {FFN.key: ElasticFFN, HEADS.key: MultiHeadSSM}


def sort_by_importance(
    model: Transducer,
    batches: Iterable[tuple[Tensor, Tensor]],
    dimensions: Collection[str] = tuple(ELASTIC),
) -> None:
    """Puts the units of a network into the order of their importance; its outputs stay the same.

    Args:
        model: a network that runs whole; is changed in place.
        batches: features (batch, T, n_features) and their lengths in frames (batch,).
        dimensions: keys of those whose units are sorted, hidden units of feed-forward layers and
            pairs of SSM heads; others are left alone.
    """
    sort_units(importance(model, batches, dimensions))


def sort_units(scores: dict[Any, Tensor]) -> None:
    """Puts units into the order of their scores, highest first; outputs stay the same.

    Args:
        scores: as of :func:`importance`; these layers are changed in place.
    """
    for part, of_units in scores.items():
        order = of_units.argsort(descending=True, stable=True)
        _reorder_ffn(part, order) if isinstance(part, ElasticFFN) else _reorder_heads(part, order)


@torch.no_grad()
def importance(
    model: Transducer,
    batches: Iterable[tuple[Tensor, Tensor]],
    dimensions: Collection[str] = tuple(ELASTIC),
) -> dict[Any, Tensor]:
    """Importance of the units of each layer, a sum over the frames of all utterances.

    Args:
        model, batches, dimensions: as of :func:`sort_by_importance`.

    Returns:
        By feed-forward layer (hidden units,), and by multi-head SSM (pairs of heads,), float64.
    """
    kinds = tuple(kind for key, kind in ELASTIC.items() if key in dimensions)
    parts = [part for part in model.modules() if isinstance(part, kinds)]
    scores: dict[Any, Tensor] = {}
    trained = model.training
    model.eval()
    for features, n_features in batches:
        frames, lengths = model.encoder.subsampling(features, n_features)
        with _watching(parts, frame_mask(lengths, frames.shape[1]), scores):
            model.encoder.encode(frames, lengths)
    model.train(trained)
    return scores


@contextmanager
def _watching(parts: list[nn.Module], mask: Tensor, scores: dict[Any, Tensor]) -> Iterator[None]:
    """Adds to the scores of the parts whatever runs through them."""

    def watch(part: Any, inputs: tuple[Any, ...]) -> None:
        of = _of_units if isinstance(part, ElasticFFN) else _of_pairs
        scores[part] = scores.get(part, 0) + of(part, *inputs, frames=mask.squeeze(-1).bool())

    hooks = [part.register_forward_pre_hook(watch) for part in parts]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _of_units(ffn: ElasticFFN, x: Tensor, *_: Any, frames: Tensor) -> Tensor:
    hidden = F.silu(ffn.w_1(x[frames])).double()
    return hidden.square().sum(0) * ffn.w_2.weight.double().square().sum(0)


def _of_pairs(ssm: MultiHeadSSM, x: Tensor, *others: Any, frames: Tensor) -> Tensor:
    # The gated heads themselves, before their projection.
    w = ssm.w_out.weight
    plain = {w: torch.eye(w.shape[1]).to(w), ssm.w_out.bias: w.new_zeros(w.shape[1])}
    gated = copy_with(ssm, plain).forward(x, *others)[frames]  # its hooks were copied, too
    pairs = zip(gated.chunk(ssm.n_heads // 2, -1), w.chunk(ssm.n_heads // 2, -1), strict=True)
    return torch.stack([F.linear(y, w_pair).double().square().sum() for y, w_pair in pairs])


@torch.no_grad()
def _reorder_ffn(ffn: ElasticFFN, order: Tensor) -> None:
    for tensor in (ffn.w_1.weight, ffn.w_1.bias):
        tensor.copy_(tensor[order])
    ffn.w_2.weight.copy_(ffn.w_2.weight[:, order])


@torch.no_grad()
def _reorder_heads(ssm: MultiHeadSSM, order: Tensor) -> None:
    """Value heads, and their gates with them."""
    n_values = ssm.w_out.in_features
    values = torch.arange(n_values, device=order.device).view(len(order), -1)[order].flatten()
    channels = torch.cat([values, n_values + values])
    by_channel: list[Tensor] = [ssm.w_in.weight, ssm.w_in.bias]
    for one in (*ssm.forward_ssms, *(ssm.backward_ssms or ())):
        by_channel += [*one.parameters(), *one.buffers()]
    for tensor in by_channel:
        tensor.copy_(tensor[channels])
    ssm.w_out.weight.copy_(ssm.w_out.weight[:, values])
