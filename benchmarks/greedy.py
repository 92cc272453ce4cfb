"""Greedy transducer search: ours against SpeechBrain's TransducerBeamSearcher(beam_size=1).

    python benchmarks/greedy.py [--threads 1] [--repeats 5]

16 utterances of 250 frames, 1,000 labels, LSTM of 512, joint of 640, about 0.135 labels a frame;
both search with the very same network objects and must find the same labels. On random networks,
which give labels in clumps, and on fitted ones, which give them as a trained network does (see
``synthetic_transducer.py``). Seconds are of processor time on one thread, of the clock on several.
"""

from __future__ import annotations

import argparse
import time

import speechbrain.decoders.transducer as peer
import torch
from measure import Row, print_table, time_in_turn
from synthetic_transducer import Made, fitted_transducer, random_transducer

from todm_sb.decoders import speechbrain as ours

BATCH, T = 16, 250


def compare(kind: str, made: Made, repeats: int) -> Row:
    """Times both searches over the same networks and frames."""
    networks, encoded = made
    our_searcher, peer_searcher = (
        module.TransducerBeamSearcher(**networks, beam_size=1) for module in (ours, peer)
    )
    found = our_searcher(encoded)[0]
    assert found == peer_searcher(encoded)[0], "the two find different labels"
    ours_s, peer_s = time_in_turn(
        lambda: our_searcher(encoded),
        lambda: peer_searcher(encoded),
        repeats=repeats,
        warmup=0,
        clock=time.process_time if torch.get_num_threads() == 1 else time.perf_counter,
    )
    rate = sum(map(len, found)) / (BATCH * T)
    shapes = f"B {BATCH}, T {T}, V 1000, LSTM 512, joint 640, {rate:.3f} labels a frame"
    claim = f"greedy, {kind} networks, peer SpeechBrain"
    return Row(claim, shapes, ours_s.median, peer_s.median, "s", 1 / 8)


@torch.no_grad()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    kinds = {"random": random_transducer, "fitted": fitted_transducer}
    print_table([compare(kind, make(BATCH, T), args.repeats) for kind, make in kinds.items()])


if __name__ == "__main__":
    main()
