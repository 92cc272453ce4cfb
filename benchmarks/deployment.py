"""What a trained run's subnets cost and how they transcribe, exported and run by three engines.

    python benchmarks/deployment.py results/fsdd/1234 results/fsdd/1234/manifests/test.csv

For max, min and two subnets that a search found (the best of the cheaper and of the dearer half),
in float32 and in 8 bits: size, word error rate, real-time factor and peak memory with PyTorch,
onnxruntime and sherpa-onnx, on one thread, utterance by utterance. Seconds are of processor time;
all networks and engines transcribe an utterance in turn. Peak memory is that of loading a network
and of transcribing the longest utterances, over what the libraries hold, in a process of its own.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import engines
import numpy as np
import soundfile
import torch
from measure import MB, Row, peak_memory, print_table
from speechbrain.utils.edit_distance import accumulatable_wer_stats

from todm_sb.dataio.manifest import read_csv
from todm_sb.dataio.text import words_of_text
from todm_sb.export.onnx import obstacles_to_sherpa
from todm_sb.export.run import export_run
from todm_sb.search.pareto import Evaluated, SearchResult
from todm_sb.supernet import SearchSpace, SubnetConfig, count_parameters
from todm_sb.training.runs import load_run, run_tokenizer
from todm_sb.training.searcher import max_symbols_of
from todm_sb.utils.errors import one_line_errors

FLOAT, INT8 = "float32", "int8"
PYTORCH, ONNXRUNTIME, SHERPA = "PyTorch", "onnxruntime", "sherpa-onnx"
LONGEST = 10  # utterances that memory is measured on


@dataclass
class Candidate:
    """A subnet in one precision on one engine, and what it did.

    Args:
        load: makes the engine; picklable.
        folder: what is deployed.
    """

    load: Callable[[], engines.Engine]
    folder: Path
    texts: list[str] = field(default_factory=list)
    seconds: float = 0.0
    peak: int = 0

    @property
    def size(self) -> int:
        """Bytes of the folder."""
        return sum(path.stat().st_size for path in self.folder.iterdir())


# By subnet, precision and engine.
Candidates = dict[tuple[str, str, str], Candidate]


@dataclass(frozen=True)
class TestSet:
    """Utterances: samples of full scale 1, and what was said."""

    samples: list[np.ndarray]
    texts: list[str]
    seconds: float
    words_of: Callable[[str], list[str]]

    @classmethod
    def read(
        cls, manifest: Path, limit: int | None, words_of: Callable[[str], list[str]]
    ) -> TestSet:
        """From a manifest."""
        rows = read_csv(manifest)[:limit]
        audio = [soundfile.read(row.wav, dtype="float32") for row in rows]
        seconds = sum(len(samples) / rate for samples, rate in audio)
        samples = [samples for samples, _ in audio]
        return cls(samples, [row.wrds for row in rows], seconds, words_of)

    def error_rate(self, texts: Iterable[str]) -> float:
        """Word error rate in percent."""
        said, found = (list(map(self.words_of, x)) for x in (self.texts, texts))
        return accumulatable_wer_stats(said, found)["WER"]

    def longest(self) -> list[np.ndarray]:
        """The :data:`LONGEST` longest utterances."""
        return sorted(self.samples, key=len)[-LONGEST:]


def choose(space: SearchSpace, found: SearchResult) -> dict[str, SubnetConfig]:
    """Max, min, and the best of the cheaper and of the dearer half of what was found."""
    others = [s for s in found.subnets if s.config not in (space.max, space.min)]

    def cost(subnet: Evaluated) -> float:
        return subnet.costs[found.cost]

    costs = [cost(subnet) for subnet in found.subnets]
    middle = (min(costs) + max(costs)) / 2
    halves = [s for s in others if cost(s) > middle], [s for s in others if cost(s) <= middle]
    best = [min(half, key=lambda s: (s.wer, cost(s))).config for half in halves]
    return {"max": space.max, "found, larger": best[0], "found, smaller": best[1], "min": space.min}


def export_all(
    run: Path, hparams: dict[str, Any], subnets: dict[str, SubnetConfig], target: Path
) -> Candidates:
    """Exports every subnet in every form; the engines that can run it."""
    fbank = hparams["features"].fbank.options
    model = hparams["model"]
    obstacles = obstacles_to_sherpa(model, fbank, max_symbols_of(hparams, model))
    if obstacles:
        print(f"not for sherpa-onnx: {'; '.join(obstacles)}")
    candidates: Candidates = {}
    for name, config in subnets.items():
        parent = target / config.id
        forms = {"bundle": FLOAT, "onnx": FLOAT, "onnx-int8": INT8}
        for form, precision in forms.items():
            folder = parent / form
            export_run(run, folder, config.to_json(), form=form)
            if form == "bundle":
                loads = {PYTORCH: functools.partial(engines.pytorch, folder)}
            else:
                loads = {ONNXRUNTIME: functools.partial(engines.onnxruntime, folder)}
                if not obstacles:
                    loads[SHERPA] = functools.partial(
                        engines.sherpa, folder, fbank["sample_rate"], fbank["n_mels"]
                    )
            for engine, load in loads.items():
                candidates[name, precision, engine] = Candidate(load, folder)
    return candidates


def transcribe_in_turn(candidates: Candidates, test: TestSet) -> None:
    """Lets each candidate transcribe each utterance, all in turn."""
    loaded = [(candidate, candidate.load()) for candidate in candidates.values()]
    for _, transcribe in loaded:
        transcribe(test.samples[0])  # the first one is slow
    for samples in test.samples:
        for candidate, transcribe in loaded:
            start = time.process_time()
            text = transcribe(samples)
            candidate.seconds += time.process_time() - start
            candidate.texts.append(text)


def load_and_transcribe(
    load: Callable[[], engines.Engine], utterances: list[np.ndarray]
) -> Callable[[], object]:
    """Work for :func:`measure.peak_memory`."""
    return lambda: list(map(load(), utterances))


def print_candidates(
    candidates: Candidates,
    test: TestSet,
    subnets: dict[str, SubnetConfig],
    parameters: dict[str, int],
) -> None:
    """Prints the table, one row a subnet and precision."""
    engine_names = list(dict.fromkeys(engine for *_, engine in candidates))
    by_engine = " / ".join(engine_names)
    print(f"In each cell: {by_engine}\n")
    print("| subnet | layers | parameters | weights | MB | WER % | other text | RTF | peak MB |")
    print("| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    for name, config in subnets.items():
        reference = candidates[name, FLOAT, PYTORCH].texts
        for precision in (FLOAT, INT8):
            row = [candidates.get((name, precision, engine)) for engine in engine_names]
            unlike = [
                c and sum(a.split() != b.split() for a, b in zip(c.texts, reference, strict=True))
                for c in row
            ]
            cells = [
                name,
                str(len(config.layers)),
                f"{parameters[name] / 1e6:.2f} M",
                precision,
                _cell(c and f"{c.size / MB:.2f}" for c in row),
                _cell(c and f"{test.error_rate(c.texts):.2f}" for c in row),
                _cell(None if n is None else str(n) for n in unlike),
                _cell(c and f"{c.seconds / test.seconds:.4f}" for c in row),
                _cell(c and (f"{c.peak / MB:.1f}" if c.peak else None) for c in row),
            ]
            print(f"| {' | '.join(cells)} |")
    print(
        f"\n{len(test.samples)} utterances, {test.seconds / 60:.1f} minutes; other text: "
        "utterances whose text is not the one of the same subnet with PyTorch\n"
    )


def _cell(figures: Iterable[str | None]) -> str:
    return " / ".join(figure or "-" for figure in figures)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="output_folder of train.py, after todm-sb search")
    parser.add_argument("manifest", type=Path, help="CSV of the test set")
    parser.add_argument("--limit", type=int, help="only so many utterances")
    parser.add_argument("--no-memory", action="store_true", help="leave peak memory out")
    args = parser.parse_args()
    torch.set_num_threads(1)
    hparams = load_run(args.run)
    subnets = choose(hparams["space"], SearchResult.load(args.run / "search/params/pareto.json"))
    parameters = {name: count_parameters(hparams["model"], c) for name, c in subnets.items()}
    candidates = export_all(args.run, hparams, subnets, args.run / "deployment")
    words_of = functools.partial(words_of_text, run_tokenizer(hparams))
    test = TestSet.read(args.manifest, args.limit, words_of)
    transcribe_in_turn(candidates, test)
    if not args.no_memory:
        multiprocessing.set_forkserver_preload(["engines"])
        for candidate in candidates.values():
            work = functools.partial(load_and_transcribe, candidate.load, test.longest())
            candidate.peak = peak_memory(work, start="forkserver")
    print_candidates(candidates, test, subnets, parameters)
    peer = candidates["max", FLOAT, PYTORCH].seconds / test.seconds
    rows = [
        Row(
            f"RTF of min in int8 with {engine}, peer max in float32 with PyTorch",
            f"{parameters['min'] / 1e6:.2f} M parameters, peer {parameters['max'] / 1e6:.2f} M",
            candidates["min", INT8, engine].seconds / test.seconds,
            peer,
            "s/s",
            1 / 3,
        )
        for engine in (ONNXRUNTIME, SHERPA)
        if ("min", INT8, engine) in candidates
    ]
    print_table(rows)


if __name__ == "__main__":
    with one_line_errors():
        main()
