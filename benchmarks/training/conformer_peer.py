#!/usr/bin/env python3
"""SpeechBrain's Conformer transducer on the data of a recipe of ours, at as many parameters and
processor seconds: the peer of its largest subnet.

    cd benchmarks/training
    python conformer_peer.py ../../recipes/LibriSpeech/todm/hparams/mini_librispeech.yaml \\
        --data_folder=/path/to/LibriSpeech --test_splits='[test-clean]' --work=peer \\
        --against=RUN --tokenizer_folder=RUN/tokenizer

Its network, optimizer and schedule are those of SpeechBrain's recipe, in its proportions
(``peer_network.py``); tokenizer, features, augmentation, batches, greedy search and the average of
the best epochs are ours. It is trained at each learning rate, with the losses weighted as
SpeechBrain's recipe has it (CTC 0.3 for 0.6 of the time) and as ours has it; of each start the rate
with the lowest dev WER is tested, once. With ``--race=0.25`` rates are tried for a quarter of the
time, and that with the lowest dev CER goes on to the end, alone; of equal ones, that with the
lowest transducer loss. Every training has a folder below ``--work``: the same command goes on where
it was broken off, and what is finished is only read.
Several commands with different ``--starts`` or ``--rates``, the second begun when the first trains,
share the work; one with all of them then prints the table.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from peer_brain import STARTS, PeerBrain, build
from ruamel.yaml.scalarstring import DoubleQuotedScalarString as Text
from speechbrain.utils.run_opts import RunOptions

from todm_sb.dataio.split import Splits, manifests_of_tests, read_splits
from todm_sb.dataio.tokenizer import tokenizer_of
from todm_sb.experiments.compare.overrides import merge
from todm_sb.experiments.compare.results import Cost, Tested, compare_error_rates, read_tested
from todm_sb.experiments.compare.tables import difference_text
from todm_sb.training.arguments import parse_arguments
from todm_sb.training.recipe import Recipe
from todm_sb.training.settings import OPTIONAL, load_checked
from todm_sb.utils.arguments import at_least, positive
from todm_sb.utils.errors import ConfigError, one_line_errors
from todm_sb.utils.files import write_atomic
from todm_sb.utils.locks import FolderLock
from todm_sb.utils.tables import table_of

SETTINGS = "settings.json"


class Peer:
    """The trainings of the peer.

    Args:
        recipe: of ours.
        work: folder.
        size: arguments of the network.
        options: ``warmup_steps`` and ``seconds`` of each training, its ``device`` and its
            ``precision``.
        race: share of the time after which but one rate of each start goes on.
    """

    def __init__(
        self,
        recipe: Recipe,
        work: Path,
        size: dict[str, Any],
        options: dict[str, Any],
        race: float = 1.0,
    ) -> None:
        self.recipe, self.work, self.size, self.options = recipe, work, size, options
        self.race = race

    def folder(self, start: str, rate: float) -> Path:
        """Of a training."""
        return self.work / f"{start}-{rate:g}"

    def prepare(self, start: str, rate: float, share: float = 1.0) -> tuple[PeerBrain, Splits]:
        """A training, of a share of its time, and the data, which all of them share."""
        folder, data = self.folder(start, rate), self.work / "data"
        places = {
            "output_folder": Text(str(folder)),
            "manifests": Text(str(data / "manifests")),
        }
        if "tokenizer_folder" not in self.recipe.overrides:
            places["tokenizer_folder"] = Text(str(data / "tokenizer"))
        hparams = load_checked(Recipe(self.recipe.file, merge(self.recipe.overrides, places)))
        for prepare in hparams["prepare"]:
            prepare()
        tokenizer = tokenizer_of(hparams)
        own = {"start": start, "rate": rate, "share": share, "tokenizer": tokenizer}
        brain = build(hparams, folder, self.size, **own, **self.options)
        return brain, read_splits(hparams, tokenizer)

    def train(self, start: str, rate: float, share: float = 1.0) -> dict[str, Any]:
        """Trains for a share of the time, unless that is finished; what it took, and what it has on
        dev."""
        folder = self.folder(start, rate)
        finished = folder / f"finished-{share:g}.json"
        with FolderLock(folder):
            self._claim(folder)
            if not finished.exists():
                brain, splits = self.prepare(start, rate, share)
                brain.train(splits.train, splits.valid)
                found = {
                    "start": start,
                    "rate": rate,
                    "parameters": brain.modules.model.n_parameters(),
                    "steps": brain.optimizer_step,
                    "seconds": brain.stopwatch.seconds(),
                    "loss": brain.losses.means()["transducer"],
                    "dev": brain.measure(splits.valid),
                }
                write_atomic(finished, json.dumps(found))
            return json.loads(finished.read_text())

    def best(
        self, start: str, rates: Iterable[float]
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The finished training with the lowest dev WER or, of equal ones, loss, and the others:
        those that lost the race, after its share of the time, or all finished ones, where that is
        1."""
        raced = [self.train(start, rate, self.race) for rate in dict.fromkeys(rates)]
        # Words come late: early, letters tell more, and before any letter is right the loss does.
        key = "WER" if self.race == 1 else "CER"
        best, *others = sorted(raced, key=lambda found: (found["dev"][key], found["loss"]))
        return self.train(start, best["rate"]), others

    def test(self, start: str, rate: float) -> dict[str, Any]:
        """What a finished training has on each test split."""
        folder = self.folder(start, rate)
        with FolderLock(folder):
            if not (folder / "tested.json").exists():
                brain, splits = self.prepare(start, rate)
                found = {name: brain.measure(data) for name, data in splits.tests.items()}
                write_atomic(folder / "tested.json", json.dumps(found))
            return json.loads((folder / "tested.json").read_text())

    def _claim(self, folder: Path) -> None:
        """Takes down what a training is of, or checks it."""
        wanted = {
            "overrides": {key: str(value) for key, value in self.recipe.overrides.items()},
            "size": self.size,
            # One that went on cannot be measured as it was at another share of its time.
            "race": self.race,
            **self.options,
        }
        wanted = json.loads(json.dumps(wanted))
        path = folder / SETTINGS
        if not path.exists():
            write_atomic(path, json.dumps(wanted, indent=1))
        was = json.loads(path.read_text())
        changed = [key for key in wanted if was.get(key) != wanted[key]]
        if changed:
            key = changed[0]
            raise ConfigError(
                f"{folder}: {key} was {was.get(key)}, is {wanted[key]}: give another --work"
            )


