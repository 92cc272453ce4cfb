import json
import os
import shutil
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import ModelCard

from todm_sb.bundle.bundle import read_bundle
from todm_sb.cli import OK, main
from todm_sb.decoders.transducer import TransducerSearcher
from todm_sb.export import run as run_module
from todm_sb.export.model_card import IN_FLOAT
from todm_sb.export.run import FORMATS, export_run
from todm_sb.inference import StreamingSubnetASR, SubnetASR
from todm_sb.nnet.features import make_fbank
from todm_sb.search.pareto import Evaluated, SearchResult
from todm_sb.supernet import SubnetConfig, count_parameters
from todm_sb.training.runs import weights_id
from todm_sb.utils.errors import ConfigError
from todm_sb.web.models import find_models

NAMED = SubnetConfig((0, 2), ffn_dims=(12, 6))
FOUND = SubnetConfig((1,), ffn_dims=(12,))
WEIGHTS = "of the run"
SCORED = {"utterances": 20, "words": 99, "undecodable": 2, "left_out": {"empty transcript": 1}}


@pytest.fixture
def run(bundle_parts, tmp_path, monkeypatch):
    """Folder of a trained run with one named subnet, whose training is skipped."""
    parts = bundle_parts
    hparams = {
        "model": parts["model"],
        "weights": WEIGHTS,
        "space": parts["space"],
        "normalize": parts["normalize"],
        "features": SimpleNamespace(hop=160, fbank=make_fbank(**parts["fbank"])),
        "max_symbols": parts["max_symbols"],
        "tokenizer_folder": str(tmp_path / "tokenizer"),
        "vocab_size": 17,
        "tokenizer_type": "char",
        "named_subnets": {"named": NAMED.to_dict()},
        "train_csv": str(tmp_path / "train.csv"),
        "valid_csv": str(tmp_path / "dev.csv"),
        "max_duration": 20.0,
    }

    def load_run(folder, causal=False):
        return {**hparams, "model": hparams["model"].causal_form()} if causal else hparams

    monkeypatch.setattr(run_module, "load_run", load_run)
    (tmp_path / "run").mkdir()
    (tmp_path / "tokenizer").mkdir()
    # Another that was tried lies beside that of the run.
    (tmp_path / "tokenizer" / "17_bpe.model").write_bytes(b"another")
    shutil.copy(parts["tokenizer_path"], tmp_path / "tokenizer" / "17_char.model")
    return tmp_path / "run"


def leave_results(folder, results, weights=WEIGHTS, split="test"):
    """Leaves what a test leaves."""
    results = [{**SCORED, **result, "weights": weights} for result in results]
    (folder / f"results_{split}.json").write_text(json.dumps(results))


def search(
    folder,
    parts,
    wers,
    latencies=None,
    seconds=10.0,
    checkpoint=None,
    study="",
    dev_set="of the run",
    scored=None,
    precision="float32",
    decoding=5,
):
    """Leaves what search.py leaves."""
    cost = "latency" if latencies else "params"
    measured = [{"latency": seconds} for seconds in latencies or ()] or [{}] * len(wers)
    found = tuple(
        Evaluated(c, wer, {"params": count_parameters(parts["model"], c), "macs": 7.0, **own})
        for (c, wer), own in zip(wers.items(), measured, strict=True)
    )
    named = cost if precision == "float32" else f"{cost}-{precision}"
    place = folder / "search" / named / study
    place.mkdir(parents=True, exist_ok=True)
    methods = {"nsga2": tuple(s.config.id for s in found)}
    checkpoint = checkpoint or weights_id(parts["model"])
    names = {"checkpoint": checkpoint, "dev_set": dev_set, "scored": scored or SCORED}
    names |= {"precision": precision, "decoding": decoding}
    SearchResult(cost, seconds, parts["space"], found, methods, **names).save(place / "pareto.json")


def test_a_supernets_bundle_records_the_results_of_its_test(run, bundle_parts, tmp_path):
    results = [
        {"subnet": "max", **bundle_parts["space"].max.to_dict(), "WER": 1.5, "CER": 1.0},
        {"subnet": "named", **NAMED.to_dict(), "WER": 2.5, "CER": 2.0},
    ]
    leave_results(run, results)
    params = export_run(run, tmp_path / "all")
    manifest = read_bundle(tmp_path / "all").manifest
    assert params == count_parameters(bundle_parts["model"], bundle_parts["space"].max)
    assert {s.name: s.error_rates for s in manifest.subnets} == {
        "max": {"WER": 1.5, "CER": 1.0},
        "min": {},
        "named": {"WER": 2.5, "CER": 2.0},
    }
    named = count_parameters(bundle_parts["model"], NAMED)
    assert manifest.choose(max_params=named) == NAMED


