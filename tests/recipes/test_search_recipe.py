"""The search, and export --budget, on a tiny trained supernet."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML
from speechbrain.utils.edit_distance import accumulatable_wer_stats
from tiny import call

from todm_sb.bundle.bundle import read_bundle
from todm_sb.cli import main
from todm_sb.cli.latency import OF_TIMES
from todm_sb.dataio.manifest import read_csv, write_csv
from todm_sb.decoders.networks import search_networks
from todm_sb.inference import StreamingSubnetASR, SubnetASR
from todm_sb.search.pareto import SearchResult
from todm_sb.training.runs import dev_dataset, dev_utterances, load_run, relocate, run_tokenizer
from todm_sb.utils.errors import ConfigError


@pytest.fixture(scope="module")
def search():
    """Runs the search with these arguments."""
    return partial(call, "search")


@pytest.mark.parametrize("name", ["moved", "it's: a # place"])
def test_a_run_is_read_where_it_lies_now(tiny_run, tmp_path, name):
    run = shutil.copytree(tiny_run, tmp_path / name)
    hparams = load_run(run)
    assert str(hparams["checkpointer"].checkpoints_dir) == str(run / "save")
    for key in ("save_folder", "manifests", "tokenizer_folder", "train_csv", "valid_csv"):
        assert hparams[key].startswith(f"{run}/"), key
    assert load_run(run)["data_folder"] == load_run(tiny_run)["data_folder"]


def test_what_cells_share_is_found_beside_them(tmp_path):
    text = (
        "output_folder: results/cmp/supernet/1\n"
        "save_folder: results/cmp/supernet/1/save\n"
        "manifests: results/cmp/data/1/manifests\n"
        "data_folder: results/cmp/elsewhere\n"
    )
    (tmp_path / "cmp" / "data" / "1" / "manifests").mkdir(parents=True)
    found = YAML().load(relocate(text, tmp_path / "cmp" / "supernet" / "1"))
    assert dict(found) == {
        "output_folder": f"{tmp_path}/cmp/supernet/1",
        "save_folder": f"{tmp_path}/cmp/supernet/1/save",
        "manifests": f"{tmp_path}/cmp/data/1/manifests",
        "data_folder": "results/cmp/elsewhere",
    }


@pytest.mark.parametrize("run", ["results/own/1", "results/compare-own/supernet/1"])
def test_what_lies_where_training_was_started_moves_with_the_runs(tmp_path, run):
    text = f"output_folder: /gone/{run}\ntrain_csv: /gone/train.csv\nvalid_csv: /gone/dev"
    (tmp_path / "train.csv").touch()
    found = YAML().load(relocate(text, tmp_path / run))
    assert (found["train_csv"], found["valid_csv"]) == (f"{tmp_path}/train.csv", "/gone/dev")


def test_a_run_with_a_broken_yaml_is_named(tmp_path):
    (tmp_path / "hyperparams.yaml").write_text("output_folder: [", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"hyperparams\.yaml: while parsing"):
        load_run(tmp_path)


@pytest.fixture(scope="module")
def searched(search, tiny_run):
    search(tiny_run, "--evaluations", 5)
    return tiny_run


def test_the_error_rate_of_max_is_what_validation_says_of_these_weights(searched):
    # One checkpoint is averaged: that of the epoch with the lowest mean error rate.
    valid = [
        json.loads(line)["valid"] for line in (searched / "history.jsonl").read_text().splitlines()
    ]
    means = [sum(v for key, v in rates.items() if key.startswith("WER")) for rates in valid]
    best = [x["WER max"] for x, mean in zip(valid, means, strict=True) if mean == min(means)]
    found = SearchResult.load(searched / "search" / "params" / "pareto.json")
    (max_wer,) = (s.wer for s in found.subnets if s.config == found.space.max)
    assert any(max_wer == pytest.approx(wer) for wer in best)


def test_the_search_leaves_json_picture_and_page(searched):
    folder = searched / "search" / "params"
    found = SearchResult.load(folder / "pareto.json")
    assert {name: len(ids) for name, ids in found.methods.items()} == {
        "NSGA-II": 5,
        "random": 5,
        "evenly spaced": 3,
    }
    assert len(found.budgets) == 5
    assert (folder / "pareto.png").read_bytes().startswith(b"\x89PNG")
    assert found.front()[0].config.id in (folder / "pareto.html").read_text(encoding="utf-8")


def test_the_subnet_found_for_a_budget_is_exported_by_one_command(searched, tmp_path):
    found = SearchResult.load(searched / "search" / "params" / "pareto.json")
    smallest = min(s.costs["params"] for s in found.subnets)
    export = partial(call, "export", searched)
    export(tmp_path / "small", "--format=speechbrain", f"--budget={smallest}")
    asr = SubnetASR.from_hparams(tmp_path / "small")
    assert sum(p.numel() for p in asr.mods.encoder.model.parameters()) == smallest
    with pytest.raises(ConfigError, match="below the smallest subnet"):
        export(tmp_path / "none", "--budget=1k")
    with pytest.raises(ConfigError, match=r"pareto\.json does not exist: run todm-sb search"):
        export(tmp_path / "none", "--budget=80ms", "--cost=latency")


def test_the_causal_form_of_a_dual_mode_network_is_searched_and_exported(
    search, searched, tmp_path
):
    search(searched, "--causal", "--evaluations", 3, "--no-baselines")
    found = SearchResult.load(searched / "search" / "params-causal" / "pareto.json")
    both = SearchResult.load(searched / "search" / "params" / "pareto.json")
    (alone,) = (s for s in found.subnets if s.config == found.space.min)
    (of_both,) = (s for s in both.subnets if s.config == found.space.min)
    assert alone.costs["params"] < of_both.costs["params"]

    budget = f"--budget={alone.costs['params']}"
    call("export", searched, tmp_path / "small", "--format=speechbrain", budget, "--causal")
    network = StreamingSubnetASR.from_hparams(tmp_path / "small").mods.encoder.model
    assert network.encoder.modes == (True,)
    assert sum(p.numel() for p in network.parameters()) == alone.costs["params"]


def test_a_search_by_latency_measures_it_once(search, searched):
    arguments = ["--cost", "latency", "--seconds", 1, "--no-baselines"]
    search(searched, *arguments, "--evaluations", 2)
    path = searched / "search" / "latency" / "pareto.json"
    before = {s.config: s.costs["latency"] for s in SearchResult.load(path).subnets}
    search(searched, *arguments, "--evaluations", 3)
    after = {s.config: s.costs["latency"] for s in SearchResult.load(path).subnets}
    assert before.items() <= after.items()
    assert len(after) == 3


# A device: no PyTorch, nor anything else of the base install.
ON_THE_DEVICE = """
import sys
for name in ("torch", "torchaudio", "speechbrain", "sentencepiece", "ruamel", "tqdm", "onnx"):
    sys.modules[name] = None