def tested_of(found: dict[str, Any]) -> Tested:
    """What :meth:`peer_brain.PeerBrain.measure` gave, to be compared."""
    columns = (found[key] for key in ("words of", "errors", "speakers"))
    return Tested(*(dict(zip(found["utterance"], x, strict=True)) for x in columns))


def against(run: Path, split: str, found: dict[str, Any]) -> dict[str, Any]:
    """Our largest subnet beside the peer, which is the other; the bootstrap is over speakers.

    Args:
        run: of ours.
        split: of both.
        found: the peer's.
    """
    return compare_error_rates({0: [(read_tested(run, split), tested_of(found))]})


def check_tested(run: Path | None, splits: Iterable[str]) -> None:
    """Checks before the first training that the last table can be made.

    Raises:
        ConfigError: if our run was not tested on one of the splits.
    """
    for split in splits if run is not None else []:
        if not (run / f"results_{split}.json").is_file():
            raise ConfigError(f"{run} was not tested on {split}: give other --test_splits")


def followed(options: RunOptions) -> dict[str, str | None]:
    """Device and precision of the peer; no precision for the recipe's.

    Args:
        options: of SpeechBrain, as the command line has them.

    Raises:
        ConfigError: if there is another that would change what comes out.
    """
    given = {*options.overridden_args}
    for name in sorted(given - {"device", "precision", "noprogressbar"}):
        raise ConfigError(f"--{name} is nothing that the peer follows: leave it out")
    precision = options.precision if "precision" in given else None
    if precision is not None:
        OPTIONAL["precision"](precision, "--precision")
    return {"device": options.device or "cpu", "precision": precision}


