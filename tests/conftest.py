"""What tests of several parts need: a fixed seed, and small networks with nothing left at zero."""

import gc
import hashlib
import json
import logging
import sqlite3

import pytest
import torch
from speechbrain.utils.importutils import LazyModule

from todm_sb.nnet.transducer import Transducer

# hypothesis asks every module for its file, on which SpeechBrain's lazy ones import what need not
# be installed.
LazyModule.__file__ = None


def pytest_collection_finish():
    """What was imported stays: it is not looked through again each time that garbage is."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _databases_are_not_for_power_cuts():
    """SQLite would wait for the disk several times a trial; a killed process loses nothing."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def hurry(connection, _):
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", hurry)
    yield
    event.remove(Engine, "connect", hurry)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_training_speaks_on():
    """The console that a training within a test logged to is closed by the next one."""
    yield
    root = logging.getLogger()
    for handler in [*root.handlers]:
        if type(handler).__module__.startswith("speechbrain."):
            root.removeHandler(handler)


def scatter_parameters(module, scale=0.2):
    """Moves every parameter off its initial value: zeros and ones hide mistakes."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(scale * torch.randn_like(p))
    return module


@pytest.fixture(name="scatter_parameters")
def _scatter_parameters():
    return scatter_parameters


@pytest.fixture
def make_transducer():
    """Builds a tiny network in evaluation mode; keywords go to the encoder."""

    def make(
        predictor="lstm",
        ctc=False,
        simple_joiner=False,
        dtype=torch.float32,
        seed=0,
        vocab_size=7,
        **encoder,
    ):
        torch.manual_seed(seed)
        network = Transducer(
            vocab_size=vocab_size,
            encoder={
                "n_features": 6,
                "d_model": 8,
                "ffn_dims": [12, 12, 12, 12],
                "n_heads": 4,
                "state_size": 3,
                "channels": [3, 4],
                "time_strides": [2, 2],
                **encoder,
            },
            predictor={"kind": predictor, "d_model": 6},
            d_joint=10,
            ctc=ctc,
            simple_joiner=simple_joiner,
        )
        return scatter_parameters(network.to(dtype)).eval()

    return make


@pytest.fixture
def make_talkative(make_transducer):
    """Networks that say a few labels a second in noise; arguments as of ``make_transducer``."""

    def make(*args, **options):
        model = make_transducer(*args, **options)
        with torch.no_grad():
            model.joiner.project_encoder.weight.mul_(4)
            model.joiner.output.weight.mul_(3)
            model.joiner.output.bias.zero_()
            model.joiner.output.bias[model.blank] = 3
        return model

    return make


@pytest.fixture
def make_recogniser(char_tokenizer_path):
    """Builds a recogniser of 8 kHz and 20 mel filters around a network."""
    from sentencepiece import SentencePieceProcessor
    from speechbrain.dataio.preprocess import AudioNormalizer
    from speechbrain.processing.features import InputNormalization

    from todm_sb.decoders.transducer import TransducerSearcher
    from todm_sb.inference.asr import SubnetASR, WaveformEncoder
    from todm_sb.nnet.features import SpeechFeatures, make_fbank
    from todm_sb.nnet.hop import hop_of

    def make(
        model,
        fbank,
        norm_type="global",
        cls=SubnetASR,
        tokenizer_path=char_tokenizer_path,
        **searcher,
    ):
        normalize = InputNormalization(norm_type=norm_type).eval()
        normalize.glob_mean, normalize.glob_std = torch.full((20,), -5.0), torch.full((20,), 3.0)
        fbank = make_fbank(8000, 20, 256, **{"win_length": 25, "hop_length": 10, **fbank})
        features = SpeechFeatures(fbank, normalize, hop_of(fbank.options)).eval()
        return cls(
            modules={
                "normalize": normalize,
                "encoder": WaveformEncoder(features, model),
                "decoder": TransducerSearcher(model, **searcher),
            },
            hparams={
                "sample_rate": 8000,
                "tokenizer": SentencePieceProcessor(model_file=str(tokenizer_path)),
                "audio_normalizer": AudioNormalizer(8000),
            },
        )

    return make


@pytest.fixture
def bundle_parts(make_transducer, char_tokenizer_path):
    """What a bundle is written from: a supernet that hears labels in noise, and all it needs."""
    from speechbrain.processing.features import InputNormalization

    from todm_sb.supernet import SearchSpace

    space = SearchSpace(n_layers=3, min_layers=1, ffn_dims=(6, 12))
    model = make_transducer(vocab_size=17, n_features=20, **space.sizes, ctc=True)
    with torch.no_grad():
        model.joiner.output.bias[model.blank] -= 5
    normalize = InputNormalization(norm_type="global")
    normalize.glob_mean, normalize.glob_std = torch.randn(20), 20 + torch.rand(20)
    return {
        "model": model,
        "normalize": normalize,
        "tokenizer_path": char_tokenizer_path,
        "fbank": {
            "sample_rate": 16000,
            "n_mels": 20,
            "n_fft": 400,
            "win_length": 25,
            "hop_length": 10,
        },
        "max_symbols": 2,
        "space": space,
    }


@pytest.fixture
def bundle(bundle_parts, tmp_path):
    """Folder with the bundle of a tiny supernet."""
    from todm_sb.bundle.bundle import write_bundle

    write_bundle(tmp_path / "bundle", **bundle_parts)
    return tmp_path / "bundle"


NUMBERS = ("SEVEN TWO FIVE NINE", "ZERO ONE SIX", "THREE FOUR EIGHT")


def _train_tokenizer(prefix, texts=NUMBERS, **options):
    from sentencepiece import SentencePieceTrainer

    SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_prefix=str(prefix),
        bos_id=-1,
        eos_id=-1,
        **options,
    )
    return prefix.with_suffix(".model")


@pytest.fixture(scope="session")
def char_tokenizer_path(tmp_path_factory):
    """A SentencePiece model of 17 characters; piece 0 is the unknown one."""
    prefix = tmp_path_factory.mktemp("tokenizer") / "chars"
    return _train_tokenizer(prefix, model_type="char", vocab_size=17)


@pytest.fixture(scope="session")
def byte_tokenizer_path(tmp_path_factory):
    """A SentencePiece model with a piece for each byte, for characters that it does not know."""
    prefix = tmp_path_factory.mktemp("tokenizer") / "bytes"
    return _train_tokenizer(prefix, model_type="bpe", vocab_size=280, byte_fallback=True)


@pytest.fixture(scope="session")
def cased_tokenizer_path(tmp_path_factory):
    """As that of bytes, of letters of both cases, of which Q was too rare to become a piece."""
    prefix = tmp_path_factory.mktemp("tokenizer") / "cased"
    texts = ["Ein Baum am bequemen Weg"] * 200 + ["Quelle"]
    return _train_tokenizer(prefix, texts, model_type="bpe", vocab_size=280, byte_fallback=True)


@pytest.fixture(scope="session")
def wide_tokenizer_path(tmp_path_factory):
    """A SentencePiece model of three Chinese characters."""
    prefix = tmp_path_factory.mktemp("tokenizer") / "wide"
    return _train_tokenizer(prefix, ["\u4f60\u597d\u754c"], model_type="char", vocab_size=5)


@pytest.fixture
def web_export(tmp_path):
    """Writes what looks like a subnet exported for the web: its server does not look into models.
    Keywords go to its card; returns the folder around all that were written."""
    from todm_sb.utils.hub import ONNX_FILES
    from todm_sb.web.models import CARD

    def write(path="min/int8", size=10, **card):
        folder = tmp_path / "exported" / path
        folder.mkdir(parents=True)
        for name in ONNX_FILES:
            (folder / name).write_bytes(b"x" * size)
        card = {"name": "min", "precision": "int8", "sample_rate": 8000, "max_symbols": 5, **card}
        (folder / CARD).write_text(json.dumps(card))
        return tmp_path / "exported"

    return write


@pytest.fixture
def web_runtime(tmp_path, monkeypatch):
    """A cache with small files in place of onnxruntime-web's, and their hashes."""
    from todm_sb.web import runtime

    contents = {name: name.encode() for name in runtime.FILES}
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    monkeypatch.setattr(runtime, "FILES", hashes)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    folder = runtime.default_cache()
    folder.mkdir(parents=True)
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub on this machine, with a cache that is empty."""
    from fake_hub import FakeHub, serving
    from huggingface_hub import constants

    with serving(FakeHub()) as server:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server
