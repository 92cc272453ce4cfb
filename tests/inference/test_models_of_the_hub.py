"""Wherever a model is loaded, a repository of the Hub does as well as a folder."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from speechbrain.utils.fetching import FetchConfig

from todm_sb.cli import OK, main
from todm_sb.export.speechbrain import export_folder
from todm_sb.inference import StreamingSubnetASR, SubnetASR
from todm_sb.training.runs import weights_id
from todm_sb.training.sources import read_source
from todm_sb.utils.errors import ConfigError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def exported(bundle_parts, tmp_path):
    """A SpeechBrain folder of a supernet."""
    export_folder(tmp_path / "exported", **bundle_parts, hop=160)
    return tmp_path / "exported"


@pytest.fixture
def speech(tmp_path):
    path = tmp_path / "speech.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).normal(size=16000), 16000)
    return str(path)


def weights(asr):
    return weights_id(asr.mods.encoder.model)


@pytest.mark.parametrize("cls", [SubnetASR, StreamingSubnetASR])
def test_networks_are_loaded_from_the_hub(hub, bundle, exported, tmp_path, cls):
    hub.push("org/bundle", bundle)
    hub.push("org/folder", exported, "v1")
    local = cls.from_bundle(bundle, subnet="min")
    assert weights(cls.from_bundle("org/bundle", subnet="min")) == weights(local)
    for load in (cls.from_hparams, cls.from_supernet):
        own = weights(load(exported))
        assert weights(load("org/folder@v1")) == own
        assert weights(load("org/folder", revision="v1", savedir=tmp_path / "kept")) == own
    # As SpeechBrain has it, without a network.
    config = FetchConfig(revision="v1", allow_network=False)
    asked = len(hub.requests)
    assert weights(cls.from_hparams("org/folder", fetch_config=config)) == weights(
        cls.from_hparams(exported)
    )
    assert len(hub.requests) == asked
    with pytest.raises(ConfigError, match=r"holds none of bundle\.json"):
        cls.from_bundle("org/folder@v1")
    with pytest.raises(ConfigError, match="no revision main"):
        cls.from_hparams("org/folder", revision="main")


def test_commands_take_models_of_the_hub(hub, bundle, exported, speech, tmp_path, capsys):
    hub.push("org/bundle", bundle)
    hub.push("org/folder", exported)

    def says(*argv):
        assert main(list(argv)) == OK
        return capsys.readouterr().out

    transcribe = ["transcribe", speech, "--subnet", "min", "--model"]
    text = says(*transcribe, str(bundle))
    assert says(*transcribe, "org/bundle") == text
    assert says(*transcribe, "org/folder", "--trusted") == says(
        *transcribe, str(exported), "--trusted"
    )
    assert says("inspect", "org/bundle") == says("inspect", str(bundle))
    (tmp_path / "test.csv").write_text(f"ID,duration,wav,wrd\nu,1.0,{speech},ONE TWO\n")
    found = [
        json.loads(says("evaluate", place, "test.csv", "--subnet", "min", "--json"))
        for place in ("org/bundle", str(bundle))
    ]
    assert found[0] == found[1]
    for model, message in (
        ("org/none", "org/none is no folder here, and no model on the Hub"),
        ("org/folder", "org/folder holds no bundle.json; if it is a SpeechBrain folder"),
        ("org/bundle@v9", "org/bundle has no revision v9 on the Hub"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["transcribe", speech, "--model", model])
        assert ended.value.code == 2
        err = capsys.readouterr().err
        assert err.startswith(f"error: {message}")
        assert err.count("\n") == 1


def test_a_device_without_pytorch_fetches_its_models(hub, bundle_parts, speech, tmp_path):
    pytest.importorskip("onnx", reason="needs the extra onnx")
    from todm_sb.export.onnx import export_onnx
    from todm_sb.inference.onnx import OnnxASR

    parts = {key: value for key, value in bundle_parts.items() if key != "space"}
    export_onnx(tmp_path / "onnx", **parts)
    hub.push("org/onnx", tmp_path / "onnx")
    hub.private.add("org/onnx")
    expected = OnnxASR(tmp_path / "onnx").transcribe_file(speech)
    assert OnnxASR("org/onnx", token=hub.token).transcribe_file(speech) == expected
    # As a user does it, in a process of its own.
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": hub.token}
    code = (
        "import sys; from todm_sb.cli import main; code = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules and 'speechbrain' not in sys.modules; sys.exit(code)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, "transcribe", speech, "--model", "org/onnx"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert (told.returncode, told.stdout, told.stderr) == (0, f"{speech}\t{expected}\n", "")


@pytest.mark.parametrize("form", ["bundle", "exported"])
def test_training_begins_from_a_model_of_the_hub(hub, form, request):
    folder = request.getfixturevalue(form)
    hub.push("org/model", folder, "v1")
    local, fetched = (read_source(place, "min") for place in (str(folder), "org/model@v1"))
    assert weights_id(fetched.model) == weights_id(local.model)
    assert fetched.tokenizer == local.tokenizer
    with pytest.raises(ConfigError, match="init_from org/none: org/none is no folder here"):
        read_source("org/none")


def test_the_recipe_of_a_strangers_run_is_not_loaded(hub, tmp_path, capsys):
    run = tmp_path / "pushed"
    run.mkdir()
    (run / "hyperparams.yaml").write_text("x: !apply:builtins.print [ran]\n")
    (run / "history.jsonl").write_text("{}\n")
    hub.push("org/run", run)
    with pytest.raises(ConfigError, match="holds neither a training run nor a bundle"):
        read_source("org/run")
    # Not even where other programs have fetched more of it than we would.
    (commit,) = (tmp_path / "hub" / "models--org--run" / "snapshots").iterdir()
    (commit / "history.jsonl").write_text("{}\n")
    (tmp_path / "test.csv").write_text("ID,duration,wav,wrd\nu,1.0,a.wav,ONE\n")
    for argv in (["evaluate", "org/run", "test.csv"], ["transcribe", "a", "--model", "org/run"]):
        with pytest.raises(SystemExit):
            main(argv)
    captured = capsys.readouterr()
    assert "ran" not in captured.out.split()
    assert captured.err.count("org/run is a training run") == 2
