"""Subnets that a browser can run."""

import shutil

import pytest


@pytest.fixture
def web_folder(make_talkative, char_tokenizer_path, tmp_path):
    """Two subnets that talk: Kaldi's features and labels without state; SpeechBrain's features,
    an LSTM, and several labels a frame."""
    pytest.importorskip("onnx", reason="needs the extra onnx")
    from speechbrain.processing.features import InputNormalization

    from todm_sb.bundle.manifest import BundledSubnet
    from todm_sb.export.web import export_web
    from todm_sb.supernet import SubnetConfig

    config = SubnetConfig((0, 1, 2, 3), ffn_dims=(12, 12, 12, 12))
    fbank = {"sample_rate": 8000, "n_mels": 20, "n_fft": 200, "win_length": 25, "hop_length": 10}
    normalize = InputNormalization(norm_type="sentence").eval()
    (tmp_path / "web").mkdir()
    for predictor, kind, max_symbols in (("stateless", "kaldi", 1), ("lstm", "speechbrain", 3)):
        model = make_talkative(predictor, vocab_size=17, n_features=20)
        export_web(
            tmp_path / predictor,
            [BundledSubnet(predictor, config, {"params": 1234}, {"WER": 5.0})],
            model,
            normalize,
            char_tokenizer_path,
            {**fbank, "fbank_kind": kind},
            max_symbols,
        )
        # Beside each other, though of two networks.
        shutil.move(tmp_path / predictor / predictor, tmp_path / "web")
    return tmp_path / "web"
