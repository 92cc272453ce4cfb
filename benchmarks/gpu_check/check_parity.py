"""What a device computes, against the CPU in float64; in float32 where SpeechBrain's Conformer has
nothing else."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import torch
from check_runner import Context, Row
from torch import Tensor

from todm_sb.decoders.networks import TransducerNetworks
from todm_sb.decoders.transducer import TransducerSearcher
from todm_sb.losses.lattice import two_channel_loss
from todm_sb.losses.pruning import Pruning
from todm_sb.nnet.transducer import Transducer
from todm_sb.optim import ScaledAdam
from todm_sb.supernet import SearchSpace
from todm_sb.supernet.objective import Objective
from todm_sb.supernet.sandwich import sample_sandwich, sandwich_backward
from todm_sb.supernet.trunk import Labels, Trunk

BOUND, LATTICE_BOUND = 1e-4, 1e-5
SPACE = SearchSpace(n_layers=3, min_layers=1, ffn_dims=(32, 64))
N_FEATURES, VOCABULARY = 16, 40
ENCODERS: dict[str, dict[str, Any]] = {
    "mhssm": {"n_heads": 4, "state_size": 4},
    "conformer": {"kind": "conformer", "n_heads": 4, "kernel_size": 7},
}
EXACT = {"mhssm": torch.float64, "conformer": torch.float32}
OBJECTIVES = {
    "full": Objective(ctc_weight=0.3, kd_weight=0.5),
    "band": Objective(ctc_weight=0.3, kd_weight=0.5, pruning=Pruning(s_range=4)),
}
# Frames of features, and labels: one utterance is short, one has no label.
LENGTHS, N_LABELS = (120, 44, 80), (9, 3, 0)


def parity(context: Context) -> Iterator[Row]:
    """Losses, gradients, optimizer and searches."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)
    yield from _lattice(context.device)
    for kind, encoder in ENCODERS.items():
        for name, objective in OBJECTIVES.items():
            what, model = f"{kind}, {name}", make_model(encoder)
            yield from _sandwich(what, model, objective, context.device, EXACT[kind])
    yield _optimizer(context.device)
    yield from _searches(make_model(ENCODERS["mhssm"]).eval(), context.device)


def make_model(encoder: dict[str, Any]) -> Transducer:
    """A small supernet without dropout."""
    sizes = {"n_features": N_FEATURES, "d_model": 32, "channels": [4, 4], "time_strides": [2, 2]}
    return Transducer(
        VOCABULARY,
        {**sizes, **SPACE.sizes, **encoder},
        {"kind": "lstm", "d_model": 24},
        32,
        ctc=True,
        simple_joiner=True,
    )


def _compared(what: str, found: list[Tensor], expected: list[Tensor], bound: float) -> Row:
    """The norm of the difference, relative to that of what is expected."""
    pairs = [(x.detach().cpu().double(), y.double()) for x, y in zip(found, expected, strict=True)]
    off = sum(float((x - y).square().sum()) for x, y in pairs) ** 0.5
    difference = off / sum(float(y.square().sum()) for _, y in pairs) ** 0.5
    return {"what": what, "difference": difference, "at most": bound, "ok": difference <= bound}


def forward_loss(log_probs: Tensor, n_frames: int, n_labels: int) -> Tensor:
    """The transducer's loss of one utterance by its recursion (Graves 2012, equation 16).

    Args:
        log_probs: (T, U + 1, 2), log p(blank) and log p(next label).
        n_frames: of the utterance.
        n_labels: of the utterance.
    """
    alpha: dict[tuple[int, int], Tensor] = {(0, 0): log_probs.new_zeros(())}
    for t in range(n_frames):
        for u in range(n_labels + 1):
            arrivals = []
            if t:
                arrivals.append(alpha[t - 1, u] + log_probs[t - 1, u, 0])
            if u:
                arrivals.append(alpha[t, u - 1] + log_probs[t, u - 1, 1])
            if arrivals:
                alpha[t, u] = torch.logsumexp(torch.stack(arrivals), 0)
    return -(alpha[n_frames - 1, n_labels] + log_probs[n_frames - 1, n_labels, 0])


