"""One training step, forward and backward: our sandwich of four subnets with distillation against

- the plain step of the max network alone: torchaudio's loss on the logits of all nodes;
- the max network alone on our pruned lattice;
- a plain sandwich: every subnet computes everything, loss and KL on the logits of all nodes.

    python benchmarks/sandwich.py [--repeats 3] [--processor-time]
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import torch
import torchaudio
from measure import MB, Row, parse_repeats, peak_memory, print_table, time_in_turn
from torch import Tensor

from todm_sb.losses.pruning import Pruning
from todm_sb.nnet.predictor import start_with_blank
from todm_sb.nnet.transducer import Transducer
from todm_sb.supernet import SearchSpace, SubnetConfig
from todm_sb.supernet.objective import Objective
from todm_sb.supernet.sandwich import sample_sandwich, sandwich_backward
from todm_sb.supernet.trunk import Labels, Trunk

B, FRAMES, BINS, U, V, J, D = 8, 1000, 80, 60, 1000, 640, 512
MICRO_BATCHES = 4
SPACE = SearchSpace(n_layers=12, min_layers=6, ffn_dims=(512, 1024, 1536, 2048))
SIZES = f"d_model {D}, 12 layers, FFN 2048, B {B}, 10 s, U {U}, V {V}, J {J}"
SHAPES = f"{SIZES}; ours in {MICRO_BATCHES} micro-batches"


class Case:
    """The supernet and a batch, the same for every contestant."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = Transducer(
            V,
            {"n_features": BINS, "d_model": D, "sizes": SPACE.sizes, "dropout": 0.1},
            {"kind": "lstm", "d_model": D},
            J,
            simple_joiner=True,
        )
        self.features = torch.randn(B, FRAMES, BINS)
        self.n_features = torch.full((B,), FRAMES)
        self.labels = Labels(torch.randint(1, V, (B, U)), torch.full((B,), U))
        self.rng = random.Random(0)

    def subnets(self) -> list[SubnetConfig]:
        """Those of the next step; all contestants draw the same."""
        return sample_sandwich(SPACE, 2, self.rng)

    def sandwich(self) -> None:
        """Ours: shared trunk, pruned lattice, adaptive alpha-divergence."""
        self._ours(self.subnets())

    def one_pruned(self) -> None:
        """The max network alone on our pruned lattice."""
        self._ours([SPACE.max])

    def _ours(self, subnets: list[SubnetConfig]) -> None:
        trunk = Trunk.compute(self.model, self.features, self.n_features, self.labels.ids)
        objective = Objective(kd_weight=0.01, pruning=Pruning())
        sandwich_backward(
            self.model, objective, trunk, self.labels, subnets, micro_batches=MICRO_BATCHES
        )

    def one_plain(self) -> None:
        """The max network alone, as it is written without our losses."""
        logits, n_frames = self._logits(SPACE.max)
        self._plain_loss(logits, n_frames).backward()

    def plain_sandwich(self) -> None:
        """Every subnet computes everything."""
        teacher = None
        for subnet in self.subnets():
            logits, n_frames = self._logits(subnet)
            loss = self._plain_loss(logits, n_frames)
            if teacher is None:
                teacher = logits.detach()
            else:
                kl = torch.nn.functional.kl_div(
                    logits.log_softmax(-1),
                    teacher.log_softmax(-1),
                    reduction="sum",
                    log_target=True,
                )
                loss = loss + 0.01 * kl / B
            loss.backward()

    def _logits(self, subnet: SubnetConfig) -> tuple[Tensor, Tensor]:
        encoded, n_frames = self.model.encoder(self.features, self.n_features, subnet)
        outputs, _ = self.model.predictor(start_with_blank(self.labels.ids, 0))
        joiner = self.model.joiner
        encoded, outputs = joiner.project_encoder(encoded), joiner.project_predictor(outputs)
        return joiner(encoded.unsqueeze(2), outputs.unsqueeze(1)), n_frames

    def _plain_loss(self, logits: Tensor, n_frames: Tensor) -> Tensor:
        return torchaudio.functional.rnnt_loss(
            logits, self.labels.ids.int(), n_frames.int(), self.labels.lengths.int(), blank=0
        )


def prepare(contestant: str) -> Callable[[], None]:
    """The work of one contestant; its gradients stay, as they do between steps."""
    return getattr(Case(), contestant)


def main() -> None:
    """Print the table."""
    repeats, clock = parse_repeats(__doc__.splitlines()[0], 3)
    rows = []
    for contestant, peer_name, target in [
        ("one_plain", "max network alone, 4-D loss", 0.8),
        ("one_pruned", "max network alone, our pruned loss", 2.3),
        ("plain_sandwich", "plain sandwich, 4-D loss and KL", 0.4),
    ]:
        ours, peer = time_in_turn(
            prepare("sandwich"), prepare(contestant), repeats=repeats, warmup=1, clock=clock
        )
        claim = f"sandwich step, peer {peer_name}: time"
        rows.append(Row(claim, SHAPES, ours.median, peer.median, "s", target))
    ours_mb, peer_mb = (
        peak_memory(partial(prepare, contestant)) / MB for contestant in ("sandwich", "one_plain")
    )
    claim = "sandwich step, peer max network alone, 4-D loss: peak memory"
    rows.insert(1, Row(claim, SHAPES, ours_mb, peer_mb, "MB", 0.5))
    print_table(rows)


if __name__ == "__main__":
    main()
