import io
import json
import os
import re
import shutil
import threading
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from todm_sb.cli import FAILED, OK, main
from todm_sb.cli.recogniser import load
from todm_sb.cli.transcripts import Result, show
from todm_sb.inference import SubnetASR
from todm_sb.inference.formats import FORMATS, SUFFIXES
from todm_sb.inference.recogniser import Transcribed
from todm_sb.inference.results import Transcript
from todm_sb.inference.sources import Source, sources_of
from todm_sb.utils.errors import ConfigError


@pytest.fixture
def audio(tmp_path):
    """Paths of a second of noise, and of a file that is no audio."""
    good, bad = tmp_path / "good.wav", tmp_path / "bad.wav"
    soundfile.write(good, 0.1 * np.random.default_rng(0).normal(size=16000), 16000)
    bad.write_text("no audio")
    return str(good), str(bad)


def test_each_file_is_a_line_and_a_bad_one_costs_the_exit_code(bundle, audio, capsys):
    good, bad = audio
    assert main(["transcribe", good, "--model", str(bundle)]) == OK
    alone = capsys.readouterr().out
    path, text = alone.rstrip("\n").split("\t")
    assert path == good
    assert text
    assert main(["transcribe", bad, good, "--model", str(bundle)]) == FAILED
    captured = capsys.readouterr()
    assert captured.out == alone
    assert f"error: {bad} cannot be read as audio" in captured.err


def test_a_pipe_is_read(bundle, audio, tmp_path, capsys):
    assert main(["transcribe", audio[0], "--model", str(bundle)]) == OK
    _, expected = capsys.readouterr().out.rstrip("\n").split("\t")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(Path(audio[0]).read_bytes(),))
    writer.start()
    assert main(["transcribe", str(pipe), "--model", str(bundle)]) == OK
    writer.join()
    assert capsys.readouterr().out == f"{pipe}\t{expected}\n"


@pytest.mark.parametrize("name", ["a" * 300 + ".wav", "\udcff.wav"])
def test_a_file_of_an_impossible_name_costs_the_others_nothing(
    bundle, audio, tmp_path, capsys, name
):
    paths = [str(tmp_path / name), audio[0]]
    assert main(["transcribe", *paths, "--model", str(bundle), "--json"]) == FAILED
    failed, read = map(json.loads, capsys.readouterr().out.splitlines())
    assert "error" in failed
    assert read["text"]


def test_a_file_whose_name_is_no_text_is_read(bundle, audio, tmp_path, capsys):
    path = shutil.copy(audio[0], tmp_path / "\udcff.wav")
    assert main(["transcribe", str(path), "--model", str(bundle)]) == OK
    assert capsys.readouterr().out.startswith(f"{tmp_path}/\\udcff.wav\t")


@pytest.fixture
def shouting(bundle_parts, byte_tokenizer_path, make_transducer, tmp_path):
    """A bundle whose network says escape, a control character of two bytes, and line break."""
    from sentencepiece import SentencePieceProcessor

    from todm_sb.bundle.bundle import write_bundle

    tokenizer = SentencePieceProcessor(model_file=str(byte_tokenizer_path))
    options = {**bundle_parts["model"].config["encoder"]}
    model = make_transducer(vocab_size=tokenizer.vocab_size(), ctc=True, **options)
    with torch.no_grad():
        bias = model.joiner.output.bias
        bias.fill_(-100)
        for byte in b"\x1b\n\xc2\x9b":
            bias[tokenizer.piece_to_id(f"<0x{byte:02X}>")] = 0
    parts = {**bundle_parts, "model": model, "tokenizer_path": byte_tokenizer_path}
    write_bundle(tmp_path / "shouting", **parts)
    return tmp_path / "shouting"


def test_a_bundle_of_a_tokenizer_with_bytes_cannot_command_a_terminal(shouting, audio, capsys):
    text = SubnetASR.from_bundle(shouting).transcribe_file(audio[0])
    assert any(ord(character) < 32 for character in text)
    assert main(["transcribe", audio[0], "--model", str(shouting)]) == OK
    line = capsys.readouterr().out
    assert line.endswith("\n")
    _, shown = line[:-1].split("\t")
    assert shown.isprintable()
    assert shown == text.replace("\x1b", "\\x1b").replace("\n", "\\x0a").replace("\x9b", "\\x9b")
    assert main(["transcribe", audio[0], "--model", str(shouting), "--json"]) == OK
    line = capsys.readouterr().out
    assert line[:-1].isprintable()
    assert json.loads(line)["text"] == text