from todm_sb.cli import main
sys.exit(main())
"""


@pytest.mark.slow
def test_a_device_times_the_probes_and_the_search_is_for_it(
    search, searched, tmp_path, monkeypatch
):
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    probes, table = tmp_path / "probes", tmp_path / "table.json"
    call("latency", searched, "--probes", probes)
    folders = sorted(map(str, probes.glob("*/*")))
    assert len(folders) == 8  # two depths, two widths, two precisions
    sizes = ["--out", str(table), "--seconds=1", "--repeats=1"]
    command = [sys.executable, "-c", ON_THE_DEVICE, "latency", *folders, *sizes]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count(" ms\n") == 8
    # So small a network's times are noise: those of a device on which they are not.
    data = json.loads(table.read_text())
    for m in data["measured"]:
        layer = {"float32": 2.0, "int8": 1.0}[m["probe"]["precision"]]
        m["latency"] = 3.0 + layer * sum(m["probe"]["subnet"]["ffn_dims"]) / 32
    table.write_text(json.dumps(data))
    asked = ["--latency-table", table, "--evaluations", 3, "--no-baselines", "--study", "device"]
    with pytest.raises(ConfigError, match="add --seconds 1"):
        search(searched, *asked)
    search(searched, *asked, "--seconds", 1)
    found = SearchResult.load(searched / "search" / "latency" / "device" / "pareto.json")
    assert len(found.subnets) == 3
    for s in found.subnets:
        assert s.costs["latency"] == pytest.approx(3.0 + 2.0 * sum(s.config["ffn_dims"]) / 32)
    with pytest.raises(ConfigError, match="of another latency"):
        search(searched, *asked[2:], "--cost=latency", "--seconds", 1)
    search(searched, *asked, "--seconds", 1, "--precision", "int8")
    found = SearchResult.load(searched / "search" / "latency-int8" / "device" / "pareto.json")
    assert found.precision == "int8"
    for s in found.subnets:
        assert s.costs["latency"] == pytest.approx(3.0 + sum(s.config["ffn_dims"]) / 32)
    monkeypatch.setattr("todm_sb.experiments.search_run.network_id", lambda *_: "f" * 16)
    with pytest.raises(ConfigError, match="of another network"):
        search(searched, *asked, "--seconds", 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "b", "--probes=c"], "name one"),
        (["a", "--causal"], "--causal is of --probes"),
        *((["a", "--probes=c", f"{x}=1"], f"{x} is of timing") for x in OF_TIMES),
        (["a", "--out=none/table.json"], "--out none/table.json is no place for a file"),
        (["a"], r"features\.onnx does not exist"),
    ],
)
def test_latency_says_what_is_wrong(arguments, message, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        call("latency", *arguments)


def test_a_search_by_bytes_in_8_bits(search, searched):
    search(searched, "--cost=bytes_int8", "--evaluations", 2, "--no-baselines")
    found = SearchResult.load(searched / "search" / "bytes_int8" / "pareto.json")
    assert found.budgets[-1] == max(s.costs["bytes_int8"] for s in found.subnets)


@pytest.fixture
def talkative(tiny_run, tmp_path, monkeypatch):
    """The run, but for its network's blank, which is so much less probable that another label is
    as probable in half of the frames."""
    hparams = load_run(tiny_run)
    dataset = dev_dataset(hparams, run_tokenizer(hparams))
    batch = next(dev_utterances(hparams, dataset, torch.device("cpu")))
    networks, blank = search_networks(hparams["model"]), hparams["model"].blank
    with torch.no_grad():
        encoded, _ = hparams["model"].encoder(batch.features, batch.n_features)
        predicted, _ = networks.predict(torch.full((len(encoded),), blank))
        logits = networks.join(networks.project_encoder(encoded), predicted.unsqueeze(1))
    lead = (logits[..., blank] - logits[..., blank + 1 :].amax(-1)).median()

    def load(*args):
        hparams = load_run(*args)
        with torch.no_grad():
            hparams["model"].joiner.output.bias[blank] -= lead
        return hparams

    for module in ("experiments.search_run", "export.run"):
        monkeypatch.setattr(f"todm_sb.{module}.load_run", load)
    # Other tests may have searched the run as it was.
    return shutil.copytree(tiny_run, tmp_path / "talkative", ignore=lambda *_: {"search"})


def heard(network, rows, capsys):
    """Texts of some utterances, as a device's command gives them."""
    capsys.readouterr()
    argv = ["transcribe", *(row.wav for row in rows), "--model", str(network)]
    assert main(argv) == 0
    return [line.partition("\t")[2] for line in capsys.readouterr().out.splitlines()]


