"""Transducer loss with its joiner, forward and backward: ours, on the full and the pruned lattice,
against torchaudio's loss on the logits of all nodes; and the sums over the lattice alone, of two
numbers a node, against torchaudio's.

    python benchmarks/loss.py [--repeats 3] [--processor-time]
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torchaudio
from measure import MB, Row, parse_repeats, peak_memory, print_table, time_in_turn
from torch import Tensor

from todm_sb.losses.forward_backward import forward_backward
from todm_sb.losses.lattice_kernel import kernel_loss
from todm_sb.losses.pruning import Pruning, choose_band, simple_lattice
from todm_sb.losses.transducer import lattice_loss
from todm_sb.nnet.joiner import Joiner, SimpleJoiner

B, T, U, V, J, D = 8, 250, 60, 1000, 640, 512
SHAPES = f"B {B}, T {T}, U {U}, V {V}, J {J}"


class Case:
    """Networks and inputs, the same for every contestant."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.joiner = Joiner(D, D, J, V)
        self.simple_joiner = SimpleJoiner(D, D, V)
        self.encoder = torch.randn(B, T, D, requires_grad=True)
        self.predictor = torch.randn(B, U + 1, D, requires_grad=True)
        self.labels = torch.randint(1, V, (B, U))
        self.lengths = torch.full((B,), T), torch.full((B,), U)
        self.arcs = torch.randn(B, T, U + 1, 3).log_softmax(-1)[..., :2].contiguous()

    def projected(self) -> tuple[Tensor, Tensor]:
        """What the joiner adds up."""
        return (
            self.joiner.project_encoder(self.encoder),
            self.joiner.project_predictor(self.predictor),
        )

    def full(self) -> None:
        """Ours on all nodes."""
        loss = lattice_loss(self.joiner, *self.projected(), self.labels, *self.lengths)
        loss.transducer.mean().backward()

    def pruned(self) -> None:
        """Ours in a band, the simple joiner that finds it included."""
        pruning = Pruning()
        simple, occupancy = simple_lattice(
            self.simple_joiner.encoder(self.encoder),
            self.simple_joiner.predictor(self.predictor),
            self.labels,
            *self.lengths,
            0,
            pruning,
        )
        band = choose_band(occupancy, *self.lengths, pruning.s_range)
        loss = lattice_loss(
            self.joiner, *self.projected(), self.labels, *self.lengths, band=band
        ).transducer
        (0.5 * simple.mean() + loss.mean()).backward()

    def sums(self) -> None:
        """Our sums over all alignments, and their gradient."""
        forward_backward(self.arcs, *self.lengths)

    def torchaudio_sums(self) -> None:
        """The peer's."""
        kernel_loss(self.arcs, *self.lengths, (T, U))

    def torchaudio(self) -> None:
        """The peer: one tensor of logits (B, T, U + 1, V)."""
        encoder, predictor = self.projected()
        logits = self.joiner(encoder.unsqueeze(2), predictor.unsqueeze(1))
        torchaudio.functional.rnnt_loss(
            logits,
            self.labels.int(),
            *(n.int() for n in self.lengths),
            blank=0,
            reduction="mean",
        ).backward()


def prepare(contestant: str) -> Callable[[], None]:
    """The work of one contestant on inputs of its own."""
    return getattr(Case(), contestant)


def main() -> None:
    """Print the table."""
    repeats, clock = parse_repeats(__doc__.splitlines()[0], 3)
    peer_memory = peak_memory(partial(prepare, "torchaudio")) / MB
    rows = []
    for contestant, time_target, memory_target in [("full", 1.0, 0.25), ("pruned", 0.12, 0.10)]:
        ours, peer = time_in_turn(
            prepare(contestant), prepare("torchaudio"), repeats=repeats, warmup=1, clock=clock
        )
        claim = f"{contestant} loss, peer torchaudio on 4-D logits"
        memory = peak_memory(partial(prepare, contestant)) / MB
        rows += [
            Row(f"{claim}: time", SHAPES, ours.median, peer.median, "s", time_target),
            Row(f"{claim}: peak memory", SHAPES, memory, peer_memory, "MB", memory_target),
        ]
    sums = prepare("sums"), prepare("torchaudio_sums")
    ours, peer = (1e3 * t.median for t in time_in_turn(*sums, repeats=10 * repeats, clock=clock))
    claim = "sums over the lattice alone, peer torchaudio on as many numbers: time"
    rows.append(Row(claim, f"B {B}, T {T}, U {U}", ours, peer, "ms", 0.5))
    print_table(rows)


if __name__ == "__main__":
    main()
