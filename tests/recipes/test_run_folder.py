"""A run's folder belongs to the run that filled it. Who only reads it, or is refused, writes
nothing there."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import arguments, call, contents, tiny_model

from todm_sb.cli import main as todm_sb
from todm_sb.experiments.report.document import write_report
from todm_sb.training import folder
from todm_sb.training.arguments import parse_arguments, value_of
from todm_sb.training.broken_audio import BrokenAudioLog
from todm_sb.training.identity import differences, identity_of
from todm_sb.training.recipe import Recipe
from todm_sb.training.runs import load_run, run_tokenizer
from todm_sb.utils.errors import ConfigError, TODMError
from todm_sb.utils.locks import NAME, FolderLock

# Written by a test.
RESULTS = ("log.txt", "train_log.txt", NAME)


@pytest.fixture
def run(tiny_run, tmp_path):
    """A copy of a finished run, without what other tests may have searched in it."""
    return shutil.copytree(tiny_run, tmp_path / "run", ignore=shutil.ignore_patterns("search"))


def hashes(folder):
    """The hash of each file by path."""
    return {name: entry and entry[0] for name, entry in contents(folder).items()}


def older(run):
    """The same, whose ``identity.json`` is lost."""
    (run / "identity.json").unlink()
    (run / NAME).unlink()
    return run


def retrain_tokenizer(path):
    """Another tokenizer of the same kind and size, as from another text."""
    path.write_bytes(path.read_bytes() + b"\x00")


OTHER_SETTINGS = [
    ({"vocab_size": 41}, "vocab_size was 40, is 41"),
    ({"model": tiny_model(dual_mode=True, d_model=24)}, "model.encoder.d_model was 16, is 24"),
    (
        {"model": json.dumps({**json.loads(tiny_model(dual_mode=True)), "d_joint": 32})},
        "model.d_joint was 24, is 32",
    ),
    ({"model": tiny_model(dual_mode=True, look_ahead=1)}, "model.encoder.look_ahead was 0, is 1"),
    (
        {
            "search_space": "{n_layers: 2, min_layers: 2, ffn_dims: [16, 32], layer_drop: any}",
            "named_subnets": "{}",
        },
        "search_space.min_layers was 1, is 2",
    ),
    ({"n_mels": 40}, "n_mels was 80, is 40"),
    ({"hop_length": 12}, "hop_length was 10, is 12"),
    ({"fbank_kind": "kaldi"}, "fbank_kind was 'speechbrain', is 'kaldi'"),
    ({"features": "{fbank: {win_length: 20}}"}, "win_length was 25, is 20"),
    ({"normalize": "{norm_type: sentence}"}, "normalize.norm_type was 'global', is 'sentence'"),
    ({"letter_case": "lower"}, "letter_case was 'keep', is 'lower'"),
    ({"tokenizer_type": "bpe"}, "tokenizer_type was 'unigram', is 'bpe'"),
    ({"opt_class": "{clipping_scale: null}"}, "opt_class.clipping_scale was 2.0, is None"),
    ({"opt_class": "!name:torch.optim.AdamW"}, "opt_class was 'ScaledAdam', is 'AdamW'"),
]


@pytest.fixture(scope="module")
def others(corpus, tiny_run):
    """What identifies the run of each of the other settings."""
    recipe, _ = parse_arguments(arguments(corpus, tiny_run))
    present = recipe.settings()

    def identity(overrides):
        values = {key: value_of(key, str(x), present[key]) for key, x in overrides.items()}
        return identity_of(Recipe(recipe.file, {**recipe.overrides, **values}).load())

    return [identity(overrides) for overrides, _ in OTHER_SETTINGS]


@pytest.mark.parametrize(
    ("make", "one"), [(Path, 0), (older, 1), (Path, -1)], ids=["now", "older", "optimizer"]
)
def test_other_settings_than_the_folders_are_named_and_nothing_is_touched(
    corpus, train, run, others, make, one
):
    make(run)
    before = contents(run)
    theirs = folder._identity_in(run)
    for (_, message), ours in zip(OTHER_SETTINGS, others, strict=True):
        assert message in differences(theirs, ours)
    overrides, message = OTHER_SETTINGS[one]
    with pytest.raises(ConfigError) as refused:
        train(arguments(corpus, run, **overrides))
    text = str(refused.value)
    assert message in text
    assert text.startswith(f"{run} holds a run of other settings (")
    assert "give another --output_folder" in text
    assert "\n" not in text
    assert contents(run) == before
    assert load_run(run)["model"].config["d_joint"] == 24


def test_what_does_not_identify_a_run_may_change_and_is_written_down(corpus, train, run):
    changed = {
        "lr": 0.01,
        "seed": 7,
        "objective": "{kd_weight: 0.5}",
        "max_batch_seconds": 12.0,
        "named_subnets": "{wide: null, deep: null, own: {layers: [0], ffn_dims: [16]}}",
        "model": tiny_model(dual_mode=True, dropout=0.2, adaptive_dropout=False),
    }
    identity = (run / "identity.json").read_text()
    train(arguments(corpus, older(run), **changed))
    assert "lr: 0.01" in (run / "hyperparams.yaml").read_text()
    assert "lr=0.01" in (run / "provenance.json").read_text()
    assert (run / "identity.json").read_text() == identity
    results = json.loads((run / "results_test-clean.json").read_text())
    assert "own" in {result["subnet"] for result in results}


def test_a_run_is_not_begun_anew_beside_its_checkpoints(corpus, train, run, tmp_path):
    before = contents(run)
    for options in ([], ["--test_only"]):
        with pytest.raises(ConfigError, match=r"elsewhere holds no checkpoint, but .*run/save"):
            train([*arguments(corpus, run, save_folder=tmp_path / "elsewhere"), *options])
        assert contents(run) == before
    assert not (tmp_path / "elsewhere").exists()


def test_a_tokenizer_of_another_text_is_refused_by_training_and_by_readers(
    corpus, train, run, tmp_path
):
    retrain_tokenizer(run / "tokenizer" / "40_unigram.model")
    before = contents(run)
    with pytest.raises(ConfigError, match=r"other settings .*tokenizer was '.*', is '"):
        train(arguments(corpus, run))
    with pytest.raises(ConfigError, match=r"not the tokenizer that .* was trained with"):
        run_tokenizer(load_run(run))
    with pytest.raises(SystemExit):
        todm_sb(["export", str(run), str(tmp_path / "target")])
    assert not (tmp_path / "target").exists()
    (run / "tokenizer" / "40_unigram.model").unlink()
    del before["tokenizer/40_unigram.model"]
    with pytest.raises(ConfigError, match=r"40_unigram\.model is gone.*put it back"):
        train(arguments(corpus, run))
    with pytest.raises(ConfigError, match="where is the tokenizer of the training"):
        run_tokenizer(load_run(run))
    assert contents(run) == before


def test_checkpoints_whose_recipe_is_lost_are_not_mixed_with_others(corpus, train, run):
    recipe, message = run / "hyperparams.yaml", r"hyperparams\.yaml is .*another --output_folder"
    recipe.unlink()
    before = contents(run)
    with pytest.raises(ConfigError, match=message):
        train(arguments(corpus, run))
    assert contents(run) == before
    for damaged in (b"", b"model: [", b"a: 1", b"\xff\xfe"):
        recipe.write_bytes(damaged)
        with pytest.raises(ConfigError, match=message):
            folder._identity_in(run)


@pytest.mark.parametrize("name", ["hyperparams.yaml", "train.py"])
def test_a_folder_of_something_else_is_no_output_folder(corpus, train, tmp_path, name):
    (tmp_path / name).write_text("# A subnet written by todm_sb\nmodel: 1\n")
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=f"{name} is not of a run: give another --output_folder"):
        train(arguments(corpus, tmp_path))
    assert contents(tmp_path) == before


def test_a_start_that_its_data_stops_leaves_the_run_as_it_was(corpus, train, run, tmp_path):
    before = hashes(run)
    for overrides, message in (
        ({"valid_csv": tmp_path / "none.csv"}, r"none\.csv does not exist"),
        ({"test_splits": "[test-other]"}, "no split 'test-other'"),
        ({"grad_accumulation_factor": 1000}, "an epoch has only"),
    ):
        for options in ([], ["--test_only"]) if "valid_csv" in overrides else ([],):
            with pytest.raises(TODMError, match=message):
                train([*arguments(corpus, run, lr=0.01, **overrides), *options])
            assert hashes(run) == before


class StoppedError(Exception):
    pass


def test_a_run_that_died_before_its_first_checkpoint_leaves_its_folder_to_any_other(
    corpus, train, tmp_path, monkeypatch
):
    def stop(*_):
        raise StoppedError

    monkeypatch.setattr("todm_sb.training.brain.TODMBrain.fit_batch", stop)
    for overrides in ({}, {"n_mels": 40}):
        with pytest.raises(StoppedError):
            train(arguments(corpus, tmp_path / "run", **overrides))
    assert json.loads((tmp_path / "run" / "identity.json").read_text())["n_mels"] == 40
    # The lock of a run that ended so is lifted, and a half-written recipe is no obstacle.
    (tmp_path / "run" / "hyperparams.yaml").write_text("")
    with pytest.raises(StoppedError):
        train(arguments(corpus, tmp_path / "run"))


def test_a_setting_that_is_refused_leaves_no_folder(corpus, train, tmp_path):
    with pytest.raises(ConfigError):
        train(arguments(corpus, tmp_path / "run", search_space="{n_layer: 2}"))
    with pytest.raises(ConfigError, match="holds no checkpoint to test: train first"):
        train([*arguments(corpus, tmp_path / "run"), "--test_only"])
    assert not list(tmp_path.iterdir())


def test_a_test_alone_writes_its_results_and_its_log(corpus, train, run):
    before = contents(run)
    train([*arguments(corpus, run, lr=0.01, beam_size=2), "--test_only"])
    after = contents(run)
    written = {name for name in after if after[name] != before.get(name)}
    results = {name for name in written if name.startswith(("results_", "errors_", "wer_"))}
    assert written - results <= {*RESULTS}
    assert {"results_test-clean.json", "errors_test-clean.json"} <= results
    for result in json.loads((run / "results_test-clean.json").read_text()):
        sizes = {"beam_size": 2, "max_symbols": 5}
        assert result["decoding"] == {"searcher": "TransducerSearcher", **sizes}
    assert before.keys() == after.keys()
    assert "test: done" in (run / "train_log.txt").read_text().splitlines()[-1]
    with pytest.raises(ConfigError, match="hop_length was 10, is 20"):
        train([*arguments(corpus, run, hop_length=20), "--test_only"])
    # The log is still open in this process.
    assert {**contents(run), "log.txt": None} == {**after, "log.txt": None}


@pytest.mark.parametrize(
    ("make", "forms"),
    [(Path, ("bundle", "speechbrain", "onnx", "web")), (older, ("bundle",))],
    ids=["now", "older"],
)
def test_who_only_reads_a_run_leaves_it_as_it_was(run, tmp_path, make, forms):
    make(run)
    before = contents(run)
    for form in forms:
        command = ["export", str(run), str(tmp_path / form), "--format", form, "--subnet", "min"]
        assert todm_sb(command) == 0
    assert todm_sb(["inspect", str(tmp_path / "bundle")]) == 0
    run_tokenizer(load_run(run))
    assert contents(run) == before
    write_report(run)
    written = contents(run).keys() - before.keys()
    assert written == {"report.md", "report.html", ".written.json"}


def test_the_log_of_a_run_tells_of_it_alone(run):
    log = (run / "log.txt").read_text()
    assert "epoch 2: " in log
    assert "matplotlib.font_manager" not in log


def test_other_processes_than_the_first_log_broken_audio_and_errors_alone(tmp_path, restored):
    log = tmp_path / "log.txt"
    log.write_text("of the first\n")
    folder._log_broken_audio_to(log)
    BrokenAudioLog().warn({"a": "cut short"}, "is left out")
    logging.getLogger("todm_sb.training.guard").warning("all of them say so")
    first, broken = log.read_text().splitlines()
    assert first == "of the first"
    assert broken.endswith("WARNING - a is left out: cut short; 1 so far")


@pytest.fixture
def restored():
    loggers = [logging.getLogger(name) for name in ("todm_sb", "todm_sb.training.broken_audio")]
    before = [(x.level, x.handlers[:]) for x in loggers]
    yield
    for x, (level, handlers) in zip(loggers, before, strict=True):
        x.setLevel(level)
        x.handlers[:] = handlers


def test_a_second_training_is_told_who_is_in_the_folder_and_writes_nothing(corpus, train, run):
    with FolderLock(run):
        before = contents(run)
        for options in ([], ["--test_only"]):
            with pytest.raises(ConfigError, match=rf"in use by process {os.getpid()} on .*: wait"):
                train([*arguments(corpus, run), *options])
        assert contents(run) == before


def test_a_file_system_without_locks_is_named_in_the_log(corpus, train, run, monkeypatch):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("todm_sb.utils.locks.fcntl.flock", refuse)
    train([*arguments(corpus, run), "--test_only"])
    assert f"{run} cannot be locked (Operation not supported)" in (run / "log.txt").read_text()


# train.py, but it stands still in its first step.
HANGING = """
import sys, time
sys.path.insert(0, {tests!r})
from tiny import LIBRISPEECH, load_script
from todm_sb.training.brain import TODMBrain