def _lattice(device: str) -> Iterator[Row]:
    """Also of the utterances that torchaudio's kernel for CUDA leaves out."""
    lengths = [(12, 4), (7, 0), (1, 3), (9, 5)]
    arcs = torch.randn(len(lengths), 12, 6, 3, dtype=torch.float64).log_softmax(-1)[..., :2]
    exact = arcs.clone().requires_grad_()
    expected = torch.stack([forward_loss(x, *n) for x, n in zip(exact, lengths, strict=True)])
    expected.sum().backward()
    near = arcs.float().to(device).requires_grad_()
    frames, labels = (torch.tensor(x, device=device) for x in zip(*lengths, strict=True))
    loss, _ = two_channel_loss(near, frames, labels)
    loss.sum().backward()
    yield _compared("lattice, loss", [loss], [expected.detach()], LATTICE_BOUND)
    yield _compared("lattice, gradient", [near.grad], [exact.grad], LATTICE_BOUND)


def _sandwich(
    what: str, model: Transducer, objective: Objective, device: str, exact: torch.dtype
) -> Iterator[Row]:
    subnets = sample_sandwich(SPACE, 1, random.Random(1))
    features = torch.randn(3, max(LENGTHS), N_FEATURES)
    ids = torch.randint(1, VOCABULARY, (3, max(N_LABELS)))
    results = []
    for network, place, dtype in (
        (copy.deepcopy(model).to(exact), "cpu", exact),
        (copy.deepcopy(model).to(device), device, torch.float32),
    ):
        labels = Labels(ids.to(place), torch.tensor(N_LABELS, device=place))
        inputs = features.to(place, dtype), torch.tensor(LENGTHS, device=place), labels.ids
        trunk = Trunk.compute(network, *inputs)
        losses = sandwich_backward(network, objective, trunk, labels, subnets)
        gradients = [
            torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters()
        ]
        results.append(([x.total for x in losses], gradients))
    (losses, gradients), (found_losses, found_gradients) = results
    yield _compared(f"{what}: losses", found_losses, [x.cpu() for x in losses], BOUND)
    yield _compared(f"{what}: gradients", found_gradients, gradients, BOUND)


def _optimizer(device: str) -> Row:
    start = [torch.randn(shape) for shape in ((8, 6), (6,), (1,))]
    weights = []
    for place, dtype in (("cpu", torch.float64), (device, torch.float32)):
        params = [x.to(place, dtype).requires_grad_() for x in start]
        optimizer = ScaledAdam(params, lr=0.05)
        for step in range(8):
            for i, p in enumerate(params):
                wave = torch.arange(1.0, p.numel() + 1, dtype=torch.float64) * (step + i + 1)
                p.grad = wave.sin().view(p.shape).to(place, dtype)
            optimizer.step()
        weights.append([p.detach() for p in params])
    return _compared("ScaledAdam, 8 steps", weights[1], weights[0], BOUND)


@torch.no_grad()
def _searches(model: Transducer, device: str) -> Iterator[Row]:
    model.joiner.output.weight.mul_(8)  # else it says nothing
    encoded, n_frames = torch.randn(3, 30, 32), torch.tensor([30, 12, 21])
    there = copy.deepcopy(model).to(device)
    for beam_size in (1, 4):
        found, expected = (
            TransducerSearcher(TransducerNetworks(network), beam_size, max_symbols=3).search(
                encoded.to(place), n_frames.to(place)
            )
            for network, place in ((there, device), (model, "cpu"))
        )
        labels = [best.tokens for best, *_ in expected]
        same = [best.tokens for best, *_ in found] == labels
        name = "greedy search" if beam_size == 1 else f"beam {beam_size}"
        yield {"what": f"{name}: the same labels", "ok": same and any(labels)}