def test_json_has_an_object_a_line(bundle, audio, capsys):
    good, bad = audio
    assert main(["transcribe", good, bad, "--model", str(bundle), "--json"]) == FAILED
    read, failed = map(json.loads, capsys.readouterr().out.splitlines())
    assert read["audio"] == good
    assert read["seconds"] == 1.0
    assert read["time"] > 0
    assert isinstance(read["text"], str)
    assert " ".join(word["word"] for word in read["words"]).split() == read["text"].split()
    assert failed.keys() == {"audio", "error"}


def test_the_subnet_can_be_chosen_by_name_or_limit(bundle, audio, capsys):
    outputs = []
    for choice in (["--subnet", "min"], ["--max-params", "2k"], []):
        main(["transcribe", audio[0], "--model", str(bundle), *choice])
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] != outputs[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--subnet", "huge"], "unknown subnet 'huge'"),
        (["--subnet", ""], "unknown subnet ''"),
        (["--max-params", "1"], "no recorded subnet has params <= 1"),
        (["--max-params", "many"], "budget 'many'"),
        (["--max-params", ""], "budget ''"),
        (["--device", "abacus"], "--device abacus"),
    ],
)
def test_a_wrong_setting_is_one_line(bundle, audio, refusal, options, message):
    assert message in refusal(["transcribe", audio[0], "--model", str(bundle), *options])


def test_a_yaml_that_could_run_code_is_not_read_unless_trusted(audio, tmp_path, refusal):
    (tmp_path / "hyperparams.yaml").write_text(f"x: !apply:os.mkdir ['{tmp_path / 'pwned'}']")
    assert "add --trusted" in refusal(["transcribe", audio[0], "--model", str(tmp_path)])
    assert not (tmp_path / "pwned").exists()


def test_an_empty_name_of_a_subnet_is_none_of_a_speechbrain_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(SubnetASR, "from_supernet", lambda folder, subnet, run_opts: subnet)
    assert load(tmp_path, subnet="", trusted=True) == ""


@pytest.fixture
def folder(tmp_path):
    """Audio files of noise, of several lengths, in a folder with other things; by their names."""
    rng, folder = np.random.default_rng(1), tmp_path / "recordings"
    (folder / "deep").mkdir(parents=True)
    seconds = {"b.wav": 0.5, "a.flac": 2.0, "deep/c.WAV": 1.0}
    for name, length in seconds.items():
        samples = 0.1 * rng.normal(size=round(16000 * length))
        soundfile.write(folder / name, samples, 16000, format=Path(name).suffix[1:].upper())
    (folder / "notes.txt").write_text("no audio")
    (folder / ".hidden.wav").write_text("no audio")
    (folder / "deep" / "again").symlink_to(folder)
    return folder


def lines_of(capsys, argv, code=OK):
    assert main(["transcribe", *map(str, argv)]) == code
    return capsys.readouterr().out.splitlines()


def test_folders_and_lists_name_what_is_in_them_and_order_stays(bundle, folder, capsys):
    names = ["a.flac", "b.wav", "deep/c.WAV"]
    one_by_one = [lines_of(capsys, [folder / x, "--model", bundle])[0] for x in names]
    assert lines_of(capsys, [folder, "--model", bundle]) == one_by_one
    # Batches of one and of all give the same.
    for seconds in (0.1, 1e308):
        argv = [folder, "--model", bundle, "--batch-seconds", seconds]
        assert lines_of(capsys, argv) == one_by_one
    (folder / "list").write_text("b.wav\n\na.flac\n")
    listed = lines_of(capsys, ["--list", folder / "list", "--model", bundle])
    assert listed == [one_by_one[1], one_by_one[0]]


def test_standard_input_is_audio_or_a_list(bundle, audio, monkeypatch, capsys):
    good, _ = audio
    (expected,) = lines_of(capsys, [good, "--model", bundle])
    _, text = expected.split("\t")
    with open(good, encoding="latin-1") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert lines_of(capsys, ["-", "--model", bundle]) == [f"-\t{text}"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{good}\n".encode())))
    assert lines_of(capsys, ["--list", "-", "--model", bundle]) == [expected]


def test_a_list_of_a_shell_may_hold_any_names(monkeypatch):
    stdin = io.TextIOWrapper(io.BytesIO(b"b\xe4r.wav\r\n \na\rb.wav\n\nlast.wav"), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", stdin)
    names = ["b\udce4r.wav", "a\rb.wav", "last.wav"]
    assert [source.path for source in sources_of([], ["-"])] == names


@pytest.mark.parametrize("name", ["list", "./list", "-"])
def test_a_dash_in_a_list_is_a_file_beside_it(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list").write_text("-\na.wav\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"-\na.wav\n")))
    dash, other = sources_of([], [name])
    assert dash == Source(os.path.join(".", "-"), "-")
    assert other == Source("a.wav", "a")


