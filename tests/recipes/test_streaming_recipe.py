"""streaming.yaml, made tiny, on the mini corpus: trained, exported, and read from a stream."""

import numpy as np
import pytest
import torch
from tiny import arguments, call, tiny_model

from todm_sb.cli import OK, main
from todm_sb.inference import StreamingSubnetASR, SubnetASR

# The recipe takes the mini corpus for LibriSpeech; the keys are those that mini.yaml lacks.
OVERRIDES = {
    "model": tiny_model(),
    **dict.fromkeys(["n_train", "n_dev", "n_test"]),
    "named_subnets": "{shallow: {layers: [1], ffn_dims: [32]}}",
    "train_splits": "[train]",
    "dev_splits": "[dev-clean]",
    "test_splits": "[test-clean]",
    "num_workers": 0,
    "number_of_epochs": 1,
    "sandwich_warmup": 0,
}


def test_the_streaming_recipe_gives_a_network_that_streams(corpus, train, tmp_path, capsys, caplog):
    train(arguments(corpus, tmp_path / "run", "streaming.yaml", **OVERRIDES))
    folders = (tmp_path / "run", tmp_path / "min")
    call("export", *folders, "--subnet=min", "--format=speechbrain")
    asr = StreamingSubnetASR.from_hparams(tmp_path / "min")
    model = asr.mods.encoder.model
    assert model.encoder.subsampling.look_ahead == 3
    # Untrained joiners say little.
    model.joiner.output.bias[model.blank] -= 5.5
    for path in sorted(corpus.glob("test-clean/*/*/*.flac"))[:3]:
        pieces = list(asr.transcribe_file_streaming(str(path), chunk_seconds=0.2))
        assert "".join(pieces) == asr.transcribe_file(str(path))
        assert sum(map(bool, pieces)) > 2

    onnx_asr = pytest.importorskip("todm_sb.inference.onnx", reason="needs the extra onnx")
    export = ["export", str(tmp_path / "run"), str(tmp_path / "onnx"), "--format", "onnx"]
    with pytest.raises(SystemExit):
        main(export)
    assert "choose it with --subnet" in capsys.readouterr().err
    for form in ("onnx", "onnx-int8"):
        folder = tmp_path / form
        command = [*export[:2], str(folder), "--subnet", "min", "--format", form]
        assert main(command) == OK
        assert (folder / "streaming_encoder.onnx").exists()
    asr = SubnetASR.from_hparams(tmp_path / "min")
    wav = asr.load_audio(next(corpus.glob("test-clean/*/*/*.flac"))).unsqueeze(0)
    exported = onnx_asr.OnnxASR(tmp_path / "onnx")
    encoded, n_frames = exported.encode(wav, torch.ones(1))
    frames = asr.mods.encoder(wav, torch.ones(1))
    projected = asr.mods.encoder.model.joiner.project_encoder(frames).detach().numpy()
    assert n_frames == [projected.shape[1]]
    np.testing.assert_allclose(encoded, projected, rtol=0, atol=1e-3)
