"""What of a manifest is trained on, and in which batches."""

import logging
import pickle

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from todm_sb.dataio.faults import EVALUATE
from todm_sb.dataio.manifest import Row, write_csv
from todm_sb.dataio.pipeline import make_dataset, make_loader_kwargs
from todm_sb.dataio.tokenizer import get_tokenizer
from todm_sb.utils.errors import DataError

WORDS = ["TURN ON THE LIGHT", "TURN OFF THE LIGHT", "THE RADIO IS ON", "IS THE DOOR OPEN"]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for i, words in enumerate(WORDS * 3):
        wav = folder / f"{i}.flac"
        soundfile.write(wav, np.full(1600 * (12 - i), 0.25), 16000)
        rows.append(Row(f"u{i}", (12 - i) / 10, str(wav), "spk", words))
    write_csv(folder / "train.csv", rows)
    return folder, rows


@pytest.fixture(scope="module")
def tokenizer(manifest):
    folder, _ = manifest
    return get_tokenizer(str(folder / "tokenizer"), 20, str(folder / "train.csv"))


def no_limit(seconds):
    return 1000


def test_an_utterance_becomes_samples_words_and_labels_without_blank(manifest, tokenizer):
    folder, rows = manifest
    dataset = make_dataset(str(folder / "train.csv"), tokenizer, no_limit)
    assert len(dataset) == len(rows)
    item = dataset[len(dataset) - 1]
    assert item["id"] == "u0"
    assert item["sig"].shape == (19200,)
    assert float(item["sig"].mean()) == pytest.approx(0.25, abs=1e-4)
    assert item["words"] == WORDS[0].split()
    assert tokenizer.decode_ids(item["tokens"].tolist()) == WORDS[0]
    assert tokenizer.unk_id() not in item["tokens"]


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"wrds": ""}, "empty transcript"),
        ({"wrds": "THE QUIZ"}, "characters that the tokenizer does not know"),
        ({"duration": 50.0}, "longer than max_duration"),
        ({"duration": 0.01}, "more labels than the audio has frames"),
    ],
)
def test_an_utterance_that_cannot_be_trained_on_is_left_out_and_counted(
    manifest, tokenizer, tmp_path, caplog, change, cause
):
    _, rows = manifest
    bad = Row(**{**vars(rows[0]), "ID": "bad", **change})
    write_csv(tmp_path / "mixed.csv", [*rows, bad])
    write_csv(tmp_path / "bad.csv", [bad])

    def frames(seconds):
        return int(seconds * 300)

    with caplog.at_level(logging.WARNING):
        dataset = make_dataset(str(tmp_path / "mixed.csv"), tokenizer, frames, max_duration=20.0)
    assert set(dataset.data_ids) == {row.ID for row in rows}
    (line,) = [r.getMessage() for r in caplog.records if "left out" in r.getMessage()]
    assert "mixed.csv: 1 left out" in line
    assert cause in line
    with pytest.raises(DataError, match=f"no utterance can be used .*{cause}"):
        make_dataset(str(tmp_path / "bad.csv"), tokenizer, frames, max_duration=20.0)


def test_a_missing_manifest_is_named(tokenizer, tmp_path):
    with pytest.raises(DataError, match=r"none\.csv does not exist"):
        make_dataset(str(tmp_path / "none.csv"), tokenizer, no_limit)


def test_batches_hold_similar_durations_up_to_a_length_in_an_order_of_seed_and_epoch(
    manifest, tokenizer
):
    folder, rows = manifest
    dataset = make_dataset(str(folder / "train.csv"), tokenizer, no_limit)
    duration = {i: dataset.data[dataset.data_ids[i]]["duration"] for i in range(len(dataset))}

    def batches(seed, epoch, shuffle=True):
        sampler = make_loader_kwargs(dataset, 3.0, seed, shuffle)["batch_sampler"]
        sampler.set_epoch(epoch)
        return list(sampler)

    first = batches(1, 1)
    assert sorted(i for batch in first for i in batch) == list(range(len(rows)))
    assert all(len(b) * max(duration[i] for i in b) <= 3.0 + 1e-9 for b in first)
    assert batches(1, 1) == first
    assert batches(1, 2) != first
    assert batches(2, 1) != first
    assert batches(1, 1, shuffle=False) == batches(2, 7, shuffle=False)