@pytest.mark.parametrize("form", FORMATS)
def test_each_format_is_a_file_of_its_own_with_output(
    bundle, folder, tmp_path, capsys, refusal, form
):
    output = tmp_path / "out"
    argv = [folder, "--model", bundle, "--format", form, "--output", output]
    assert lines_of(capsys, argv) == []
    found = {str(p.relative_to(output)): p for p in output.rglob("*.*") if p.name[0] != "."}
    assert found.keys() == {f"{x}{SUFFIXES[form]}" for x in ("a", "b", "deep/c")}
    text = found[f"a{SUFFIXES[form]}"].read_text(encoding="utf-8")
    if form == "json":
        assert json.loads(text)["audio"].endswith("a.flac")
    elif form == "ctm":
        assert text.startswith("a 1 ")
    elif form == "vtt":
        assert text.startswith("WEBVTT\n\n00:00:0")
    # Once more: its own files are replaced; a changed one is somebody's.
    assert lines_of(capsys, argv) == []
    found[f"a{SUFFIXES[form]}"].write_text("mine")
    assert "was changed since: move it away" in refusal(["transcribe", *map(str, argv)])


def test_what_is_heard_before_an_interruption_has_its_file(tmp_path):
    def results():
        for name, seconds in {"a": 300.0, "b": 301.0, "c": 3600.0, "d": 1.0}.items():
            yield Result(Transcribed(Source(f"{name}.wav", name), Transcript(seconds, ())))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        show(Namespace(output=tmp_path, format="text"), results())
    assert {x.name for x in tmp_path.glob("*.txt")} == {"a.txt", "b.txt", "c.txt"}


def test_a_reference_is_in_a_text_file_as_it_is_on_the_screen(bundle, folder, tmp_path, capsys):
    (folder / "x.trans.txt").write_text("b SEVEN TWO\n")
    argv = [folder / "b.wav", "--model", bundle, "--reference"]
    text, reference = lines_of(capsys, argv)
    assert reference == "  reference:\tSEVEN TWO"
    lines_of(capsys, [*argv, "--output", tmp_path / "out"])
    found = (tmp_path / "out" / "b.txt").read_text(encoding="utf-8").splitlines()
    assert found == [text.partition("\t")[2], reference]


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_whose_name_is_no_text_has_a_file_of_its_own(bundle, audio, tmp_path, form):
    path = shutil.copy(audio[0], tmp_path / "\udcff.wav")
    output = tmp_path / "out"
    argv = ["transcribe", str(path), "--model", str(bundle), "--format", form]
    assert main([*argv, "--output", str(output)]) == OK
    text = (output / f"\udcff{SUFFIXES[form]}").read_text(encoding="utf-8")
    if form in ("json", "jsonl"):
        assert json.loads(text)["audio"] == str(path)


def test_nbest_are_alternatives_of_a_beam(bundle, audio, capsys):
    argv = [audio[0], "--model", bundle, "--format", "json", "--nbest", 3]
    (found,) = json.loads("".join(lines_of(capsys, argv)))
    (segment,) = found["segments"]
    scores = [alternative["score"] for alternative in segment["nbest"]]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert segment["nbest"][0]["text"] == found["text"]


def test_hot_words_and_a_language_model_change_the_text(bundle, audio, tmp_path, capsys):
    hot, lm = tmp_path / "hot.txt", tmp_path / "lm.arpa"
    hot.write_text("SEVEN :30\n")
    lm.write_text("\\1-grams:\n-9 ZERO\n-9 </s>\n-0.1 NINE\n\\end\\\n")
    (plain,) = lines_of(capsys, [audio[0], "--model", bundle, "--beam-size", 4])
    (hotter,) = lines_of(capsys, [audio[0], "--model", bundle, "--hotwords", hot])
    assert "SEVEN" not in plain
    assert "SEVEN" in hotter
    (fused,) = lines_of(capsys, [audio[0], "--model", bundle, "--lm", lm, "--lm-weight", 2])
    assert fused != plain


