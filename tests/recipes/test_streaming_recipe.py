"""streaming.yaml, made tiny, on the mini corpus: trained, exported, and read from a stream."""

from conftest import LIBRISPEECH, arguments, load_script

from todm_sb.inference import StreamingSubnetASR

# The recipe takes the mini corpus for LibriSpeech; the keys are those that mini.yaml lacks.
OVERRIDES = {
    **dict.fromkeys(["n_train", "n_dev", "n_test"]),
    "named_subnets": "{shallow: {layers: [1], ffn_dims: [32]}}",
    "train_splits": "[train]",
    "test_splits": "[test-clean]",
    "num_workers": 0,
    "sandwich_warmup": 0,
}


def test_the_streaming_recipe_gives_a_network_that_streams(corpus, train, tmp_path):
    train(arguments(corpus, tmp_path / "run", "streaming.yaml", **OVERRIDES))
    load_script(LIBRISPEECH / "export.py").main(tmp_path / "run", tmp_path / "min", "min")
    asr = StreamingSubnetASR.from_hparams(tmp_path / "min")
    model = asr.mods.encoder.model
    assert model.encoder.subsampling.look_ahead == 3
    # Untrained joiners say little.
    model.joiner.output.bias[model.blank] -= 5.5
    for path in sorted(corpus.glob("test-clean/*/*/*.flac"))[:3]:
        pieces = list(asr.transcribe_file_streaming(str(path), chunk_seconds=0.2))
        assert "".join(pieces) == asr.transcribe_file(str(path))
        assert sum(map(bool, pieces)) > 2
