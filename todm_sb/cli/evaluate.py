"""``todm-sb evaluate``: error rates of networks on any test set.

todm-sb evaluate exported/all test-clean.csv test-other.csv --subnet max --subnet min
todm-sb evaluate results/mini/1234 test.csv --against exported/other --output scores/

MODEL is a bundle, here or on the Hub, or the folder of a training run, which is trusted (its
hyperparams.yaml can run code) and left as it is; transcripts get the letter case that it was
trained with. Differences are relative to the first network,
with the 95 % interval of a paired bootstrap over speakers or, where the manifest tells none,
utterances.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from todm_sb.bundle.bundle import MANIFEST, read_manifest
from todm_sb.cli.cutting import cutting_of
from todm_sb.cli.main import FAILED, OK
from todm_sb.cli.reading import add_reading_arguments, reading_of
from todm_sb.cli.recogniser import add_search_arguments, decoding_of, load
from todm_sb.dataio.reading import AS_WRITTEN, Reading
from todm_sb.dataio.reading import reading_of as reading_of_recipe
from todm_sb.dataio.text import printable
from todm_sb.experiments.evaluation import Evaluated, EvaluationSet, evaluate, records_of, rows_of
from todm_sb.inference import SubnetASR
from todm_sb.space import SubnetConfig
from todm_sb.supernet import count_parameters
from todm_sb.training.recipe import RECIPE, Recipe
from todm_sb.utils.arguments import check_given_with, path
from todm_sb.utils.errors import ConfigError
from todm_sb.utils.hub import is_of_hub, model_folder
from todm_sb.utils.own_files import check_own, write_own
from todm_sb.utils.progress import bar
from todm_sb.utils.tables import scored_text, table_of


class _Wanted(NamedTuple):
    """A network to measure.

    Args:
        place: see :mod:`todm_sb.cli.evaluate`.
        subnet: that was asked for, if any was.
        called: what tells it from others of the place: the subnet, or what there is without one.
    """

    place: str
    subnet: str | None
    called: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``evaluate``."""
    parser.add_argument(
        "model", help="folder of a bundle or of a training run, or org/model[@revision] of the Hub"
    )
    parser.add_argument(
        "manifests", nargs="+", type=path, metavar="manifest", help="CSV or JSON of a test set"
    )
    add_reading_arguments(parser)
    parser.add_argument(
        "--subnet", action="append", help="name, max, min, or JSON of a config; several (max)"
    )
    parser.add_argument("--against", metavar="MODEL", help="to compare with")
    parser.add_argument("--against-subnet", metavar="SUBNET", help="of that one (max)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--alignments", action="store_true", help="print the alignment of each utterance"
    )
    form.add_argument("--json", action="store_true", help="print an object a test set")
    parser.add_argument(
        "--output", type=path, metavar="DIR", help="write results, errors and alignments"
    )
    add_search_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Decodes all test sets with all networks.

    Returns:
        The exit code: 1 if an utterance could not be decoded.

    Raises:
        ConfigError: if a network cannot be loaded, or options do not fit together.
        DataError: if a manifest is none.
    """
    check_given_with(arguments, "--against MODEL", "--against-subnet")
    reading = reading_of(arguments, _own_reading(arguments))
    test_sets = [EvaluationSet.read(x, reading) for x in arguments.manifests]
    names = [test_set.name for test_set in test_sets]
    if len(set(names)) < len(names):
        raise ConfigError("two manifests have the same name: rename one")
    wanted = _wanted(arguments)
    labels = _labels(wanted, bool(arguments.against))
    if arguments.output:
        files = [x for name in names for x in _files(name, labels)]
        if twice := [x for i, x in enumerate(files) if x in files[:i]]:
            raise ConfigError(
                f"--output would write {twice[0]} twice: leave out a subnet, or rename a manifest"
            )
        check_own(arguments.output, files)
    decoding = decoding_of(arguments)
    evaluated: dict[str, list[Evaluated]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as temporary:
        # All before any is decoded with, so that a mistake in the last one costs nothing.
        networks = {name: _load(x, arguments, Path(temporary)) for name, x in wanted.items()}
        recognisers = {name: asr.recogniser(decoding) for name, asr in networks.items()}
        for test_set in test_sets:
            test_set.check_words({name: asr.tokenizer for name, asr in networks.items()})
        if arguments.output:
            arguments.output.mkdir(parents=True, exist_ok=True)
        for name, asr in networks.items():
            for test_set in test_sets:
                shown = partial(bar, total=len(test_set.sources), desc=test_set.name, unit="utt")
                found = evaluate(
                    name, recognisers[name], asr.tokenizer, test_set, cutting_of(arguments), shown
                )
                evaluated[test_set.name].append(found)
    parameters = {name: count_parameters(x.mods.encoder.model) for name, x in networks.items()}
    records = {
        name: {"test set": name, "networks": records_of(of_set, parameters)}
        for name, of_set in evaluated.items()
    }
    for name, of_set in evaluated.items():
        _show(records[name], of_set, arguments)
    if arguments.output:
        for name, of_set in evaluated.items():
            texts = [json.dumps(records[name], indent=1) + "\n", *map(_alignments, of_set)]
            written = zip(_files(name, labels), texts, strict=True)
            write_own(arguments.output, {key: text.encode() for key, text in written})
    return FAILED if any(x.faults for of_set in evaluated.values() for x in of_set) else OK


def _wanted(arguments: argparse.Namespace) -> dict[str, _Wanted]:
    """The networks by name; the one to compare with is first."""
    wanted = [(arguments.model, subnet) for subnet in arguments.subnet or [None]]
    if arguments.against:
        wanted.insert(0, (arguments.against, arguments.against_subnet))
    named: dict[str, _Wanted] = {}
    for place, subnet in wanted:
        called = subnet or _whole(place, arguments.trusted)
        name = f"{place} {called}" if arguments.against else called
        if name in named:
            raise ConfigError(f"{name} is named twice: leave one")
        named[name] = _Wanted(place, subnet, called)
    return named


def _whole(place: str, trusted: bool) -> str:
    """What a network is called of which no subnet is asked for: max, or, of one that has no others,
    the name that a bundle records or that of the folder."""
    folder = model_folder(place)
    if (folder / MANIFEST).exists():
        manifest = read_manifest(folder)
        return "max" if manifest.space else manifest.subnets[0].name
    exported = trusted and (folder / RECIPE).is_file() and not _is_run(folder)
    if not exported or "space" in Recipe(folder / RECIPE).settings():
        return "max"
    return Path(place).name if is_of_hub(place) else folder.resolve().name


def _labels(wanted: dict[str, _Wanted], against: bool) -> list[str]:
    """What files call the networks, in this order: by their subnets, one of JSON by its id."""
    subnets = [network.called for network in wanted.values()]
    labels = [SubnetConfig.from_json(x).id if x.lstrip()[:1] == "{" else x for x in subnets]
    labels = ["".join(c if c.isalnum() or c in "-." else "_" for c in label) for label in labels]
    if against:
        labels[0] = f"against_{labels[0]}"
    return labels


def _files(test_set: str, labels: Sequence[str]) -> list[str]:
    """Names of the files of a test set: the rates, and the alignments of each network. Those of a
    run's own tests are called otherwise, as it may be its folder."""
    alignments = (f"alignments_{test_set}_{label}.txt" for label in labels)
    return [f"evaluation_{test_set}.json", *alignments]