def test_a_bundle_records_what_its_error_rates_are_of(run, bundle_parts, tmp_path, capsys):
    shape = bundle_parts["space"].max.to_dict()
    results = [{"subnet": "max", **shape, "WER": 1.5, "CER": 1.0}]
    leave_results(run, results)
    export_run(run, tmp_path / "all")
    scored = {s.name: s.scored for s in read_bundle(tmp_path / "all").manifest.subnets}
    assert scored == {"max": SCORED, "min": None, "named": None}
    assert main(["inspect", str(tmp_path / "all")]) == OK
    assert (
        "Error rates of 20 utterances, 99 words; 2 of them could not be decoded, their words count "
        "as deleted; 1 left out: empty transcript."
    ) in capsys.readouterr().out
    # Of a search, the dev set's.
    space, of_search = bundle_parts["space"], {**SCORED, "left_out": {}}
    search(run, bundle_parts, {space.max: 3.0}, scored=of_search)
    export_run(run, tmp_path / "searched")
    scored = {s.name: s.scored for s in read_bundle(tmp_path / "searched").manifest.subnets}
    assert scored == {"max": of_search, "min": None, "named": None}


def test_a_bundle_records_the_error_rates_of_both_modes(
    run, bundle_parts, make_transducer, tmp_path
):
    options = {**bundle_parts["model"].config["encoder"], "dual_mode": True}
    run_module.load_run(run)["model"] = make_transducer(vocab_size=17, **options)
    shape = bundle_parts["space"].max.to_dict()
    results = [
        {"subnet": "max", **shape, "causal": False, "WER": 1.5, "CER": 1.0},
        {"subnet": "max-causal", **shape, "causal": True, "WER": 2.5, "CER": 2.0},
    ]
    leave_results(run, results)
    export_run(run, tmp_path / "all")
    rates = {s.name: s.error_rates for s in read_bundle(tmp_path / "all").manifest.subnets}
    assert rates["max"] == {"WER": 1.5, "CER": 1.0, "WER-causal": 2.5, "CER-causal": 2.0}
    assert SubnetASR.from_bundle(tmp_path / "all").mods.encoder.model.encoder.modes == (False, True)
    streaming = StreamingSubnetASR.from_bundle(tmp_path / "all", subnet="min")
    assert streaming.mods.encoder.model.encoder.modes == (True,)
    assert (
        streaming.mods.encoder.model.encoder.dimensions["ffn_dims"]
        == bundle_parts["space"].min["ffn_dims"]
    )

    target = tmp_path / "causal"
    assert main(["export", str(run), str(target), "--subnet", "max", "--causal"]) == OK
    (alone,) = read_bundle(target).manifest.subnets
    assert alone.error_rates == {"WER": 2.5, "CER": 2.0}
    loaded = read_bundle(target).model
    assert loaded.encoder.modes == (True,)
    both = count_parameters(run_module.load_run(run)["model"], bundle_parts["space"].max)
    assert alone.cost["params"] == sum(p.numel() for p in loaded.parameters()) < both


def test_a_supernets_bundle_records_what_a_search_found(run, bundle_parts, tmp_path):
    space = bundle_parts["space"]
    search(run, bundle_parts, {space.max: 3.0, space.min: 9.0, FOUND: 4.0})
    export_run(run, tmp_path / "all")
    subnets = {s.name: s for s in read_bundle(tmp_path / "all").manifest.subnets}
    assert list(subnets) == ["max", "min", "named", FOUND.id]
    assert subnets[FOUND.id].error_rates == {"WER": 4.0}
    assert subnets[FOUND.id].cost["macs"] == 7.0
    assert subnets["named"].error_rates == {}


def test_a_test_on_the_dev_set_hides_nothing_that_a_search_found(run, bundle_parts, tmp_path):
    space = bundle_parts["space"]
    search(run, bundle_parts, {space.max: 3.0, space.min: 9.0, FOUND: 4.0})
    leave_results(run, RESULTS, split="dev")
    export_run(run, tmp_path / "all")
    rates = {s.name: s.error_rates for s in read_bundle(tmp_path / "all").manifest.subnets}
    assert rates == {"max": {"WER": 3.0}, "min": {"WER": 9.0}, "named": {}, FOUND.id: {"WER": 4.0}}


def test_a_bundle_knows_the_latencies_that_a_search_measured(run, bundle_parts, tmp_path):
    space = bundle_parts["space"]
    search(run, bundle_parts, {space.max: 3.0, space.min: 9.0})
    search(run, bundle_parts, {space.max: 3.0, FOUND: 4.0}, [0.05, 0.02])
    export_run(run, tmp_path / "all")
    manifest = read_bundle(tmp_path / "all").manifest
    latencies = {s.name: s.cost.get("latency") for s in manifest.subnets}
    assert latencies == {"max": 0.05, "min": None, "named": None, FOUND.id: 0.02}
    params = count_parameters(bundle_parts["model"], FOUND)
    assert manifest.choose(max_params=params, max_latency_ms=30) == FOUND


