"""A bundle's subnet with PyTorch, peer the same subnet with onnxruntime: one utterance at a time.

    todm-sb export RUN bundle
    todm-sb export RUN onnx --format onnx --subnet max
    OMP_NUM_THREADS=1 python benchmarks/one_utterance.py bundle onnx --subnet max speech/*.flac

Both from samples to text, on one thread, in turn; the texts have to be the same. Seconds are of
processor time: the median over the rounds of the mean over the files. ``OnnxASR`` runs features,
encoder and joiner as ONNX graphs, and the greedy search with numpy.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from measure import Row, print_table, time_in_turn

from todm_sb.inference import SubnetASR
from todm_sb.inference.onnx import OnnxASR
from todm_sb.utils.errors import one_line_errors

TARGET = 1.5


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("onnx", type=Path, help="folder of todm-sb export --format onnx")
    parser.add_argument("audio", type=Path, nargs="+")
    parser.add_argument("--subnet", default="max", help="that the ONNX folder holds")
    parser.add_argument("--repeats", type=int, default=7, help="rounds over the files")
    args = parser.parse_args()
    torch.set_num_threads(1)
    ours = SubnetASR.from_bundle(args.bundle, args.subnet)
    peer = OnnxASR(args.onnx)
    waves = [peer.load_audio(path)[None] for path in args.audio]

    def transcribe(asr: SubnetASR | OnnxASR) -> list[str]:
        lengths = torch.ones(1)
        return [asr.transcribe_batch(torch.from_numpy(x), lengths)[0][0] for x in waves]

    if transcribe(ours) != transcribe(peer):
        raise SystemExit(f"the texts differ: is {args.onnx} the subnet {args.subnet}?")
    times = time_in_turn(
        lambda: transcribe(ours),
        lambda: transcribe(peer),
        repeats=args.repeats,
        warmup=1,
        clock=time.thread_time,
    )
    ours_ms, peer_ms = (1e3 * x.median / len(waves) for x in times)
    seconds = np.mean([x.shape[1] for x in waves]) / peer.sample_rate
    shapes = f"{args.subnet}, {len(waves)} utterances of {seconds:.1f} s"
    claim = "an utterance with PyTorch, peer onnxruntime"
    print_table([Row(claim, shapes, ours_ms, peer_ms, "ms", TARGET)])


if __name__ == "__main__":
    with one_line_errors():
        main()