def test_long_audio_is_cut_unless_it_is_told_not_to_be(bundle, tmp_path, capsys):
    long = tmp_path / "long.wav"
    soundfile.write(long, 0.1 * np.random.default_rng(0).normal(size=16000 * 5), 16000)

    def n_segments(*options):
        argv = [long, "--model", bundle, "--format", "json", "--nbest", 2, *options]
        return len(json.loads("".join(lines_of(capsys, argv)))[0]["segments"])

    assert n_segments() == n_segments("--segment", "off") == 1
    assert n_segments("--segment", 2) >= 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["AUDIO", "AUDIO", "--format", "srt"], "--format srt is of one recording"),
        (["AUDIO", "--nbest", "2"], "json or jsonl has alternatives"),
        (["AUDIO", "--nbest", "3", "--beam-size", "2", "--json"], "the beam must hold as many"),
        (["AUDIO", "--beam-size", "1", "--hotwords", "HOT"], "a beam of 1 is greedy search"),
        (["AUDIO", "--hotwords", "nowhere"], "hot words nowhere: No such file"),
        (["AUDIO", "--hotwords", "HOT", "--hotwords-boost", "nan"], "--hotwords-boost nan"),
        (["AUDIO", "--hotwords", "HOT", "--hotwords-boost", "1e5"], "boost 100000 is no number up"),
        (["AUDIO", "--lm", "LM", "--lm-weight", "1e308"], r"weight 1e\+308 is no number up"),
        (["AUDIO", "--hotwords-boost", "3"], "--hotwords-boost is of --hotwords FILE"),
        (["AUDIO", "--lm", "nowhere"], "nowhere cannot be read"),
        (["AUDIO", "--lm-weight", "3"], "--lm-weight is of --lm FILE"),
        (["AUDIO", "--lm", "FOLDER"], "holds no hyperparams.yaml of a language model"),
        (["AUDIO", "--segment", "0.5"], "must be off, or at least 1"),
        (["AUDIO", "--segment", "abc"], "must be off, or at least 1, not abc"),
        (["AUDIO", "--device", "meta"], "--device meta is not to be had on this machine"),
        (["AUDIO", "--format", "ctm", "--reference"], "no place for a --reference"),
        (["AUDIO", "AUDIO", "--output", "OUT"], "would both be written as good"),
        (["AUDIO", "--output", "HOT"], "is a file: name a folder"),
        (
            [".written.wav", "--format", "json", "--output", "OUT"],
            r"out/\.written\.json is the list of what this command wrote: choose another name",
        ),
        (["AUDIO", "AUDIO", "--format", "ctm"], "would both be written as good"),
        (["my file.wav", "my_file.flac", "--format", "ctm"], "would both be written as my_file"),
        ([], "nothing to transcribe"),
        (["FOLDER"], "holds no audio file"),
        (["-", "-"], "standard input \\(-\\) can be one thing only"),
        (["--list", "nowhere"], "list nowhere cannot be read"),
    ],
)
def test_options_that_do_not_fit_are_one_line(bundle, audio, tmp_path, refusal, options, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "hot").write_text("SEVEN\n")
    places = {"FOLDER": "empty", "HOT": "hot", "OUT": "out"}
    places = {"AUDIO": audio[0], **{key: str(tmp_path / name) for key, name in places.items()}}
    argv = ["transcribe", "--model", str(bundle), *(places.get(x, x) for x in options)]
    assert re.search(message, refusal(argv))
    assert not (tmp_path / "out").exists()


def test_nothing_is_read_from_a_terminal_or_from_nowhere(bundle, monkeypatch, refusal):
    terminal = SimpleNamespace(isatty=lambda: True)  # nobody types: it has no lines
    for stdin, message in ((terminal, "a terminal here"), (None, "closed here")):
        monkeypatch.setattr("sys.stdin", stdin)
        for argv in (["-"], ["--list", "-"]):
            assert message in refusal(["transcribe", "--model", str(bundle), *argv])


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (None, "does not exist: name the folder of an export"),
        ("history.jsonl", "is a training run: todm-sb export"),
        ("encoder.onnx", "holds ONNX models, which todm-sb transcribe runs"),
        ("weights", "holds no bundle.json"),
    ],
)
def test_a_place_that_is_no_bundle_is_told_what_it_is(tmp_path, file, message):
    place = tmp_path / "place"
    if file:
        place.mkdir()
        (place / file).touch()
    with pytest.raises(ConfigError, match=message):
        load(place)


def test_an_option_that_onnx_models_have_not_is_told_so(tmp_path, refusal):
    (tmp_path / "encoder.onnx").touch()
    argv = ["transcribe", "a.wav", "--model", str(tmp_path), "--beam-size", "4"]
    assert "--beam-size is of bundles, with PyTorch" in refusal(argv)