def test_latencies_that_are_of_something_else_are_left_out(run, bundle_parts, tmp_path):
    space = bundle_parts["space"]
    search(run, bundle_parts, {space.max: 3.0, space.min: 9.0}, [0.05, 0.02])
    other = {space.max: 3.0, FOUND: 4.0}
    search(run, bundle_parts, other, [0.01, 0.001], precision="int8")
    search(run, bundle_parts, other, [0.5, 0.2], study="of another device")
    export_run(run, tmp_path / "all")
    latencies = {
        s.name: s.cost.get("latency") for s in read_bundle(tmp_path / "all").manifest.subnets
    }
    assert latencies == {"max": 0.05, "min": 0.02, "named": None, FOUND.id: None}


def test_where_only_rates_in_8_bits_are_known_they_choose(run, bundle_parts, tmp_path):
    space = bundle_parts["space"]
    wers = {space.max: 5.0, space.min: 9.0, FOUND: 4.0}
    search(run, bundle_parts, wers, precision="int8")
    export_run(run, tmp_path / "all")
    assert read_bundle(tmp_path / "all").manifest.choose(max_params=10**9) == FOUND


def test_multiply_accumulates_of_another_audio_length_are_left_out(run, bundle_parts, tmp_path):
    space = bundle_parts["space"]
    search(run, bundle_parts, {space.max: 3.0, space.min: 9.0})
    search(run, bundle_parts, {space.max: 3.0, FOUND: 4.0}, [0.05, 0.02], seconds=2.0)
    export_run(run, tmp_path / "all")
    macs = {s.name: s.cost.get("macs") for s in read_bundle(tmp_path / "all").manifest.subnets}
    assert macs == {"max": 7.0, "min": 7.0, "named": None, FOUND.id: None}


@pytest.mark.parametrize("weights", ["before the run went on", None])
def test_results_of_other_weights_are_left_out(run, bundle_parts, tmp_path, caplog, weights):
    shape = bundle_parts["space"].max.to_dict()
    leave_results(run, [{"subnet": "max", **shape, "WER": 1.5, "CER": 1.0}], weights, "a")
    export_run(run, tmp_path / "all")
    assert all(not s.error_rates for s in read_bundle(tmp_path / "all").manifest.subnets)
    assert "results_a.json does not say that it is of the run's best weights" in caplog.text
    leave_results(run, [{"subnet": "max", **shape, "WER": 2.5, "CER": 2.0}], split="b")
    export_run(run, tmp_path / "again")
    rates = {s.name: s.error_rates for s in read_bundle(tmp_path / "again").manifest.subnets}
    assert rates["max"] == {"WER": 2.5, "CER": 2.0}


MINE = "--searcher='!name:todm_sb.decoders.transducer.TransducerSearcher {max_symbols: 2}'"


@pytest.mark.parametrize(
    ("other", "mend"),
    [
        ({"beam_size": 4}, "--beam_size=1"),
        ({"beam_size": 4, "max_symbols": 5}, "--beam_size=1 --max_symbols=2"),
        ({"searcher": "Mine"}, MINE),
    ],
)
def test_results_of_another_search_than_is_exported_are_left_out(
    run, bundle_parts, tmp_path, caplog, other, mend
):
    exported = {"searcher": "TransducerSearcher", "beam_size": 1, "max_symbols": 2}
    result = {"subnet": "max", **bundle_parts["space"].max.to_dict(), "WER": 1.5, "CER": 1.0}
    leave_results(run, [{**result, "decoding": {**exported, **other}}], split="a")
    leave_results(run, [{**result, "decoding": exported, "WER": 2.5}], split="b")
    export_run(run, tmp_path / "all")
    assert read_bundle(tmp_path / "all").manifest.subnets[0].error_rates["WER"] == 2.5
    (key, value), *_ = other.items()
    assert f"{key} {value}" in caplog.text
    assert f"it is left out; to test that, train.py --test_only {mend}\n" in caplog.text


def test_an_export_takes_as_many_labels_a_frame_as_the_runs_own_searcher(run, tmp_path):
    searcher = partial(TransducerSearcher, max_symbols=1, beam_size=4)
    run_module.load_run(run)["searcher"] = searcher
    export_run(run, tmp_path / "all")
    assert read_bundle(tmp_path / "all").manifest.max_symbols == 1


