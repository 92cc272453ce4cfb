"""Time of a greedy search: ours against SpeechBrain's TransducerBeamSearcher(beam_size=1).

    python benchmarks/greedy_search.py [--threads 2] [--runs 5]

B 16, T 250, V 1000, LSTM 512, joiner 640. The network is random; the bias of blank is set so that
about 0.135 labels a frame are read. Both search the same projected encoder outputs in turn, in one
process, and have to read the same labels.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from speechbrain.decoders.transducer import TransducerBeamSearcher
from torch import Tensor, nn

from todm_sb.decoders.greedy import greedy_search
from todm_sb.nnet.transducer import Transducer

BATCH, T, VOCAB, D, LABELS_A_FRAME = 16, 250, 1000, 512, 0.135


def make_network() -> Transducer:
    """Random, with logits wide enough for labels to differ from frame to frame."""
    torch.manual_seed(0)
    network = Transducer(
        vocab_size=VOCAB,
        encoder={"n_features": 8, "d_model": D, "ffn_dims": [8], "channels": [4, 4]},
        predictor={"kind": "lstm", "d_model": D},
        d_joint=640,
    ).eval()
    with torch.no_grad():
        network.joiner.output.weight.mul_(10)
    return network


def tune_blank(network: Transducer, encoded: Tensor, n_frames: Tensor) -> None:
    """Sets the bias of blank by bisection so that the wanted number of labels is read."""
    bias = network.joiner.output.bias.data
    low, high = 0.0, 1000.0
    for _ in range(24):
        bias[0] = (low + high) / 2
        n_labels = sum(len(h.tokens) for h in greedy_search(network, encoded, n_frames))
        low, high = (bias[0], high) if n_labels > LABELS_A_FRAME * BATCH * T else (low, bias[0])


def speechbrain_searcher(network: Transducer) -> Callable[[Tensor], list[list[int]]]:
    """SpeechBrain's searcher on the same layers."""
    joiner = network.joiner
    searcher = TransducerBeamSearcher(
        [network.predictor.embedding, network.predictor.lstm, joiner.project_predictor],
        lambda encoder, predictor: torch.tanh(encoder + predictor),
        nn.ModuleList([joiner.output]),
        blank_id=0,
        beam_size=1,
    )

    @torch.no_grad()
    def search(encoded: Tensor) -> list[list[int]]:
        return searcher(joiner.project_encoder(encoded))[0]

    return search


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    network = make_network()
    encoded = torch.randn(BATCH, T, D)
    n_frames = torch.full((BATCH,), T)
    tune_blank(network, encoded, n_frames)
    peer = speechbrain_searcher(network)
    searches = {
        "ours": lambda: [h.tokens for h in greedy_search(network, encoded, n_frames, 6)],
        "peer": lambda: peer(encoded),
    }
    labels = {name: search() for name, search in searches.items()}
    seconds: dict[str, list[float]] = {name: [] for name in searches}
    for _ in range(options.runs):
        for name, search in searches.items():
            start = time.perf_counter()
            search()
            seconds[name].append(time.perf_counter() - start)
    ours, theirs = (statistics.median(seconds[name]) for name in ("ours", "peer"))
    rate = sum(map(len, labels["ours"])) / (BATCH * T)
    print(f"B {BATCH}, T {T}, V {VOCAB}, {rate:.3f} labels a frame, {options.threads} threads")
    print(f"same labels: {labels['ours'] == labels['peer']}")
    print(f"{'search':<36}{'s':>8}")
    print(f"{'todm_sb greedy_search':<36}{ours:>8.3f}")
    print(f"{'SpeechBrain TransducerBeamSearcher':<36}{theirs:>8.3f}")
    print(f"{'times faster':<36}{theirs / ours:>8.1f}")


if __name__ == "__main__":
    main()
