"""How long folders of ONNX models take on this device; without PyTorch."""

from __future__ import annotations

import itertools
import math
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from todm_sb.inference.onnx import OnnxASR

# Runs of a network in a row; the first fills the caches.
RUNS = 3
# Of the noise that stands for speech where there is none; full scale is 1.
LOUDNESS = 0.05


def time_folders(
    folders: Sequence[Path],
    seconds: float,
    threads: int = 1,
    repeats: int = 5,
    samples: np.ndarray | None = None,
) -> list[float]:
    """Seconds in which the network of each folder transcribes an utterance: the least of many.

    They take turns, each with a few runs in a row of which the first does not count; one at a time
    is loaded, for the sake of small devices. One thread is timed by its processor time, which other
    programs do not add to; several by the clock.

    Args:
        folders: see :class:`todm_sb.inference.onnx.OnnxASR`.
        seconds: of audio.
        threads: of onnxruntime.
        repeats: turns of each network.
        samples: speech at the networks' sampling rate, from the beginning again where it is short;
            noise when None, in which few labels are found.

    Raises:
        ConfigError: if a folder cannot be loaded.
    """
    clock = time.thread_time if threads == 1 else time.perf_counter
    best = [math.inf] * len(folders)
    for i, folder in itertools.chain(*repeats * [list(enumerate(folders))]):
        network = OnnxASR(folder, threads)
        length = round(seconds * network.sample_rate)
        noise = LOUDNESS * np.random.default_rng(0).standard_normal(length)
        wav = np.resize(noise if samples is None else samples, (1, length)).astype(np.float32)
        for run in range(RUNS):
            start = clock()
            network.transcribe_batch(wav, [1.0])
            if run > 0:
                best[i] = min(best[i], clock() - start)
    return best


def device() -> dict[str, str]:
    """What is known of this device."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "processor": platform.processor(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
    }