def test_error_rates_of_searches_on_two_dev_sets_are_not_mixed(run, bundle_parts, tmp_path, caplog):
    space = bundle_parts["space"]
    search(run, bundle_parts, {space.max: 3.0, FOUND: 4.0})
    search(run, bundle_parts, {space.max: 30.0, space.min: 90.0}, [0.05, 0.02], dev_set="other")
    os.utime(run / "search" / "params" / "pareto.json", (0, 0))
    export_run(run, tmp_path / "all")
    rates = {s.name: s.error_rates for s in read_bundle(tmp_path / "all").manifest.subnets}
    assert rates == {"max": {"WER": 30.0}, "min": {"WER": 90.0}, "named": {}}
    assert "params/pareto.json is of another dev set" in caplog.text


def test_a_search_of_other_weights_is_not_used(run, bundle_parts, tmp_path, caplog):
    search(run, bundle_parts, {bundle_parts["space"].max: 3.0, FOUND: 4.0}, checkpoint="other")
    export_run(run, tmp_path / "all")
    assert all(not s.error_rates for s in read_bundle(tmp_path / "all").manifest.subnets)
    assert "is of other weights than the run's best: it is left out" in caplog.text
    with pytest.raises(ConfigError, match=r"pareto\.json is of other weights .* search again"):
        export_run(run, tmp_path / "one", budget="5M")


def test_each_study_is_exported_from_by_its_name(run, bundle_parts, tmp_path):
    space = bundle_parts["space"]
    search(run, bundle_parts, {space.max: 3.0, space.min: 9.0}, checkpoint="other")
    search(run, bundle_parts, {space.max: 3.0, FOUND: 4.0}, study="s2")
    budget = str(count_parameters(bundle_parts["model"], FOUND))
    command = ["export", str(run), str(tmp_path / "one"), "--budget", budget]
    assert main([*command, "--study", "s2"]) == OK
    assert read_bundle(tmp_path / "one").manifest.subnets[0].config == FOUND
    with pytest.raises(SystemExit):
        main(command)


def test_a_supernets_bundle_has_what_all_studies_of_one_dev_set_found(
    run, bundle_parts, tmp_path, caplog
):
    space = bundle_parts["space"]
    search(run, bundle_parts, {NAMED: 1.0}, study="s3", dev_set="another")
    search(run, bundle_parts, {space.max: 3.0, FOUND: 4.0})
    search(run, bundle_parts, {space.min: 1.0}, study="s4", decoding=1)
    search(run, bundle_parts, {space.min: 2.0}, study="s2")
    export_run(run, tmp_path / "all")
    rates = {
        s.name: s.error_rates.get("WER") for s in read_bundle(tmp_path / "all").manifest.subnets
    }
    assert rates == {"max": 3.0, "min": 2.0, "named": None, FOUND.id: 4.0}
    assert "s3/pareto.json is of another dev set than" in caplog.text
    assert "s4/pareto.json is of another decoding than" in caplog.text


