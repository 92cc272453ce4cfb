"""Encoder inference on one thread: MH-SSM against SpeechBrain's Conformer of equal parameters.

    python benchmarks/encoder.py [--repeats 7]

Both have width 512, the same convolutional subsampling to 40 ms frames, and the same utterance.
The Conformer has its usual proportions (FFN four times as wide, two of them a layer), which makes
it 8 layers deep; with 12 narrower layers it would be slower. Seconds are of processor time, which
one thread spends alone.
"""

from __future__ import annotations

import argparse
import time

import torch
from measure import Row, print_table, time_in_turn
from speechbrain.lobes.models.transformer.Conformer import ConformerEncoder
from speechbrain.nnet.attention import RelPosEncXL
from torch import Tensor, nn

from todm_sb.nnet.encoders.mhssm import MHSSMEncoder
from todm_sb.nnet.subsampling import ConvSubsampling

N_MELS, D, CHANNELS = 80, 512, (64, 64)
FRAMES_A_SECOND = 100


class Conformer(nn.Module):
    """SpeechBrain's Conformer on the same subsampled frames."""

    def __init__(self) -> None:
        super().__init__()
        self.subsampling = ConvSubsampling(N_MELS, D, CHANNELS)
        self.positions = RelPosEncXL(D)
        self.layers = ConformerEncoder(num_layers=8, d_model=D, d_ffn=1952, nhead=8)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """(batch, T, N_MELS) -> (batch, T', D)."""
        x, _ = self.subsampling(features, lengths)
        return self.layers(x, pos_embs=self.positions(x))[0]


def millions(network: nn.Module) -> float:
    """Parameters of a network, in millions."""
    return sum(p.numel() for p in network.parameters()) / 1e6


@torch.inference_mode()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)

    ours = MHSSMEncoder(N_MELS, D, [3072] * 12, channels=CHANNELS).eval()
    peer = Conformer().eval()
    assert abs(millions(ours) / millions(peer) - 1) < 0.02
    sizes = f"{millions(ours):.1f} M parameters, peer {millions(peer):.1f} M"

    def encode(network: nn.Module, seconds: int) -> object:
        lengths = torch.tensor([seconds * FRAMES_A_SECOND])
        return network(torch.randn(1, int(lengths), N_MELS), lengths)

    rows, taken = [], {}
    for seconds, target in ((10, 1.0), (60, 0.5)):
        taken[seconds], peer_s = time_in_turn(
            lambda seconds=seconds: encode(ours, seconds),
            lambda seconds=seconds: encode(peer, seconds),
            repeats=args.repeats,
            warmup=1,
            clock=time.thread_time,
        )
        claim = "encoder, peer SpeechBrain Conformer"
        shapes = f"{seconds} s of audio, {sizes}"
        rows.append(Row(claim, shapes, taken[seconds].median, peer_s.median, "s", target))
    claim = "encoder, 60 s against 10 s"
    rows.append(Row(claim, sizes, taken[60].median, taken[10].median, "s", target=6.5))
    print_table(rows)


if __name__ == "__main__":
    main()
