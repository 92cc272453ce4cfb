"""Which utterances a run measures: all of the dev and test sets, or it says so."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from tiny import arguments

from todm_sb.dataio.manifest import read_csv, write_csv
from todm_sb.dataio.split import read_splits
from todm_sb.experiments.compare.results import read_tested
from todm_sb.search.dev_set import DevSet
from todm_sb.training.brain import TODMBrain
from todm_sb.training.runs import dev_dataset, dev_utterances, load_run, run_tokenizer
from todm_sb.utils.errors import ConfigError, DataError


@pytest.fixture
def run(tiny_run, tmp_path):
    """A copy of the tiny run, whose manifests may be changed."""
    return shutil.copytree(tiny_run, tmp_path / "run")


@pytest.fixture
def command(corpus, run):
    """Its command line, but for the data preparation; keywords override."""
    return lambda **overrides: arguments(corpus, run, **{"prepare": "[]", **overrides})


def test_every_utterance_of_a_test_set_counts_and_the_results_say_so(
    train, run, command, monkeypatch, capsys
):
    path = run / "manifests" / "test-clean.csv"
    rows = sorted(read_csv(path), key=lambda row: -row.duration)
    long, odd, missing, breaks, silent, plain = rows
    broken = shutil.copy(breaks.wav, run / "breaks.flac")
    changed = [
        long,
        replace(odd, wrds="光 " + odd.wrds, spk_id=""),
        replace(missing, wav="nowhere.flac"),
        replace(breaks, wav=str(broken)),
        replace(silent, wrds=""),
        plain,
        replace(plain, wrds="AGAIN"),
    ]
    write_csv(path, changed)
    evaluate = TODMBrain.evaluate

    def after_a_file_broke(self, *args, **kwargs):
        (run / "breaks.flac").write_bytes(b"")
        return evaluate(self, *args, **kwargs)

    monkeypatch.setattr(TODMBrain, "evaluate", after_a_file_broke)
    train([*command(max_duration=long.duration - 0.01, max_batch_seconds=0.1), "--test_only"])

    scored = [changed[i] for i in (0, 1, 2, 3, 5)]
    words = {row.ID: len(row.wrds.split()) for row in scored}
    tested = json.loads((run / "errors_test-clean.json").read_text())
    assert dict(zip(tested["utterances"], tested["words"], strict=True)) == words
    # Nobody knows who says one of them.
    speakers = {row.ID: row.spk_id or row.ID for row in scored}
    assert read_tested(run, "test-clean").speakers == speakers
    assert speakers[missing.ID] != missing.ID
    results = json.loads((run / "results_test-clean.json").read_text())
    for result in results:
        errors = dict(zip(tested["utterances"], tested["errors"][result["subnet"]], strict=True))
        assert errors[missing.ID] == words[missing.ID]
        assert errors[breaks.ID] == words[breaks.ID]
        assert errors[odd.ID] >= 1
        assert result["WER"] == pytest.approx(100 * sum(errors.values()) / sum(words.values()))
        assert result["utterances"] == 5
        assert result["words"] == sum(words.values())
        assert result["undecodable"] == 2
        assert result["left_out"] == {"empty transcript": 1, "duplicate id": 1}
        alignments = (run / f"wer_test-clean_{result['subnet']}.txt").read_text()
        assert all(f"\n{name}, " in alignments for name in words)
    assert (
        f"Error rates of 5 utterances, {sum(words.values())} words; 2 of them could not be "
        "decoded, their words count as deleted; 1 left out: empty transcript; 1 left out: "
        "duplicate id."
    ) in capsys.readouterr().out
    log = (run / "log.txt").read_text()
    assert f"{breaks.ID} cannot be decoded, its words count as deleted: unreadable audio" in log


def test_validation_counts_what_it_cannot_decode_or_has_no_loss_of(train, run, command):
    path = run / "manifests" / "dev-clean.csv"
    rows = read_csv(path)
    changed = [
        replace(rows[0], wrds="光"),
        replace(rows[1], wrds="OPEN THE DOOR " * 100),
        replace(rows[2], wav="nowhere.flac"),
        *rows[3:],
    ]
    write_csv(path, changed)
    shutil.rmtree(run / "save")
    (run / "history.jsonl").unlink()
    train(command(number_of_epochs=1, max_batch_seconds=4.0))
    (epoch,) = map(json.loads, (run / "history.jsonl").read_text().splitlines())
    assert 0 < epoch["valid"]["max"] < float("inf")
    # More than half of the words cannot be found: no network says so many.
    assert epoch["valid"]["WER max"] > 50


def test_search_measures_what_validation_measures(run):
    path = run / "manifests" / "dev-clean.csv"
    rate, stereo, odd, silent, *rest = read_csv(path)
    samples = np.zeros(int(rate.duration * 8000))
    soundfile.write(run / "rate.flac", samples, 8000)
    samples = np.zeros((int(stereo.duration * 16000), 2))
    soundfile.write(run / "stereo.flac", samples, 16000)
    changed = [
        replace(rate, wav=str(run / "rate.flac")),
        replace(stereo, wav=str(run / "stereo.flac")),
        replace(odd, wrds="光"),
        replace(silent, wrds=""),
        *rest,
    ]
    write_csv(path, changed)
    hparams = load_run(run)
    tokenizer = run_tokenizer(hparams)
    valid, searched = read_splits(hparams, tokenizer).valid, dev_dataset(hparams, tokenizer)
    assert set(searched.data_ids) == {odd.ID, *(row.ID for row in rest)}
    assert searched.data_ids == valid.data_ids
    assert set(searched.undecodable) == {rate.ID, stereo.ID}
    assert searched.undecodable == valid.undecodable
    assert searched.left_out == valid.left_out == {"empty transcript": 1}
    batches = dev_utterances(hparams, searched, torch.device("cpu"))
    dev_set = DevSet(hparams["model"], batches, lambda ids: [])
    n_words = sum(len(row.wrds.split()) for row in changed)
    assert dev_set.scored == {"utterances": 5, "words": n_words, "undecodable": 2}
    assert dev_set.error_rate(hparams["space"].min) == 100


def a_missing_file(row):
    return replace(row, wav="nowhere.flac")


def no_words(row):
    return replace(row, wrds=" ")


@pytest.mark.parametrize(
    ("split", "change", "message"),
    [
        ("dev-clean", a_missing_file, "no utterance can be decoded .missing file"),
        ("dev-clean", no_words, "no utterance can be decoded .empty transcript"),
        ("test-clean", a_missing_file, "no utterance can be decoded .missing file"),
        ("test-clean", None, "no utterance can be decoded .the manifest is empty"),
        ("test-clean", "gone", "does not exist"),
        ("test-clean", "semicolons", "has semicolons between its cells"),
        ("train", a_missing_file, "no utterance can be used .missing file"),
    ],
)
def test_a_split_without_utterances_is_one_line(run, split, change, message):
    path = run / "manifests" / f"{split}.csv"
    if change == "gone":
        path.unlink()
    elif change == "semicolons":
        path.write_text(path.read_text().replace(",", ";"))
    else:
        write_csv(path, [change(row) for row in read_csv(path)] if change else [])
    hparams = load_run(run)
    with pytest.raises(DataError, match=rf"{split}\.csv:? {message}") as caught:
        read_splits(hparams, run_tokenizer(hparams))
    assert "\n" not in str(caught.value)


def test_all_splits_are_looked_at_before_the_first_step(train, run, command, monkeypatch):
    write_csv(run / "manifests" / "test-clean.csv", [])
    monkeypatch.setattr(TODMBrain, "fit", lambda *a, **k: pytest.fail("it trains"))
    with pytest.raises(DataError, match=r"test-clean\.csv: no utterance can be decoded"):
        train(command())


@pytest.mark.parametrize("size", [10, 100])
def test_characters_of_another_number_are_one_line_before_the_first_step(
    train, run, command, tmp_path, monkeypatch, size
):
    monkeypatch.setattr(TODMBrain, "fit", lambda *a, **k: pytest.fail("it trains"))
    with pytest.raises(ConfigError, match=r"char tokenizer of .* pieces.*set vocab_size to \d+"):
        train(
            command(
                output_folder=tmp_path / "characters",
                manifests=run / "manifests",
                tokenizer_type="char",
                vocab_size=size,
            )
        )


def test_with_strict_one_fault_of_a_test_set_is_an_error(train, run, command):
    path = run / "manifests" / "test-clean.csv"
    first, *rows = read_csv(path)
    write_csv(path, [a_missing_file(first), *rows])
    with pytest.raises(DataError, match=f"line 2: {first.ID}: missing file"):
        train([*command(), "--strict", "--test_only"])
