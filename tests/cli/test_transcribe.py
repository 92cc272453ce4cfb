import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from todm_sb.cli import FAILED, OK, main
from todm_sb.cli.transcribe import _show
from todm_sb.inference import SubnetASR


@pytest.fixture
def audio(tmp_path):
    """Paths of a second of noise, and of a file that is no audio."""
    good, bad = tmp_path / "good.wav", tmp_path / "bad.wav"
    soundfile.write(good, 0.1 * np.random.default_rng(0).normal(size=16000), 16000)
    bad.write_text("no audio")
    return str(good), str(bad)


def refusal(argv, capsys):
    """What a command that does nothing says."""
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    return capsys.readouterr().err


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


def test_pipes_are_read_and_folders_cost_the_others_nothing(bundle, audio, tmp_path, capsys):
    assert main(["transcribe", audio[0], "--model", str(bundle)]) == OK
    _, expected = capsys.readouterr().out.rstrip("\n").split("\t")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(Path(audio[0]).read_bytes(),))
    writer.start()
    assert main(["transcribe", str(tmp_path), str(pipe), "--model", str(bundle)]) == FAILED
    writer.join()
    captured = capsys.readouterr()
    assert captured.out == f"{pipe}\t{expected}\n"
    assert f"error: {tmp_path} is a folder: name the audio files in it" in captured.err


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


def test_json_escapes_what_json_itself_does_not(capsys):
    _show({"audio": "a", "text": "\x9b2J\x7fÄ\u2028"}, as_json=True)
    line = capsys.readouterr().out
    assert "\\u009b2J\\u007fÄ" in line
    assert json.loads(line)["text"] == "\x9b2J\x7fÄ\u2028"


def test_json_has_an_object_a_line(bundle, audio, capsys):
    good, bad = audio
    assert main(["transcribe", good, bad, "--model", str(bundle), "--json"]) == FAILED
    read, failed = map(json.loads, capsys.readouterr().out.splitlines())
    assert read["audio"] == good
    assert read["seconds"] == 1.0
    assert read["time"] > 0
    assert isinstance(read["text"], str)
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
        (["--max-params", "1"], "no recorded subnet has params <= 1"),
        (["--max-params", "many"], "budget 'many'"),
        (["--max-params", ""], "budget ''"),
        (["--device", "abacus"], "--device abacus"),
    ],
)
def test_a_wrong_setting_is_one_line(bundle, audio, capsys, options, message):
    error = refusal(["transcribe", audio[0], "--model", str(bundle), *options], capsys)
    assert message in error.splitlines()[-1]


def test_a_yaml_that_could_run_code_is_not_read_unless_trusted(audio, tmp_path, capsys):
    (tmp_path / "hyperparams.yaml").write_text(f"x: !apply:os.mkdir ['{tmp_path / 'pwned'}']")
    error = refusal(["transcribe", audio[0], "--model", str(tmp_path)], capsys)
    assert "add --trusted" in error
    assert not (tmp_path / "pwned").exists()