def test_a_network_in_8_bits_is_of_the_search_that_measured_such(run, bundle_parts, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    space, params = bundle_parts["space"], partial(count_parameters, bundle_parts["model"])
    search(run, bundle_parts, {space.max: 3.0, FOUND: 3.0})

    def chosen(form):
        folder = tmp_path / form
        export_run(run, folder, budget="5M", form=form)
        return (folder / "README.md").read_text(encoding="utf-8")

    assert FOUND.id in chosen("onnx-int8")
    search(run, bundle_parts, {space.max: 3.5, FOUND: 4.0}, precision="int8")
    card = chosen("onnx-int8")
    assert f"{params(space.max):,}" in card
    assert "3.50" in card
    assert IN_FLOAT in card
    assert FOUND.id in chosen("onnx")
    export_run(run, tmp_path / "all")
    rates = {s.config: s.error_rates for s in read_bundle(tmp_path / "all").manifest.subnets}
    assert rates[FOUND] == {"WER": 3.0, "WER-int8": 4.0}


def test_nothing_is_exported_over_a_run_or_a_file(run, tmp_path):
    (run / "history.jsonl").touch()
    (tmp_path / "file").touch()
    for target in (run, tmp_path, tmp_path / "file", tmp_path / "file" / "x"):
        with pytest.raises(ConfigError, match="no place for an export"):
            export_run(run, target, "min")
    assert [path.name for path in run.iterdir()] == ["history.jsonl"]


def test_the_features_are_those_that_were_built(run, bundle_parts, tmp_path):
    hparams = run_module.load_run(run)
    hparams["win_length"] = 25
    hparams["features"].fbank = make_fbank(**{**bundle_parts["fbank"], "win_length": 20})
    export_run(run, tmp_path / "exported")
    assert read_bundle(tmp_path / "exported").manifest.features["win_length"] == 20
    hparams["features"].fbank = torch.nn.Identity()
    with pytest.raises(ConfigError, match="an export can hold no Identity as fbank"):
        export_run(run, tmp_path / "own")
    assert not (tmp_path / "own").exists()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("norm_type", ["global", "sentence"])
def test_features_of_a_spread_of_their_own_are_in_no_export(run, tmp_path, form, norm_type):
    normalize = run_module.load_run(run)["normalize"]
    normalize.norm_type, normalize.std_norm = norm_type, False
    with pytest.raises(ConfigError, match="norm_type global or sentence, with std_norm"):
        export_run(run, tmp_path / "exported", "min", form=form)
    assert not (tmp_path / "exported").exists()


def test_a_missing_tokenizer_is_named(run, tmp_path):
    run_module.load_run(run)["tokenizer_folder"] = str(tmp_path / "gone")
    with pytest.raises(ConfigError, match=r"gone/17_char\.model does not exist"):
        export_run(run, tmp_path / "all")


def test_a_named_subnet_that_was_taken_back_is_none(run, bundle_parts, tmp_path):
    run_module.load_run(run)["named_subnets"]["gone"] = None
    export_run(run, tmp_path / "all")
    assert [s.name for s in read_bundle(tmp_path / "all").manifest.subnets] == [
        "max",
        "min",
        "named",
    ]


def test_one_subnet_is_cut_out_by_name_config_or_budget(run, bundle_parts, tmp_path):
    space = bundle_parts["space"]
    search(run, bundle_parts, {space.max: 3.0, space.min: 9.0, FOUND: 4.0})
    own = SubnetConfig((0, 1), ffn_dims=(6, 6))
    budget = str(count_parameters(bundle_parts["model"], FOUND))
    for options, config in (
        ({"subnet": "named"}, NAMED),
        ({"subnet": own.to_json()}, own),
        ({"budget": budget}, FOUND),
    ):
        params = export_run(run, tmp_path / config.id, **options)
        loaded = read_bundle(tmp_path / config.id)
        (recorded,) = loaded.manifest.subnets
        assert recorded.config == config
        assert sum(p.numel() for p in loaded.model.parameters()) == params
        assert recorded.cost["params"] == params
    with pytest.raises(ConfigError, match="outside the search space"):
        export_run(run, tmp_path / "none", '{"layers": [0], "ffn_dims": [7]}')


def test_the_command_writes_either_form(run, tmp_path, capsys):
    for form in ("bundle", "speechbrain"):
        target = tmp_path / form
        assert main(["export", str(run), str(target), "--subnet", "min", "--format", form]) == OK
        assert capsys.readouterr().out.startswith(f"{target}: ")
    SubnetASR.from_bundle(tmp_path / "bundle")
    assert (tmp_path / "speechbrain" / "hyperparams.yaml").is_file()
    # Of two forms in one folder, the last is what counts.
    assert main(["export", str(run), str(tmp_path / "bundle"), "--format", "speechbrain"]) == OK
    assert not (tmp_path / "bundle" / "bundle.json").exists()


@pytest.mark.parametrize("form", FORMATS)
def test_any_format_is_exported_again_over_itself_and_over_a_stranger_never(run, tmp_path, form):
    if form not in ("bundle", "speechbrain"):
        pytest.importorskip("onnx", reason="needs the extra onnx")
    target = tmp_path / "my exports" / form
    command = ["export", str(run), str(target), "--subnet", "min", "--format", form]
    assert main(command) == OK
    record = (target / "export.json").read_text()
    (target / "notes.txt").write_text("mine")
    assert main(command) == OK
    assert (target / "export.json").read_text() == record
    assert (target / "notes.txt").read_text() == "mine"
    files = json.loads(record)["files"]
    assert {p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()} == {
        *files,
        "export.json",
        "notes.txt",
    }
    for name in files.keys() - {"README.md"}:
        theirs = tmp_path / "theirs" / name.replace("/", "_")
        (theirs / name).parent.mkdir(parents=True)
        (theirs / name).write_text("theirs")
        with pytest.raises(ConfigError, match=f"{name} was not written by an export"):
            export_run(run, theirs, "min", form=form)
        assert [p.read_text() for p in theirs.rglob("*") if p.is_file()] == ["theirs"]


def test_a_folder_of_other_people_stays_when_the_page_is_exported(run, tmp_path):
    pytest.importorskip("onnx", reason="needs the extra onnx")
    target = tmp_path / "web"
    for name in ("cat/1/model.json", "cat/1/weights.bin", "model.json", "a/b/c/model.json"):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text("theirs")
    export_run(run, target, form="web")
    (target / "named" / "int8" / "tokens.txt").write_text("changed")
    (target / "max" / "notes.txt").write_text("mine")
    export_run(run, target, "min", form="web")
    texts = {p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()}
    assert {name for name in texts if not name.startswith("min/")} == {
        "cat/1/model.json",
        "cat/1/weights.bin",
        "model.json",
        "a/b/c/model.json",
        "named/int8/tokens.txt",
        "max/notes.txt",
        "README.md",
        "export.json",
    }
    # Nor do they keep the page from being served.
    assert {m.path for m in find_models(target)} == {"min/float32", "min/int8"}


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", ".."])
def test_a_subnets_name_leads_nowhere_else(run, tmp_path, name):
    pytest.importorskip("onnx", reason="needs the extra onnx")
    run_module.load_run(run)["named_subnets"] = {name: NAMED.to_dict()}
    with pytest.raises(ConfigError, match="is no file of an export"):
        export_run(run, tmp_path / "deep" / "web", form="web")
    assert not (tmp_path / "deep").exists()


def test_a_folder_that_cannot_be_loaded_is_named(run, tmp_path):
    export_run(run, tmp_path / "damaged", "min", form="speechbrain")
    (tmp_path / "damaged" / "tokenizer.ckpt").unlink()
    with pytest.raises(ConfigError, match="damaged cannot be loaded"):
        SubnetASR.from_hparams(tmp_path / "damaged")
    for name in ("history.jsonl", "hyperparams.yaml"):
        (run / name).touch()
    with pytest.raises(ConfigError, match="is a training run: todm-sb export"):
        SubnetASR.from_hparams(run)


@pytest.mark.parametrize("norm_type", ["global", "sentence"])
@pytest.mark.parametrize("snip_edges", [True, False])
def test_a_causal_network_that_cannot_stream_is_told(
    run, bundle_parts, make_transducer, tmp_path, caplog, norm_type, snip_edges
):
    pytest.importorskip("onnx", reason="needs the extra onnx")
    hparams = run_module.load_run(run)
    options = {**hparams["model"].config["encoder"], "causal": True}
    hparams["model"] = make_transducer(vocab_size=17, **options)
    hparams["normalize"].norm_type = norm_type
    kaldi = {"fbank_kind": "kaldi", "snip_edges": snip_edges}
    hparams["features"].fbank = make_fbank(**bundle_parts["fbank"], **kaldi)
    export_run(run, tmp_path / "onnx", "min", form="onnx")
    # The graph itself takes whatever features it is given.
    graph = (tmp_path / "onnx" / "streaming_encoder.onnx").is_file()
    assert graph == (norm_type == "global")
    lacks = [] if graph else ["norm_type: global"]
    lacks += [] if snip_edges else ["snip_edges: True"]
    told = f"cannot stream: train the network with {', '.join(lacks)}\n"
    assert (told in caplog.text) if lacks else ("cannot stream" not in caplog.text)


@pytest.mark.parametrize("form", ["onnx", "onnx-int8", "web"])
def test_a_causal_network_of_long_strides_is_exported_but_for_streams(
    run, make_transducer, tmp_path, caplog, form
):
    pytest.importorskip("onnx", reason="needs the extra onnx")
    hparams = run_module.load_run(run)
    options = {**hparams["model"].config["encoder"], "causal": True, "time_strides": [4, 2]}
    hparams["model"] = make_transducer(vocab_size=17, **options)
    export_run(run, tmp_path / form, "min", form=form)
    assert [*(tmp_path / form).rglob("encoder.onnx")]
    assert not [*(tmp_path / form).rglob("streaming_encoder.onnx")]
    assert ("time_strides of at most 3" in caplog.text) == (form != "web")


def test_no_streaming_encoder_is_made_for_the_page(run, make_transducer, tmp_path, monkeypatch):
    pytest.importorskip("onnx", reason="needs the extra onnx")
    hparams = run_module.load_run(run)
    options = {**hparams["model"].config["encoder"], "causal": True}
    hparams["model"] = make_transducer(vocab_size=17, **options)
    monkeypatch.setattr("todm_sb.export.onnx.streaming_encoder_model", None)
    with pytest.raises(TypeError):
        export_run(run, tmp_path / "onnx", "min", form="onnx")
    export_run(run, tmp_path / "web", "min", form="web")


def test_the_page_gets_every_recorded_subnet_in_two_precisions(run, bundle_parts, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    export_run(run, tmp_path / "web", form="web")
    models = find_models(tmp_path / "web")
    export_run(run, tmp_path / "again", form="web")
    export_run(run, tmp_path / "again", "min", form="web")
    assert {m.card["name"] for m in find_models(tmp_path / "again")} == {"min"}
    found = {(m.card["name"], m.card["precision"]): m for m in models}
    assert set(found) == {(n, p) for n in ("max", "min", "named") for p in ("float32", "int8")}
    card = found["named", "int8"].card
    assert (tuple(card["layers"]), tuple(card["ffn_dims"])) == (NAMED.layers, NAMED["ffn_dims"])
    assert card["cost"]["params"] == count_parameters(bundle_parts["model"], NAMED)
    assert (card["sample_rate"], card["max_symbols"]) == (16000, 2)
    # From samples to what the joiner takes without any code of ours.
    export_run(run, tmp_path / "bundle", "named")
    network = SubnetASR.from_bundle(tmp_path / "bundle")
    wavs = torch.randn(1, 8000)
    with torch.no_grad():
        encoded = network.mods.encoder(wavs, torch.ones(1))
        expected = network.mods.decoder.model.joiner.project_encoder(encoded)
    folder = found["named", "float32"].folder
    features, encoder = (
        onnxruntime.InferenceSession(folder / f"{part}.onnx") for part in ("features", "encoder")
    )
    x, x_lens = features.run(None, {"samples": wavs.numpy()})
    got, _ = encoder.run(None, {"x": x, "x_lens": x_lens})
    torch.testing.assert_close(torch.from_numpy(got), expected, rtol=0, atol=1e-3)


RESULTS = [
    {"subnet": "named", **NAMED.to_dict(), "WER": 2.504, "CER": 2.0},
    {"subnet": "other", "layers": [1], "ffn_dims": [6], "WER": 9.0, "CER": 9.0},
]


def card_of(folder):
    return ModelCard((folder / "README.md").read_text(encoding="utf-8"))


def figures(card):
    """Value by data set and metric, as the Hub reads them."""
    results = card.data.eval_results or []
    return {(r.dataset_name, r.metric_type, r.metric_name): r.metric_value for r in results}


@pytest.mark.parametrize("form", FORMATS)
def test_the_hub_reads_the_card_of_every_format(run, bundle_parts, tmp_path, form):
    if form not in ("bundle", "speechbrain"):
        pytest.importorskip("onnx", reason="needs the extra onnx")
    run_module.load_run(run)["card"] = {"language": "de", "license": "mit", "dataset": "Commands"}
    leave_results(run, RESULTS, split="test-clean")
    leave_results(run, [{**RESULTS[0], "WER": 4.0, "words": 7}], split="test-other")
    leave_results(run, RESULTS, "of other weights", split="test-wrong")
    export_run(run, tmp_path / "digits", "named", form=form, about={"license": "cc-by-4.0"})
    card = card_of(tmp_path / "digits")
    data = card.data.to_dict()
    assert (data["language"], data["license"]) == ("de", "cc-by-4.0")
    assert data["pipeline_tag"] == "automatic-speech-recognition"
    assert data["library_name"] == ("speechbrain" if form == "speechbrain" else "todm_sb")
    assert data["model-index"][0]["name"] == "digits"
    assert figures(card) == {
        ("Commands test-clean", "wer", "WER of named"): 2.5,
        ("Commands test-clean", "cer", "CER of named"): 2.0,
        ("Commands test-other", "wer", "WER of named"): 4.0,
        ("Commands test-other", "cer", "CER of named"): 2.0,
    }
    (row,) = (line for line in card.text.splitlines() if line.startswith("| named"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    params = count_parameters(bundle_parts["model"], NAMED)
    assert cells == ["named", "2", "12 x 1, 6 x 1", f"{params:,}", "2.50", "4.00"]
    assert "\ntest-clean: Error rates of 20 utterances, 99 words" in card.text
    assert "\ntest-other: Error rates of 20 utterances, 7 words" in card.text
    assert str(tmp_path) not in card.content


def test_a_familys_card_tells_what_was_searched_and_how_to_choose(run, bundle_parts, tmp_path):
    space = bundle_parts["space"]
    search(run, bundle_parts, {space.max: 3.0, FOUND: 5.0}, scored=SCORED)
    leave_results(run, [{"subnet": "max", **space.max.to_dict(), "WER": 1.5, "CER": 1.0}])
    export_run(run, tmp_path / "all")
    card = card_of(tmp_path / "all")
    found = {key: value for key, value in figures(card).items() if key[1] == "wer"}
    assert found == {
        ("dev", "wer", "WER of max"): 3.0,
        ("dev", "wer", f"WER of {FOUND.id}"): 5.0,
        ("test", "wer", "WER of max"): 1.5,
    }
    assert "\ndev: Error rates of 20 utterances, 99 words" in card.text
    assert "No licence is given" in card.text
    assert "license" not in card.data.to_dict()
    # What the card says of its use is so.
    code = card.text.split("```python")[1].split("```")[0]
    (line,) = (line for line in code.splitlines() if "SubnetASR." in line)
    asr = eval(line.removeprefix("asr = ").replace('"all"', repr(str(tmp_path / "all"))))
    loaded = sum(p.numel() for p in asr.mods.encoder.model.parameters())
    assert loaded == count_parameters(bundle_parts["model"].deployed(), space.min)


def test_a_card_tells_what_was_trained_on_and_no_path(run, tmp_path):
    audio = tmp_path / "secret" / "a.wav"
    rows = [f"{i},{d},{audio},s,HELLO" for i, d in enumerate([1800, 1800, 3600, 0])]
    # None of these was trained on.
    rows += [f"4,soon,{audio},s,HI", f"5,9,{audio},s,HI,9", f"0,9,{audio},s,HI", f"6,9,{audio},s,"]
    (tmp_path / "train.csv").write_text("\n".join(["ID,duration,wav,spk_id,wrds", *rows]))
    # Recipes of other data inherit train_splits, which tells nothing of theirs.
    run_module.load_run(run).update(max_duration=3000.0, train_splits=["train-clean-100"])
    (run / "history.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n')
    (run / "init.json").write_text(json.dumps({"init_from": str(tmp_path / "secret" / "old")}))
    versions = {"todm_sb": "0.1.0", "torch": "2.11.0", "platform": "mine"}
    provenance = {"command": f"train.py --data_folder={tmp_path}", "versions": versions}
    (run / "provenance.json").write_text(json.dumps(provenance))
    export_run(run, tmp_path / "min", "min")
    text = card_of(tmp_path / "min").text
    training = text.split("## Training")[1].split()
    assert " ".join(training) == (
        "- 2 utterances, 1.00 hours of speech - 17 labels (char) - epochs: 2 - began from: old "
        "- todm_sb 0.1.0, torch 2.11.0"
    )
    assert "secret" not in text
    assert "mine" not in text


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_tells_the_longest_utterance_of_training(run, tmp_path, form):
    rows = [f"{i},{d},a.wav,s,HELLO" for i, d in enumerate([3.5, 2.5])]
    (tmp_path / "train.csv").write_text("\n".join(["ID,duration,wav,spk_id,wrds", *rows]))
    if form not in ("bundle", "speechbrain"):
        pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    from todm_sb.inference.onnx import OnnxASR

    target = tmp_path / form
    export_run(run, target, "min", form=form)
    if form == "bundle":
        told = [read_bundle(target).manifest.longest_seconds]
    elif form == "speechbrain":
        told = [SubnetASR.from_hparams(target).hparams.longest_seconds]
    elif form == "web":
        told = [m.card["longest_seconds"] for m in find_models(target)]
        told += [OnnxASR(m.folder).longest_seconds for m in find_models(target)]
    else:
        told = [OnnxASR(target).longest_seconds]
    assert set(told) == {3.5}


def test_a_card_that_somebody_edited_or_wrote_is_kept(run, tmp_path, caplog):
    target, command = (
        tmp_path / "x",
        lambda *more: main(["export", str(run), str(tmp_path / "x"), *more]),
    )
    path = target / "README.md"
    assert command("--subnet", "min") == OK
    first = path.read_text()
    # One of ours is replaced.
    assert command("--subnet", "max", "--license", "mit", "--language", "en") == OK
    assert path.read_text() != first
    assert card_of(target).data.license == "mit"
    path.write_text("mine")
    for form in ("bundle", "speechbrain", "bundle"):
        caplog.clear()
        assert command("--subnet", "min", "--format", form) == OK
        assert path.read_text() == "mine"
        assert f"{path} was changed since it was exported: it is kept" in caplog.text
    # Removed, it comes again.
    path.unlink()
    assert command("--subnet", "min") == OK
    assert path.read_text() == first
    # One that was there before any export, a link among them.
    for i in range(2):
        folder = tmp_path / f"theirs{i}"
        folder.mkdir()
        (folder / "notes").write_text("theirs")
        if i:
            (folder / "README.md").symlink_to("notes")
        else:
            (folder / "notes").rename(folder / "README.md")
        for _ in range(2):
            export_run(run, folder, "min")
            assert (folder / "README.md").read_text() == "theirs"
        assert (folder / "README.md").is_symlink() == bool(i)
        assert (folder / "bundle.json").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--license", "Apache License 2.0"], "card.license must be a licence of the Hub"),
        (["--language", "English"], "card.language must be a language code"),
        (["--dataset", "a|b"], "card.dataset must be the name of a data set"),
    ],
)
def test_what_no_card_can_hold_is_refused_first(
    run, tmp_path, monkeypatch, capsys, options, message
):
    monkeypatch.setattr(run_module, "load_run", None)
    with pytest.raises(SystemExit):
        main(["export", str(run), str(tmp_path / "x"), *options])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("option", [["--study", "s2"], ["--cost", "macs"]])
def test_what_only_a_search_has_is_of_a_budget(run, tmp_path, capsys, option):
    with pytest.raises(SystemExit):
        main(["export", str(run), str(tmp_path / "x"), *option])
    assert f"{option[0]} is of --budget COST: add that one" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
