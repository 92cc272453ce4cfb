"""Own data, from recordings to text: 48 kHz stereo, German and Chinese, trained, measured, used."""

import json
import re

import numpy as np
import pytest
import soundfile
import tiny
from tiny import call

from todm_sb.dataio.manifest import Row, write_csv
from todm_sb.inference.asr import SubnetASR
from todm_sb.utils.errors import TODMError

RATE = 48000
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
        "train_csv": own / "train.csv",
        "valid_csv": own / "dev.json",
        "test_csvs": own / "talk.csv",
        "data_folder": own,
        "tokenizer_type": "char",
        "vocab_size": 34,
        "letter_case": "lower",
        **{key: value for key, value in tiny.TINY.items() if key not in tiny.CORPUS_SIZE},
        "number_of_epochs": 1,
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
    train(command(own, output, output_folder=output, vocab_size=VOCAB))
    return output


def test_it_is_trained_and_measured(run):
    results = json.loads((run / "wer_talk.json").read_text(encoding="utf-8"))
    assert "max" in json.dumps(results)
    log = (run / "train_log.txt").read_text()
    assert re.search(r"valid WER", log)


def test_a_subnet_of_it_transcribes_what_it_was_trained_on(run, own, tmp_path, capsys):
    call("export", run, tmp_path / "min", "--subnet=min")
    asr = SubnetASR.from_bundle(str(tmp_path / "min"))
    text = asr.transcribe_file(str(own / "train" / "anna" / "0.wav"))
    assert isinstance(text, str)
    files = [own / "train" / "anna" / "0.wav", own / "dev-1.flac"]
    assert call("transcribe", *files, f"--model={tmp_path / 'min'}") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


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


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_of_the_data_is_one_line_before_training(own, run, train, kind):
    text, message = FAULTS[kind]
    (own / "broken.csv").write_text(text, encoding="utf-8")
    before = tiny.contents(run)
    with pytest.raises(TODMError, match=message) as caught:
        train(
            command(
                own,
                run,
                output_folder=run,
                vocab_size=VOCAB,
                test_csvs=own / "broken.csv",
                strict=True,
            )
        )
    assert "\n" not in str(caught.value)
    changed = {name for name, what in tiny.contents(run).items() if before.get(name) != what}
    assert all(name.startswith(("faults_", "prepared", "log", ".")) for name in changed), changed


SETTINGS = {
    "of two test sets one name": ({"test_csvs": "[a/t.csv, b/t.csv]"}, "data set twice"),
    "another normalisation": ({"text_normalization": "nfd"}, "text_normalization"),
    "no such column": ({"text_column": "satz"}, "no column 'satz'"),
    "no resampling": ({"resample": False}, "wrong sample rate"),
    "no mixdown": ({"mixdown": False}, "more than one channel"),
    "the root is not given": ({"data_folder": "null"}, "data_root. is in the path of"),
    "too few pieces": ({"vocab_size": 30}, rf"set vocab_size to {VOCAB}"),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_wrong_setting_is_one_line(own, train, tmp_path, kind):
    overrides, message = SETTINGS[kind]
    options = {"vocab_size": VOCAB, "output_folder": tmp_path / "run", **overrides}
    with pytest.raises(TODMError, match=message) as caught:
        train(command(own, tmp_path, **options))
    assert "\n" not in str(caught.value)
