"""Transcribing 10 minutes chunk by chunk: delay, time a chunk, memory, and the same result.

    python benchmarks/streaming.py results/streaming/1234 results/streaming/1234/manifests/test.csv

The max subnet of a run that can stream (see hparams/streaming.yaml), on one thread. The file is
made of the test set's utterances, again from the first where they are few. A chunk's seconds are of
processor time; memory is over what the libraries hold, in a process of its own. A recogniser that
kept its stream would gain at least the audio.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import soundfile
import torch
from measure import MB, Row, peak_memory, print_table
from torch import Tensor

from todm_sb.dataio.manifest import read_csv
from todm_sb.export.run import export_run
from todm_sb.inference import StreamingSubnetASR
from todm_sb.utils.arguments import at_least
from todm_sb.utils.errors import one_line_errors

MINUTE = 60
FLOAT_BYTES = 4
# Speech begins where 10 ms are a tenth as loud as the loudest.
ONSET = 0.1


@torch.no_grad()
def time_chunks(asr: StreamingSubnetASR, wav: Tensor, size: int) -> tuple[str, Tensor, list[float]]:
    """Transcribes a stream.

    Args:
        asr: the network.
        wav: (samples,).
        size: samples of a chunk.

    Returns:
        The text, the encoder's frames (T, d_model), and the seconds of each chunk.
    """
    context, texts, frames, seconds = asr.make_streaming_context(), [], [], []
    for chunk in wav.unsqueeze(0).split(size, dim=1):
        start = time.process_time()
        encoded, n_frames = asr.encode_chunk(context, chunk)
        words, _ = asr.decode_chunk(context, encoded, n_frames)
        seconds.append(time.process_time() - start)
        texts += words
        frames.append(encoded[0])
    return "".join([*texts, *asr.finish(context)]), torch.cat(frames), seconds


def first_text_delay(asr: StreamingSubnetASR, wav: Tensor, size: int) -> float | None:
    """Seconds from the beginning of speech until a stream has given its first letters: until the
    chunk has been spoken, and until it has been decoded.

    Returns:
        None if there was no text before the end.
    """
    rate = asr.hparams.sample_rate
    windows = wav[: len(wav) // (rate // 100) * (rate // 100)].view(-1, rate // 100)
    loudness = windows.square().mean(1).sqrt()
    onset = int((loudness >= ONSET * loudness.max()).nonzero()[0]) / 100
    context = asr.make_streaming_context()
    for i, chunk in enumerate(wav.unsqueeze(0).split(size, dim=1), start=1):
        start = time.process_time()
        # Not the first label: that one says no more than that a word begins.
        (text,) = asr.transcribe_chunk(context, chunk)
        if text:
            return min(i * size, len(wav)) / rate - onset + time.process_time() - start
    return None


def stream_file(bundle: str, path: str, chunk_seconds: float) -> Callable[[], object]:
    """Work for :func:`measure.peak_memory`."""
    asr = StreamingSubnetASR.from_bundle(bundle)
    return lambda: "".join(asr.transcribe_file_streaming(path, chunk_seconds))


def utterances(manifest: Path) -> list[Tensor]:
    """The samples of each utterance."""
    paths = [row.wav for row in read_csv(manifest)]
    return [torch.from_numpy(soundfile.read(path, dtype="float32")[0]) for path in paths]


def joined(parts: list[Tensor], n_samples: int) -> Tensor:
    """One stream of ``n_samples`` samples."""
    taken, total = [], 0
    for part in itertools.cycle(parts):
        taken.append(part)
        total += len(part)
        if total >= n_samples:
            return torch.cat(taken)[:n_samples]
    raise ValueError("no utterances")


def medians_by_minute(seconds: list[float], chunk: float) -> list[float]:
    """Median milliseconds of the chunks, of ``chunk`` seconds each, of each minute."""
    per_minute = round(MINUTE / chunk)
    return [
        1e3 * statistics.median(seconds[i : i + per_minute])
        for i in range(0, len(seconds) - per_minute // 2, per_minute)
    ]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="output_folder of train.py")
    parser.add_argument("manifest", type=Path, help="CSV of the test set")
    parser.add_argument("--subnet", default="max")
    parser.add_argument("--minutes", type=at_least(2), default=10)
    parser.add_argument("--chunk", type=float, default=0.32, help="seconds; default: 0.32")
    parser.add_argument("--delays", type=int, default=100, help="utterances to measure delay on")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        bundle, files = f"{folder}/bundle", {1: f"{folder}/1.wav", args.minutes: f"{folder}/n.wav"}
        export_run(args.run, Path(bundle), args.subnet)
        asr = StreamingSubnetASR.from_bundle(bundle)
        rate, parts = asr.hparams.sample_rate, utterances(args.manifest)
        size = round(args.chunk * rate)
        wav = joined(parts, args.minutes * MINUTE * rate)
        for minutes, path in files.items():
            soundfile.write(path, wav[: minutes * MINUTE * rate].numpy(), rate, subtype="FLOAT")

        text, frames, seconds = time_chunks(asr, wav, size)
        whole = asr.encode_batch(wav.unsqueeze(0), torch.ones(1))[0]
        difference = float((whole[: len(frames)] - frames).abs().max())
        same = text == asr.transcribe_file(files[args.minutes])
        print(
            f"{args.minutes} minutes, chunks of {args.chunk} s, {len(text.split())} words; same "
            f"text as of the whole file: {same}; encoder frames within {difference:.1e} of it"
        )
        medians = medians_by_minute(seconds, args.chunk)
        print("median ms a chunk, minute by minute: " + " ".join(f"{m:.2f}" for m in medians))
        delays = [first_text_delay(asr, part, size) for part in parts[: args.delays]]
        delays = sorted(d for d in delays if d is not None)
        print(
            f"first text after the beginning of speech, {len(delays)} utterances: median "
            f"{statistics.median(delays):.2f} s, at most {delays[-1]:.2f} s\n"
        )
        peaks = [
            peak_memory(functools.partial(stream_file, bundle, path, args.chunk)) / MB
            for path in files.values()
        ]
        print(f"peak memory: {peaks[0]:.2f} MB for 1 minute, {peaks[-1]:.2f} for {args.minutes}\n")
    gained, later = peaks[-1] - peaks[0], (args.minutes - 1) * MINUTE * rate * FLOAT_BYTES / MB
    shapes = f"chunks of {args.chunk} s, {args.minutes} minutes, {len(parts)} utterances"
    print_table(
        [
            Row(
                "time a chunk, last minute, peer first", shapes, medians[-1], medians[0], "ms", 1.1
            ),
            Row(
                "peak memory gained since minute 1, peer that audio",
                shapes,
                gained,
                later,
                "MB",
                0.1,
            ),
            Row("time, peer the audio's own", shapes, sum(seconds), args.minutes * MINUTE, "s", 1),
        ]
    )


if __name__ == "__main__":
    with one_line_errors():
        main()