def test_to_be_evaluated_an_utterance_may_be_long_and_have_any_letters(
    manifest, tokenizer, tmp_path
):
    _, rows = manifest
    changes = {"wrds": "THE 光 RADIO 42"}, {"wrds": "光"}, {"wav": "none"}, {"wrds": ""}
    odd = [Row(**{**vars(rows[0]), "ID": f"odd{i}", **new}) for i, new in enumerate(changes)]
    write_csv(tmp_path / "test.csv", [*rows, *odd])
    dataset = make_dataset(
        str(tmp_path / "test.csv"), tokenizer, lambda s: 0, max_duration=0.1, purpose=EVALUATE
    )
    assert set(dataset.data_ids) == {row.ID for row in rows} | {"odd0", "odd1"}
    assert dataset.undecodable == {"odd2": rows[0].wrds.split()}
    assert dataset.left_out == {"empty transcript": 1}
    items = {name: dataset[dataset.data_ids.index(name)] for name in ("odd0", "odd1")}
    assert items["odd0"]["words"] == ["THE", "光", "RADIO", "42"]
    known = tokenizer.encode_as_ids("THE RADIO")
    assert set(known) <= set(items["odd0"]["tokens"].tolist())
    # Blank and unknown letters are no labels of a loss.
    assert 0 not in items["odd0"]["tokens"]
    assert 0 not in items["odd1"]["tokens"]


@pytest.mark.parametrize("seconds", [0.05, 0.65, 1.2, 3.0, 1000.0])
@pytest.mark.parametrize("shuffle", [False, True])
def test_every_utterance_is_in_one_batch_however_long(manifest, tokenizer, seconds, shuffle):
    folder, rows = manifest
    dataset = make_dataset(
        str(folder / "train.csv"), tokenizer, no_limit, max_duration=1.0, purpose=EVALUATE
    )
    batches = list(make_loader_kwargs(dataset, seconds, 1, shuffle)["batch_sampler"])
    names = [dataset.data_ids[i] for batch in batches for i in batch]
    assert sorted(names) == sorted(row.ID for row in rows)
    duration = {row.ID: row.duration for row in rows}
    for batch in batches:
        longest = max(duration[dataset.data_ids[i]] for i in batch)
        assert len(batch) == 1 or len(batch) * longest <= seconds + 1e-9


@pytest.mark.parametrize("purpose", ["train", EVALUATE])
def test_what_a_worker_gets_can_be_pickled(manifest, tokenizer, purpose):
    folder, _ = manifest
    dataset = make_dataset(
        str(folder / "train.csv"), tokenizer, no_limit, sample_rate=16000, purpose=purpose
    )
    options = make_loader_kwargs(dataset, 3.0, 1)
    copy, collate, _ = pickle.loads(
        pickle.dumps((dataset, options["collate_fn"], options["batch_sampler"]))
    )
    own, theirs = (c([d[0], d[5]]) for c, d in ((options["collate_fn"], dataset), (collate, copy)))
    assert own.id == theirs.id
    assert torch.equal(own.sig.data, theirs.sig.data)
    assert torch.equal(own.tokens.data, theirs.tokens.data)


@pytest.mark.parametrize("start", ["spawn", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_a_worker_that_is_not_forked_reads_what_this_process_reads(manifest, tokenizer, start):
    folder, _ = manifest
    dataset = make_dataset(str(folder / "train.csv"), tokenizer, no_limit, sample_rate=16000)
    options = make_loader_kwargs(dataset, 3.0, 1, shuffle=False)
    others = DataLoader(dataset, num_workers=1, multiprocessing_context=start, **options)
    pairs = list(zip(DataLoader(dataset, **options), others, strict=True))
    assert pairs
    for own, theirs in pairs:
        assert own.id == theirs.id
        assert torch.equal(own.sig.data, theirs.sig.data)
        assert own.words == theirs.words