def _load(network: _Wanted, arguments: argparse.Namespace, temporary: Path) -> SubnetASR:
    place, subnet, _ = network
    bundle = place if is_of_hub(place) else _bundle_of(model_folder(place), temporary)
    try:
        return load(bundle, subnet, device=arguments.device, trusted=arguments.trusted)
    except ConfigError as error:  # a run's bundle is nothing that the user knows of
        raise ConfigError(str(error).replace(f"bundle {bundle}", place)) from None


def _is_run(folder: Path) -> bool:
    return (folder / RECIPE).is_file() and (folder / "history.jsonl").exists()


def _own_reading(arguments: argparse.Namespace) -> Reading:
    """How the runs among the networks read transcripts, but for their column: a test set can have
    another one.

    Raises:
        ConfigError: if MODEL and that of ``--against`` are two that read them differently.
    """
    places = [x for x in (arguments.model, arguments.against) if x and not is_of_hub(x)]
    runs = [x for x in places if _is_run(model_folder(x))]
    readings = [reading_of_recipe(Recipe(model_folder(x) / RECIPE).settings()) for x in runs]
    cases = [x.letter_case for x in readings]
    if len(set(cases)) > 1 and arguments.letter_case is None:
        told = " and ".join(f"{x} with {case}" for x, case in zip(runs, cases, strict=True))
        raise ConfigError(f"{told} letters were trained: say by --letter-case what both are to get")
    return replace(readings[0], text_column=None) if readings else AS_WRITTEN


def _bundle_of(folder: Path, temporary: Path) -> Path:
    """The folder itself, or a bundle of the run in it, made elsewhere."""
    if not _is_run(folder):
        return folder
    from todm_sb.export.run import export_run

    target = temporary / str(abs(hash(folder.resolve())))
    if not target.exists():
        print(f"loading {folder}", file=sys.stderr)
        export_run(folder, target)
    return target


def _show(record: dict[str, Any], found: list[Evaluated], arguments: argparse.Namespace) -> None:
    for fault in dict.fromkeys(fault for x in found for fault in x.faults):
        print(f"error: {printable(fault)}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(record))
        return
    print(f"{record['test set']}\n\n{table_of(rows_of(record['networks']))}\n")
    print(f"{scored_text(found[0].scored)}\n")
    if arguments.alignments:
        for x in found:
            print(f"{x.name}\n{_alignments(x)}")


def _alignments(x: Evaluated) -> str:
    file = StringIO()
    x.errors.words[x.name].write_stats(file)
    return file.getvalue()
