"""Own data, from recordings to text: 48 kHz stereo, German and Chinese, trained, measured, used."""

import json
import re
from textwrap import dedent

import numpy as np
import pytest
import soundfile
import tiny
from tiny import call

from todm_sb.dataio.faults import read_faults
from todm_sb.dataio.manifest import Row, write_csv
from todm_sb.dataio.split import read_splits
from todm_sb.dataio.tokenizer import tokenizer_of
from todm_sb.training.arguments import parse_arguments
from todm_sb.training.folder import run_folder
from todm_sb.training.recipe import Recipe
from todm_sb.training.runs import load_hparams
from todm_sb.training.settings import check_settings, load_checked
from todm_sb.utils.errors import TODMError

RATE = 48000
NOT_HERE = {*tiny.CORPUS_SIZE, "vocab_size"}
SENTENCES = ["Öffne die Tür", "打开 门", "Schließ das Fenster", "关上 窗户", "größer", "你好"]


def record(path, seed, seconds=1.0):
    """Noise in two channels, in place of speech."""
    noise = np.random.default_rng(seed).uniform(-0.3, 0.3, (round(seconds * RATE), 2))
    soundfile.write(path, noise, RATE)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder with a manifest of each form: of a folder, JSON, and parts of one file."""
    folder = tmp_path_factory.mktemp("own")
    for i, text in enumerate(SENTENCES * 2):
        path = folder / "train" / "anna" / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        record(path, i, 1 + 0.1 * i)
        path.with_suffix(".txt").write_text(text, encoding="utf-8")
    assert call("manifest", folder / "train", folder / "train.csv") == 0
    entries = {}
    for i, text in enumerate(SENTENCES):
        record(folder / f"dev-{i}.flac", 100 + i)
        wav = f"{{data_root}}/dev-{i}.flac"
        entries[f"dev-{i}"] = {"wav": wav, "duration": 1.0, "wrd": text}
    (folder / "dev.json").write_text(json.dumps(entries), encoding="utf-8")
    record(folder / "long.wav", 7, 2 * len(SENTENCES))
    write_csv(
        folder / "talk.csv",
        (
            Row(f"talk-{i}", 1.5, "long.wav", "", text, 2.0 * i, 2.0 * i + 1.5)
            for i, text in enumerate(SENTENCES)
        ),
    )
    return folder


def command(own, output, **overrides):
    options = {
        "output_folder": output,
        "train_csv": own / "train.csv",
        "valid_csv": own / "dev.json",
        "test_csvs": own / "talk.csv",
        "data_folder": own,
        "tokenizer_type": "char",
        "vocab_size": VOCAB,
        "letter_case": "lower",
        **{key: value for key, value in tiny.TINY.items() if key not in NOT_HERE},
        "number_of_epochs": 1,
        "named_subnets": "null",
        "model": tiny.tiny_model(),
        "augment_after": 0,
        **overrides,
    }
    recipe = tiny.LIBRISPEECH / "hparams" / "own.yaml"
    given = (f"--{key}={value}" for key, value in options.items())
    return [str(recipe), *given, "--noprogressbar", "--device=cpu"]


VOCAB = 1 + len(set("▁" + "".join(SENTENCES).lower().replace(" ", "")))


@pytest.fixture(scope="module")
def run(own, train, tmp_path_factory):
    """What comes of it."""
    output = tmp_path_factory.mktemp("results") / "own"
    train(command(own, output))
    return output


def test_it_is_trained_and_measured(run):
    results = json.loads((run / "results_talk.json").read_text(encoding="utf-8"))
    assert {entry["subnet"] for entry in results} == {"max", "min"}
    errors = json.loads((run / "errors_talk.json").read_text(encoding="utf-8"))
    assert errors["utterances"] == [f"talk-{i}" for i in range(len(SENTENCES))]
    tokenizer = tokenizer_of(load_hparams(run))
    known = {tokenizer.id_to_piece(i) for i in range(1, VOCAB)}
    assert known == set("▁" + "".join(SENTENCES).lower().replace(" ", ""))


def test_its_manifests_are_found_from_any_folder(own, tmp_path, monkeypatch):
    monkeypatch.chdir(own)
    given = {"train_csv": "train.csv", "test_csvs": "[talk.csv, dev.json]"}
    recipe, _ = parse_arguments(command(own, "results/own/1", **given))
    with run_folder(load_checked(recipe), recipe, []) as begin:
        begin()
    monkeypatch.chdir(tmp_path)
    found = load_hparams(own / "results" / "own" / "1")
    assert found["train_csv"] == str(own / "train.csv")
    assert found["test_csvs"] == [str(own / "talk.csv"), str(own / "dev.json")]


def test_a_subnet_of_it_transcribes_what_it_was_trained_on(run, own, tmp_path, capsys):
    call("export", run, tmp_path / "min", "--subnet=min")
    files = [own / "train" / "anna" / "0.wav", own / "dev-1.flac"]
    assert call("transcribe", *files, f"--model={tmp_path / 'min'}") == 0
    told = capsys.readouterr().out.splitlines()[1:]
    assert [line.split("\t")[0] for line in told] == [str(file) for file in files]


DOCS = (tiny.LIBRISPEECH.parents[2] / "docs" / "own_data.md").read_text(encoding="utf-8")


def test_the_docs_check_the_data_by_the_recipes_longest_duration():
    data = dict.fromkeys(("train_csv", "valid_csv"), "x")
    own = Recipe(tiny.LIBRISPEECH / "hparams" / "own.yaml", data).settings()
    (given,) = re.findall(r"check-data train.csv .*--max-duration (\d+)$", DOCS, re.MULTILINE)
    assert float(given) == own["max_duration"]


def test_the_recipe_of_the_docs_claims_no_language_and_no_corpus(tmp_path):
    (recipe,) = (part for part in DOCS.split("\n\n") if part.startswith("    base: "))
    base = tiny.LIBRISPEECH / "hparams" / "supernet.yaml"
    (tmp_path / "large.yaml").write_text(dedent(recipe).replace("supernet.yaml", str(base)))
    assert not any(Recipe(tmp_path / "large.yaml").settings()["card"].values())


FAULTS = {
    "a column is missing": ("ID,duration,wav\na,1.0,a.wav\n", "no column 'wrds' or 'wrd'"),
    "a file is missing": ("ID,duration,wav,wrd\na,1.0,none.wav,ja\n", "missing file"),
    "the text is empty": ("ID,duration,wav,wrd\na,1.0,dev-0.flac,\n", "empty transcript"),
    "stop is before start": (
        "ID,duration,wav,wrd,start,stop\na,1.0,dev-0.flac,ja,1.0,0.0\n",
        "stop is not after start",
    ),
    "a part is beyond the end": (
        "ID,duration,wav,wrd,start,stop\na,1.0,dev-0.flac,ja,0.5,1.5\n",
        "part that goes beyond the end of its file",
    ),
    "an id is there twice": (
        "ID,duration,wav,wrd\na,1.0,dev-0.flac,ja\na,1.0,dev-1.flac,ja\n",
        "duplicate id",
    ),
    "zero length": ("ID,duration,wav,wrd\na,0,dev-0.flac,ja\n", "zero length"),
    "wrong JSON": ('{"a": {"wav": "dev-0.flac"', "is not JSON"),
    "nothing": ("", "no column 'ID'"),
}


@pytest.fixture(scope="module")
def hparams(own, run):
    """Of the run, with the data refused at the first fault."""
    return {**load_hparams(run), "strict": True}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_of_the_data_is_one_line(own, hparams, kind):
    text, message = FAULTS[kind]
    (own / "broken.csv").write_text(text, encoding="utf-8")
    with pytest.raises(TODMError, match=message) as caught:
        read_splits({**hparams, "test_csvs": str(own / "broken.csv")}, tokenizer_of(hparams))
    assert "\n" not in str(caught.value)
    assert "broken.csv" in str(caught.value)


SETTINGS = {
    "of two test sets one name": ({"test_csvs": ["a/t.csv", "b/T.csv"]}, "data set twice"),
    "a test set that is a number": ({"test_csvs": [1]}, r"test_csvs\[0\] must be"),
    "another normalisation": ({"text_normalization": "nfd"}, "text_normalization must be"),
    "letters of another case": ({"letter_case": "title"}, "letter_case must be"),
    "resampling by word": ({"resample": "yes please"}, "resample must be"),
}


@pytest.fixture(scope="module")
def plain(own):
    """The plain settings of the recipe."""
    recipe, _ = parse_arguments(command(own, "none"))
    settings = recipe.settings()
    check_settings(settings)
    return settings


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_wrong_setting_is_one_line_before_anything_is_built(plain, kind):
    overrides, message = SETTINGS[kind]
    with pytest.raises(TODMError, match=message) as caught:
        check_settings({**plain, **overrides})
    assert "\n" not in str(caught.value)


DATA_SETTINGS = {
    "no such column": ({"text_column": "satz"}, "no column 'satz'"),
    "no resampling": ({"resample": False}, "wrong sample rate"),
    "no mixdown": ({"mixdown": False}, "more than one channel"),
    "the root is not given": ({"data_folder": None}, "data_root. is in the path of 'dev-0': give"),
    "too few pieces": ({"vocab_size": 30, "tokenizer_folder": "none"}, f"vocab_size to {VOCAB}"),
    "no such file": ({"valid_csv": "none.csv"}, "manifest none.csv does not exist: name another"),
}


@pytest.mark.parametrize("kind", DATA_SETTINGS)
def test_a_setting_that_does_not_go_with_the_data_is_one_line(hparams, kind):
    overrides, message = DATA_SETTINGS[kind]
    changed = {**hparams, **overrides}
    with pytest.raises(TODMError, match=message) as caught:
        read_splits(changed, tokenizer_of(changed))
    assert "\n" not in str(caught.value)


def test_manifests_of_the_same_name_keep_their_faults_apart(own, hparams, tmp_path):
    for kind in ("train", "dev"):
        (tmp_path / kind).mkdir()
        rows = [
            Row(kind, 1.0, str(own / "none.wav"), "", "你好"),
            Row("a", 1.0, str(own / "dev-0.flac"), "", "你好"),
        ]
        write_csv(tmp_path / kind / "data.csv", rows)
    train, dev = (str(tmp_path / kind / "data.csv") for kind in ("train", "dev"))
    changed = {**hparams, "train_csv": train, "valid_csv": dev, "strict": False}
    read_splits({**changed, "output_folder": str(tmp_path)}, tokenizer_of(hparams))
    for kind in ("train", "valid"):
        (fault,) = read_faults(tmp_path / f"faults_{kind}_data.csv")
        assert fault.cause == "missing file"
    assert (tmp_path / "faults_talk.csv").is_file()