def row_of(trained: dict[str, Any], tested: dict[str, Any], run: Path | None) -> dict[str, str]:
    """A line of the table."""
    row = {
        "start": trained["start"],
        "rate": f"{trained['rate']:g}",
        "parameters": f"{trained['parameters'] / 1e6:.2f} M",
        "steps": str(trained["steps"]),
        "training, processor s": f"{trained['seconds']['train']['processor']:.0f}",
        "dev WER %": f"{trained['dev']['WER']:.2f}",
    }
    for split, found in tested.items():
        row[f"{split} WER / CER %"] = f"{found['WER']:.2f} / {found['CER']:.2f}"
        if run is not None:
            compared = against(run, split, found)
            interval = difference_text(compared["relative difference"])
            over = f"over {compared['units']} {compared['unit']}"
            row[f"{split}, ours (max), WER %"] = f"{compared['WER']:.2f}"
            row[f"{split}, ours to it, %, {over}"] = interval
    return row


def share(text: str) -> float:
    """A share of the time: above 0, at most 1."""
    value = positive(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text} is more than all of the time, 1")
    return value


def parse() -> tuple[argparse.Namespace, list[str]]:
    """The arguments, and the overrides of the recipe."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("hparams", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="where the trainings go")
    parser.add_argument("--against", type=Path, help="a run of the recipe; as long as it")
    parser.add_argument(
        "--processor_seconds", type=positive, help="of each training; default: of --against"
    )
    parser.add_argument("--rates", nargs="+", type=positive, default=[0.0005, 0.001, 0.002])
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=list(STARTS))
    parser.add_argument(
        "--race",
        type=share,
        default=1.0,
        help="share of the time after which but one rate of each start goes on; default: 1",
    )
    parser.add_argument("--warmup_steps", type=at_least(1), default=300, help="default: 300")
    parser.add_argument("--d_model", type=at_least(1), default=112, help="default: 112")
    parser.add_argument("--n_layers", type=at_least(1), default=12, help="default: 12")
    parser.add_argument("--n_heads", type=at_least(1), default=4, help="default: 4")
    parser.add_argument("--strides", nargs=2, type=at_least(1), default=[2, 2])
    parser.add_argument("--no_test", action="store_true", help="leave the test sets alone")
    arguments, others = parser.parse_known_args()
    if arguments.processor_seconds is None:
        if arguments.against is None:
            raise ConfigError("how long? give --processor_seconds, or --against a run of ours")
        arguments.processor_seconds = Cost.read(arguments.against).processor
    if arguments.d_model % arguments.n_heads:
        raise ConfigError(f"--d_model={arguments.d_model} is not for {arguments.n_heads} heads")
    return arguments, others


def main() -> None:
    with one_line_errors():
        arguments, others = parse()
        recipe, options = parse_arguments([str(arguments.hparams), *others])
        run_options = followed(options)
        check_tested(arguments.against, manifests_of_tests(recipe.settings()))
        size = {key: getattr(arguments, key) for key in ("d_model", "n_layers", "n_heads")}
        peer = Peer(
            recipe,
            arguments.work.resolve(),
            {**size, "strides": tuple(arguments.strides)},
            {
                "warmup_steps": arguments.warmup_steps,
                "seconds": arguments.processor_seconds,
                **run_options,
            },
            arguments.race,
        )
        rows = []
        for start in dict.fromkeys(arguments.starts):
            best, others = peer.best(start, dict.fromkeys(arguments.rates))
            tested = {} if arguments.no_test else peer.test(start, best["rate"])
            rows.append(row_of(best, tested, arguments.against))
            rows += [row_of(found, {}, None) for found in others]
        keys = list(dict.fromkeys(key for row in rows for key in row))
        print(table_of([{key: row.get(key, "-") for key in keys} for row in rows]))


if __name__ == "__main__":
    main()
