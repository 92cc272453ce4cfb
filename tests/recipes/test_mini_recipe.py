"""Whole runs of the mini recipe, made tiny."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from speechbrain.inference.ASR import EncoderDecoderASR
from tiny import LIBRISPEECH, arguments, call, tiny_model

from todm_sb.inference import SubnetASR
from todm_sb.supernet import SubnetConfig
from todm_sb.training.brain import TODMBrain
from todm_sb.utils.errors import ConfigError, one_line_errors


def weights(output):
    """Final weights of a run, from its last checkpoint."""
    names = "model", "optimizer", "normalize"
    # A process that was killed while it deleted an old one has left a part of that.
    whole = [
        folder
        for folder in (output / "save").glob("CKPT*")
        if all((folder / f"{name}.ckpt").exists() for name in names)
    ]
    newest = max(whole, key=lambda p: p.stat().st_mtime)
    return {name: torch.load(newest / f"{name}.ckpt", weights_only=False) for name in names}


def same(a, b):
    """Whether two nested structures are equal bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def test_a_run_leaves_log_curves_results_and_alignments(tiny_run):
    history = [json.loads(x) for x in (tiny_run / "history.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in history] == [1, 2]
    figures = {"WER max", "WER min", "WER deep", "WER min-causal", "CER max", "max", "ctc"}
    assert figures <= history[0]["valid"].keys()
    assert history[1]["train"]["max"] < history[0]["train"]["max"]
    assert (tiny_run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((tiny_run / "tensorboard").iterdir())
    assert "epoch: 2" in (tiny_run / "train_log.txt").read_text()
    results = json.loads((tiny_run / "results_test-clean.json").read_text())
    names = ["max", "wide", "deep", "min"]
    names += [f"{name}-causal" for name in names]
    assert [result["subnet"] for result in results] == names
    assert [result["causal"] for result in results] == [False] * 4 + [True] * 4
    sizes = [result["parameters"] for result in results]
    assert sizes[0] == max(sizes) > sizes[-1] == min(sizes)
    # The causal form has no backward SSMs.
    assert all(alone < both for both, alone in zip(sizes[:4], sizes[4:], strict=True))
    for result in results:
        assert result["WER"] >= 0
        assert "%WER" in (tiny_run / f"wer_test-clean_{result['subnet']}.txt").read_text()


def test_as_long_as_max_is_trained_alone_it_is_validated_alone(corpus, train, tmp_path):
    run = tmp_path / "run"
    small = {"model": tiny_model(), "max_batch_seconds": 40.0, "n_random": 0}
    train(arguments(corpus, run, sandwich_warmup=7, **small))
    history = [json.loads(x) for x in (run / "history.jsonl").read_text().splitlines()]
    names = [[name for name in x["valid"] if name.startswith("WER")] for x in history]
    whole = ["WER max", "WER wide", "WER deep", "WER min"]
    assert names == [["WER max"], whole]
    # Those of before are gone, as their error rate is of something else.
    assert len([*(run / "save").glob("CKPT*")]) == 1


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_seed_does_not(
    corpus, train, tiny_run, tmp_path
):
    for seed, equal in ((1234, True), (1, False)):
        output = tmp_path / str(seed)
        train(arguments(corpus, output, seed=seed))
        assert same(weights(output), weights(tiny_run)) == equal


def test_batches_leave_room_for_slower_speech_and_ascend_at_first_in_training_alone(
    corpus, train, tmp_path, monkeypatch
):
    class FitError(Exception):
        pass

    def tell(self, epochs, train_set, valid_set, valid_loader_kwargs):
        samplers = train_set.batch_sampler, valid_loader_kwargs["batch_sampler"]
        bounds = [sampler.max_seconds for sampler in samplers]
        raise FitError(*bounds, samplers[0].ascending_epochs)

    monkeypatch.setattr(TODMBrain, "fit", tell)
    with pytest.raises(FitError) as raised:
        train(arguments(corpus, tmp_path / "run", max_batch_seconds=16.0, ascending_epochs=3))
    assert raised.value.args == (pytest.approx(16.0 * 0.95), 16.0, 3)


@pytest.mark.parametrize("stop", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_a_run_broken_off_and_started_again_ends_as_an_unbroken_one(
    corpus, train, tiny_run, tmp_path, monkeypatch, stop
):
    class BrokenOffError(Exception):
        pass

    steps = 0
    fit_batch = TODMBrain.fit_batch

    def breaks_off(self, batch):
        nonlocal steps
        if steps == stop:
            raise BrokenOffError
        steps += 1
        return fit_batch(self, batch)

    command = arguments(corpus, tmp_path / "run", ckpt_interval_steps=1)
    with monkeypatch.context() as patch:
        patch.setattr(TODMBrain, "fit_batch", breaks_off)
        with pytest.raises(BrokenOffError):
            train(command)
    train(command)
    assert same(weights(tmp_path / "run"), weights(tiny_run))


@pytest.mark.parametrize(("seconds", "share"), [(8.0, 2 / 3), (32.0, 0.5)])
def test_a_run_goes_on_at_the_same_part_of_an_epoch_whatever_its_batches_hold(
    corpus, train, tmp_path, monkeypatch, seconds, share
):
    class BrokenOffError(Exception):
        pass

    counts, fit_batch = [], TODMBrain.fit_batch

    def breaks_off(self, batch):
        if self.step > share * self.position.n_batches:
            counts[:] = self.step - 1, self.position.n_batches
            raise BrokenOffError
        return fit_batch(self, batch)

    def notes(self, batch):
        counts.append(self.step)
        return fit_batch(self, batch)

    run = tmp_path / "run"
    monkeypatch.setattr(TODMBrain, "fit_batch", breaks_off)
    with pytest.raises(BrokenOffError):
        train(arguments(corpus, run, ckpt_interval_steps=1, number_of_epochs=1))
    done, n_batches = counts
    del counts[:]
    monkeypatch.setattr(TODMBrain, "fit_batch", notes)
    train(arguments(corpus, run, max_batch_seconds=seconds, number_of_epochs=1))
    assert counts == list(range(counts[0], counts[-1] + 1))
    assert counts[-1] not in (0, n_batches)
    assert counts[0] - 1 == done * counts[-1] // n_batches > 0
    assert f"goes on after {counts[0] - 1} of {counts[-1]}" in (run / "log.txt").read_text()


def test_means_of_an_epochs_weights_change_no_training_and_are_what_a_run_is_measured_by(
    corpus, train, tiny_run, tmp_path, monkeypatch
):
    class BrokenOffError(Exception):
        pass

    seen, measured = {}, {}
    fit_batch, on_valid = TODMBrain.fit_batch, TODMBrain.compute_forward

    def state(brain):
        return {k: v.clone() for k, v in brain.modules.model.state_dict().items()}

    def taken(self, batch):
        if len(seen) == 1 and self.step == 2:
            seen.clear()
            raise BrokenOffError
        loss = fit_batch(self, batch)
        seen.setdefault(self.hparams.epoch_counter.current, []).append(state(self))
        return loss

    def validated(self, batch, stage):
        measured[self.hparams.epoch_counter.current] = state(self)
        return on_valid(self, batch, stage)

    monkeypatch.setattr(TODMBrain, "fit_batch", taken)
    monkeypatch.setattr(TODMBrain, "compute_forward", validated)
    run = tmp_path / "run"
    command = arguments(corpus, run, average_every=1, ckpt_interval_steps=1)
    with pytest.raises(BrokenOffError):
        train(command)
    train(command)
    assert same(weights(run), weights(tiny_run))
    mean = {k: torch.stack([x[k].double() for x in seen[2]]).mean(0) for k in seen[2][0]}
    saved = max((run / "save").glob("CKPT*/average.ckpt"), key=lambda p: p.stat().st_mtime)
    for found in (torch.load(saved)["mean"], measured[2]):
        for key, value in mean.items():
            torch.testing.assert_close(found[key].double(), value, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_killed_process_started_again_ends_as_an_unbroken_one(corpus, tiny_run, tmp_path):
    script = [sys.executable, str(LIBRISPEECH / "train.py")]
    command = [*script, *arguments(corpus, tmp_path / "run", ckpt_interval_steps=1)]
    process = subprocess.Popen(command)
    deadline = time.time() + 120
    while not list(tmp_path.glob("run/save/CKPT*/brain.ckpt")):
        assert time.time() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    subprocess.run(command, check=True)
    assert same(weights(tmp_path / "run"), weights(tiny_run))


def test_a_step_whose_gradient_is_not_finite_is_left_out_and_counted(
    corpus, train, tmp_path, monkeypatch
):
    guarded, before = [], {}
    step = TODMBrain.optimizers_step

    def spoils_the_second(self):
        guarded.append(self.guard)
        if len(guarded) == 2:
            self.modules.model.joiner.output.bias.grad[1] = float("nan")
            before.update({k: v.clone() for k, v in self.modules.model.state_dict().items()})
        step(self)
        if len(guarded) == 2:
            assert same(before, dict(self.modules.model.state_dict()))

    monkeypatch.setattr(TODMBrain, "optimizers_step", spoils_the_second)
    train(arguments(corpus, tmp_path / "run", number_of_epochs=1))
    assert before
    assert guarded[-1].left_out == 1
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "gradient of model.joiner.output.bias is not finite" in log
    assert all(v.isfinite().all() for v in weights(tmp_path / "run")["model"].values())
    steps = (tmp_path / "run" / "steps.jsonl").read_text().splitlines()
    assert [json.loads(line)["left out"] for line in steps] == [0] + [1] * (len(steps) - 1)


def test_audio_that_breaks_in_mid_training_is_left_out_and_logged_once(
    corpus, train, tmp_path, monkeypatch
):
    """A file is emptied after the data was checked; two epochs want it."""
    copy = shutil.copytree(corpus, tmp_path / "corpus")
    lost = sorted(copy.glob("train/*/*/*.flac"))[0]
    fit = TODMBrain.fit

    def breaks(self, *args, **kwargs):
        lost.write_bytes(b"")
        fit(self, *args, **kwargs)

    monkeypatch.setattr(TODMBrain, "fit", breaks)
    train(arguments(copy, tmp_path / "run"))
    log = (tmp_path / "run" / "log.txt").read_text().splitlines()
    (line,) = [line for line in log if "is left out: " in line]
    assert f"{lost.stem} is left out: unreadable audio ({lost.resolve()}: " in line
    assert line.endswith("1 so far")


@pytest.mark.parametrize(
    "overrides",
    [
        {
            "objective": "{kd_weight: 0.0, ctc_weight: 0.0}",
            "pruning": "null",
            "model": tiny_model(causal=True),
        },
        {
            "objective": "{divergence: {alphas: [1], classes: three}, consistency_weight: 0.2}",
            "model": "{d_joint: 24, predictor: {kind: stateless, d_model: 16}, encoder: "
            "{d_model: 16, n_heads: 4, channels: [4, 4], adaptive_dropout: False}}",
            **{"sandwich_warmup": 1, "n_random": 0, "grad_accumulation_factor": 2},
        },
        {
            **{"lr": 0.001, "opt_class": "!name:torch.optim.AdamW"},
            **{"precision": "bf16", "wav_augment": "null", "feature_augment": "null"},
        },
    ],
)
def test_each_technique_can_be_switched_by_its_key(corpus, train, tmp_path, overrides):
    train(arguments(corpus, tmp_path / "run", number_of_epochs=1, **overrides))
    assert (tmp_path / "run" / "results_test-clean.json").exists()


def test_without_a_test_set_the_table_is_of_the_dev_set(corpus, train, tiny_run, tmp_path, capfd):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    (run / "results_test-clean.json").unlink()
    train([*arguments(corpus, run, test_splits="[]"), "--test_only"])
    assert [path.name for path in run.glob("results_*.json")] == ["results_dev-clean.json"]
    found = json.loads((run / "results_dev-clean.json").read_text())
    printed = capfd.readouterr().out.partition("\ndev-clean\n")[2]
    assert all(f"| {result['subnet']} " in printed for result in found)
    # Of one checkpoint, and so of the weights that were validated.
    epochs = [json.loads(x)["valid"] for x in (run / "history.jsonl").read_text().splitlines()]
    best = min(epochs, key=lambda x: sum(v for k, v in x.items() if k.startswith("WER ")))
    assert {f"WER {x['subnet']}": x["WER"] for x in found} == pytest.approx(
        {k: v for k, v in best.items() if k.startswith("WER ")}
    )


# The 960 h recipes take the mini corpus for LibriSpeech; the keys are those that mini.yaml lacks.
ON_MINI_CORPUS = {
    "model": tiny_model(),
    **dict.fromkeys(["n_train", "n_dev", "n_test"]),
    "train_splits": "[train]",
    "dev_splits": "[dev-clean]",
    "test_splits": "[test-clean]",
    "num_workers": 0,
    "number_of_epochs": 1,
    "sandwich_warmup": 0,
}


@pytest.mark.parametrize(
    ("recipe", "overrides", "subnets"),
    [
        (
            "supernet.yaml",
            {"named_subnets": "{shallow: {layers: [1], ffn_dims: [32]}}"},
            ["max", "shallow", "min"],
        ),
        pytest.param(
            "mini_librispeech.yaml",
            {"named_subnets": "null"},
            ["max", "min"],
            marks=pytest.mark.slow,
        ),
        (
            "individual.yaml",
            {"search_space": None, "named_subnets": None, "n_layers": 2, "ffn_dim": 32},
            ["max"],
        ),
    ],
)
def test_the_recipes_for_960_hours_run_on_a_small_folder(
    corpus, train, tmp_path, recipe, overrides, subnets
):
    train(arguments(corpus, tmp_path / "run", recipe, **{**ON_MINI_CORPUS, **overrides}))
    results = json.loads((tmp_path / "run" / "results_test-clean.json").read_text())
    assert [result["subnet"] for result in results] == subnets
    (epoch,) = (tmp_path / "run" / "history.jsonl").read_text().splitlines()
    assert json.loads(epoch)["epoch"] == 1


def test_an_exported_subnet_reads_as_speechbrains_own_class_reads_it(exported, corpus):
    paths = sorted(corpus.glob("test-clean/*/*/*.flac"))[:4]
    ours = SubnetASR.from_hparams(exported / "min")
    theirs = EncoderDecoderASR.from_hparams(source=str(exported / "min"))
    from_supernet = SubnetASR.from_supernet(exported / "all", "min")
    for path in paths:
        text = ours.transcribe_file(str(path))
        assert theirs.transcribe_file(str(path)) == text
        assert from_supernet.transcribe_file(str(path)) == text


def test_an_exported_network_reads_alone_as_in_a_padded_batch(exported, corpus):
    for make in (SubnetASR.from_hparams, EncoderDecoderASR.from_hparams):
        asr = make(source=str(exported / "min"))
        # Untrained joiners say little: fewer blanks make sure that padding could be read.
        model = asr.mods.decoder.model
        model.joiner.output.bias[model.blank] -= 5.5
        wavs = [asr.load_audio(str(p)) for p in sorted(corpus.glob("test-clean/*/*/*.flac"))]
        alone = [asr.transcribe_batch(w.unsqueeze(0), torch.ones(1))[1][0] for w in wavs]
        longest = max(map(len, wavs))
        batch = torch.zeros(len(wavs), longest + 16000)
        for row, wav in zip(batch, wavs, strict=True):
            row[: len(wav)] = wav
        lens = torch.tensor([len(wav) / batch.shape[1] for wav in wavs])
        together = asr.transcribe_batch(batch, lens)[1]
        assert together == alone
        assert all(len(tokens) > 2 for tokens in alone)
        assert all(model.blank not in tokens for tokens in alone)


def test_a_supernet_folder_gives_any_subnet_of_its_space(exported, corpus):
    path = str(next(corpus.glob("test-clean/*/*/*.flac")))
    config = SubnetConfig((1,), ffn_dims=(32,))
    for subnet in (config, config.to_json()):
        asr = SubnetASR.from_supernet(exported / "all", subnet)
        assert asr.mods.encoder.model.encoder.dimensions["ffn_dims"] == (32,)
        assert isinstance(asr.transcribe_file(path), str)


@pytest.mark.parametrize(
    ("subnet", "message"),
    [
        (SubnetConfig((0, 1, 2), ffn_dims=(16, 16, 16)), "outside the search space"),
        ('{"layers": [0], "ffn_dims": [17]}', "outside the search space"),
        ("huge", "unknown subnet 'huge'"),
        ("{", "not the JSON of a subnet"),
    ],
)
def test_a_subnet_that_the_supernet_does_not_have_is_refused(exported, subnet, message):
    with pytest.raises(ConfigError, match=message):
        SubnetASR.from_supernet(exported / "all", subnet)


def test_evaluation_names_the_run_and_not_the_bundle_it_makes_of_it(tiny_run):
    manifest = tiny_run / "manifests" / "test-clean.csv"
    with pytest.raises(ConfigError, match=rf"^{tiny_run}: unknown subnet 'huge'"):
        call("evaluate", tiny_run, manifest, "--subnet=huge")


def test_evaluation_reads_transcripts_as_the_run_did(tiny_run, tmp_path, capsys):
    header, *rows = (tiny_run / "manifests" / "test-clean.csv").read_text().splitlines()
    *others, words = rows[0].split(",")
    manifest = tmp_path / "one.csv"
    manifest.write_text("\n".join([header, ",".join([*others, words.lower()])]) + "\n")
    run = shutil.copytree(tiny_run, tmp_path / "run")
    recipe = (run / "hyperparams.yaml").read_text()
    (run / "hyperparams.yaml").write_text(recipe.replace("letter_case: keep", "letter_case: upper"))
    word = words.split()[0]
    for option, reference in (([], word), (["--letter-case=keep"], word.lower())):
        call("evaluate", run, manifest, "--subnet=min", "--alignments", *option)
        alignment = capsys.readouterr().out.partition("%WER")[2]
        assert reference in re.findall(r"\w+", alignment)


def test_a_single_subnet_is_no_supernet(exported):
    with pytest.raises(ConfigError, match="single subnet"):
        SubnetASR.from_supernet(exported / "min")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"no audio", "cannot be read as audio"),
    ],
)
def test_broken_audio_is_named(exported, tmp_path, content, message):
    path = tmp_path / "broken.flac"
    if content is not None:
        path.write_bytes(content)
    asr = SubnetASR.from_hparams(exported / "min")
    with pytest.raises(ValueError, match=message) as caught:
        asr.transcribe_file(str(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"vocab_size": 5000}, "5000 pieces"),
        ({"model": "{encoder: {n_head: 4}}"}, "encoder: .*n_head"),
        ({"max_duration": 0.1}, "no utterance can be used"),
    ],
)
def test_a_bad_setting_ends_in_one_line(corpus, train, tmp_path, capsys, overrides, message):
    with pytest.raises(SystemExit) as ended, one_line_errors():
        train(arguments(corpus, tmp_path / "run", **overrides))
    assert ended.value.code == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert re.search(message, line)


def test_transcribe_prints_reference_and_hypothesis(exported, corpus, capsys):
    path = next(corpus.glob("test-clean/*/*/*.flac"))
    call("transcribe", path, "--model", exported / "min", "--trusted", "--reference")
    hypothesis, reference = capsys.readouterr().out.splitlines()
    transcripts = next(path.parent.glob("*.trans.txt")).read_text()
    assert hypothesis.startswith(f"{path}\t")
    assert f"{path.stem} {reference.removeprefix('  reference:').strip()}\n" in transcripts