def hangs(self, batch):
    print("hangs", flush=True)
    time.sleep(600)

TODMBrain.fit_batch = hangs
load_script(LIBRISPEECH / "train.py").main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_killed_training_can_be_started_again_at_once(corpus, train, tmp_path, monkeypatch):
    script = HANGING.format(tests=str(Path(__file__).parent))
    command = arguments(corpus, tmp_path / "run", num_workers=1)
    with subprocess.Popen(
        [sys.executable, "-c", script, *command], stdout=subprocess.PIPE, text=True
    ) as hanging:
        while hanging.stdout.readline() != "hangs\n":
            assert hanging.poll() is None
        with pytest.raises(ConfigError, match=f"in use by process {hanging.pid} on "):
            train(command)
        hanging.send_signal(signal.SIGKILL)
        hanging.wait()
        hanging.stdout.close()

    def stop(*_):
        raise StoppedError

    monkeypatch.setattr("todm_sb.training.brain.TODMBrain.fit_batch", stop)
    with pytest.raises(StoppedError):
        train(arguments(corpus, tmp_path / "run"))


def test_each_study_of_a_search_keeps_its_own_results(run, tmp_path):
    def search(*argv):
        few = ("--evaluations", "2", "--population", "2", "--no-baselines")
        call("search", run, *few, *argv)

    search()
    first = contents(run / "search" / "params")
    search("--study", "s2", "--seed", "1")
    after = contents(run / "search" / "params")
    assert all(after[name] == first[name] for name in first if name.startswith("pareto"))
    assert (run / "search" / "params" / "s2" / "pareto.json").is_file()
    before = contents(run)
    for argv, message in (
        (["--seed", "1"], "study 'params' is of another seed"),
        (["--population", "3"], "study 'params' is of another population"),
        (["--study", "../s2"], r"cannot be '\.\./s2'"),
        (["--study", ".."], r"cannot be '\.\.'"),
        (["--cost", "macs", "--budget", "1"], "budget 1 is below the smallest subnet"),
    ):
        with pytest.raises(ConfigError, match=message):
            search(*argv)
    assert contents(run) == before
    recipe = (run / "hyperparams.yaml").read_text()
    (run / "hyperparams.yaml").write_text(recipe.replace("max_symbols: 5", "max_symbols: 1"))
    with pytest.raises(ConfigError, match=r"another decoding .*'max_symbols': 5.* not .*: 1"):
        search()
    (run / "hyperparams.yaml").write_text(recipe)
    call("export", run, tmp_path / "small", "--budget=1G", "--study=s2")
    with pytest.raises(ConfigError, match=r"s3/pareto\.json does not exist: run todm-sb search"):
        call("export", run, tmp_path / "none", "--budget=1G", "--study=s3")
