"""Transducer beam search: ours against SpeechBrain's TransducerBeamSearcher(beam_size=4).

    python benchmarks/beam.py [--threads 1] [--repeats 3] [--peer_utterances 1]

16 utterances of 250 frames, 1,000 labels, LSTM of 512, joint of 640, about 0.135 labels a frame;
the same network objects, fitted to decode like trained ones (see ``synthetic_transducer.py``).
SpeechBrain searches utterance after utterance: it gets the first ``--peer_utterances`` alone, and
its time is scaled to 16. Seconds are of processor time on one thread, of the clock on several.
"""

from __future__ import annotations

import argparse
import time

import speechbrain.decoders.transducer as peer
import torch
from measure import Row, print_table, time_in_turn
from synthetic_transducer import fitted_transducer

from todm_sb.decoders import speechbrain as ours

BATCH, T = 16, 250


@torch.no_grad()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer_utterances", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    networks, encoded = fitted_transducer(BATCH, T)
    our_searcher, peer_searcher = (
        module.TransducerBeamSearcher(**networks, beam_size=4, nbest=1) for module in (ours, peer)
    )
    ours_s, peer_s = time_in_turn(
        lambda: our_searcher(encoded),
        lambda: peer_searcher(encoded[: args.peer_utterances]),
        repeats=args.repeats,
        warmup=0,
        clock=time.process_time if torch.get_num_threads() == 1 else time.perf_counter,
    )
    rate = sum(map(len, our_searcher(encoded)[0])) / (BATCH * T)
    shapes = f"B {BATCH}, T {T}, V 1000, LSTM 512, joint 640, {rate:.3f} labels a frame"
    scale = BATCH / args.peer_utterances
    claim = f"beam 4, peer SpeechBrain: {scale:g} times its time of {args.peer_utterances} utt."
    print_table([Row(claim, shapes, ours_s.median, scale * peer_s.median, "s", 1 / 20)])


if __name__ == "__main__":
    main()