def test_error_rates_in_8_bits_are_those_of_the_exported_networks(
    search, talkative, tmp_path, capsys
):
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    # What max says in float32 is what was said: of so small a network all else is wrong.
    export, dev_set = partial(call, "export", talkative), load_run(talkative)["valid_csv"]
    export(tmp_path / "exact", "--subnet=max", "--format=onnx")
    rows = read_csv(dev_set)
    texts = heard(tmp_path / "exact", rows, capsys)
    rows = [replace(row, wrds=text) for row, text in zip(rows, texts, strict=True)]
    write_csv(dev_set, rows)

    options = ["--cost=bytes_int8", "--evaluations", 2, "--no-baselines"]
    search(talkative, *options, "--precision=int8")
    assert capsys.readouterr().out.count("Networks in int8.") == 1
    search(talkative, *options)
    exact, small = (
        SearchResult.load(talkative / "search" / name / "pareto.json")
        for name in ("bytes_int8", "bytes_int8-int8")
    )
    assert (exact.precision, small.precision) == ("float32", "int8")
    for s in small.subnets:
        folder = tmp_path / s.config.id
        export(folder, f"--subnet={s.config.to_json()}", "--format=onnx-int8")
        sides = [row.wrds.split() for row in rows], [*map(str.split, heard(folder, rows, capsys))]
        assert s.wer == accumulatable_wer_stats(*sides)["WER"]
    rates = {s.config: s.wer for s in exact.subnets}
    assert any(s.wer != rates[s.config] for s in small.subnets)

    page = (talkative / "search" / "bytes_int8-int8" / "pareto.html").read_text(encoding="utf-8")
    assert "Error rates are of networks in int8." in page
    export(tmp_path / "all")
    recorded = {s.config: s.error_rates for s in read_bundle(tmp_path / "all").manifest.subnets}
    for result, name in ((exact, "WER"), (small, "WER-int8")):
        assert all(recorded[s.config][name] == s.wer for s in result.subnets)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cost=latency"], "for int8 add --latency-table"),
        (["--device=cuda"], "int8 run on the CPU: leave --device cuda out"),
    ],
)
def test_what_8_bits_do_not_go_with_is_told_first(search, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        search(tmp_path / "no run", "--precision=int8", *options)


def test_threads_are_those_of_a_table(search, tmp_path):
    with pytest.raises(ConfigError, match="--threads is of --latency-table FILE"):
        search(tmp_path / "no run", "--threads=4")


def test_another_algorithm_needs_a_study_of_its_own(search, searched):
    options = ["--algorithm", "local", "--evaluations", 4]
    with pytest.raises(ConfigError, match=r"of another algorithm \(nsga2, not local\).*--study"):
        search(searched, *options)
    search(searched, *options, "--study", "by steps")
    found = SearchResult.load(searched / "search" / "params" / "by steps" / "pareto.json")
    assert {name: len(ids) for name, ids in found.methods.items()} == {
        "local search": 4,
        "random": 4,
        "evenly spaced": 3,
    }


def test_an_unknown_algorithm_is_refused_before_anything_is_loaded(search, tmp_path):
    with pytest.raises(ConfigError, match="no search algorithm 'annealing'"):
        search(tmp_path / "no run", "--algorithm", "annealing")


def test_a_budget_below_the_smallest_subnet_is_refused(search, searched):
    with pytest.raises(ConfigError, match="budget 1 k is below the smallest subnet"):
        search(searched, "--budget", "1k")


def test_a_study_searched_within_another_budget_is_refused(search, searched, monkeypatch):
    monkeypatch.setattr("todm_sb.experiments.search_run._dev_set", None)  # before it is computed
    with pytest.raises(ConfigError, match=r"study 'params' was searched up to .*--study"):
        search(searched, "--budget", "1G", "--evaluations", 2)


@pytest.mark.parametrize(
    "option", [("--population", "1"), ("--evaluations", "1"), ("--seconds", "nan")]
)
def test_a_number_that_makes_no_sense_is_refused(search, tmp_path, capsys, option):
    with pytest.raises(SystemExit):
        search(tmp_path, *option)
    assert f"{option[0]}: must be" in capsys.readouterr().err


def test_a_device_that_is_not_there_is_refused(search, tiny_run):
    with pytest.raises(ConfigError, match="--device nonsense is not to be had"):
        search(tiny_run, "--device", "nonsense")


def test_broken_audio_of_the_dev_set_is_named(searched, tmp_path, caplog):
    hparams = load_run(searched)

    def n_read():
        dataset = dev_dataset(hparams, run_tokenizer(hparams))
        read = list(dev_utterances(hparams, dataset, torch.device("cpu")))
        return sum(len(x.words) for x in read), sum(len(x.undecodable) for x in read)

    sound, none = n_read()
    assert none == 0
    assert "cannot be decoded" not in caplog.text
    rows = read_csv(hparams["valid_csv"])
    damaged = Path(shutil.copy(rows[0].wav, tmp_path))
    data = bytearray(damaged.read_bytes())
    data[len(data) // 3 : 2 * len(data) // 3] = bytes(2 * len(data) // 3 - len(data) // 3)
    damaged.write_bytes(data)
    hparams["valid_csv"] = str(tmp_path / "dev.csv")
    write_csv(hparams["valid_csv"], [replace(rows[0], wav=str(damaged)), *rows[1:]])
    assert n_read() == (sound - 1, 1)
    assert f"{rows[0].ID} cannot be decoded, its words count as deleted" in caplog.text


def with_another_width(run, folder, width, other):
    """A copy of the run, but for one width of its search space."""
    copy = shutil.copytree(run, folder / "other")
    text = (run / "hyperparams.yaml").read_text(encoding="utf-8")
    changed = re.sub(
        rf"(search_space:.*?)\b{width}\b", rf"\g<1>{other}", text, count=1, flags=re.DOTALL
    )
    assert changed != text
    (copy / "hyperparams.yaml").write_text(changed, encoding="utf-8")
    return copy


def test_a_study_of_another_search_space_is_refused(search, searched, tmp_path):
    # The weights fit, the subnets do not.
    other = with_another_width(searched, tmp_path, 16, 8)
    storage = f"sqlite:///{searched / 'search' / 'params' / 'study.db'}"
    with pytest.raises(ConfigError, match="study 'params' is of another search space"):
        search(other, "--storage", storage)


def test_a_checkpoint_of_another_search_space_is_refused(search, searched, tmp_path):
    other = with_another_width(searched, tmp_path, 32, 48)
    with pytest.raises(ConfigError, match="the checkpoint is of another network or search space"):
        search(other)
