"""An encoder of a user's own, that of the examples, goes wherever the MH-SSM goes.

So does SpeechBrain's Conformer, and the MH-SSM with SSM heads as an elastic dimension.
"""

import json
import logging

import pytest
import torch
from tiny import ROOT, arguments, call, tiny_model
from torch import nn

from todm_sb.inference import StreamingSubnetASR, SubnetASR
from todm_sb.nnet.encoders import Encoder, build_encoder
from todm_sb.space import SubnetConfig
from todm_sb.training.runs import load_run
from todm_sb.utils.errors import ConfigError


@pytest.fixture(scope="module", autouse=True)
def _examples():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "examples")
        yield


@pytest.fixture
def encoder():
    kind = {"kind": "encoder.convolution", "n_features": 4, "d_model": 6}
    return build_encoder({**kind, "sizes": {"ffn_dims": [5, 7]}})


class FrameStacking(nn.Module):
    """Every two frames as one, projected."""

    def __init__(self, n_features, d_model):
        super().__init__()
        self.project = nn.Linear(2 * n_features, d_model)

    def forward(self, features, lengths):
        pairs = features[:, : features.shape[1] // 2 * 2].unflatten(1, (-1, 2)).flatten(2)
        return self.project(pairs), self.output_lengths(lengths)

    def output_lengths(self, lengths):
        return lengths // 2

    def macs(self, n_frames):
        return n_frames // 2 * self.project.weight.numel()


HEADS = {
    "search_space": "{n_layers: 2, min_layers: 1, ffn_dims: [16, 32], n_heads: [2, 4]}",
    "named_subnets": "{wide: {layers: [1], ffn_dims: [32], n_heads: [2]}, deep: null}",
    "model": tiny_model(),
}


def model_of(kind):
    """Override of the tiny recipe, whose keys are of the MH-SSM, by another kind."""
    encoder = {"kind": kind, "d_model": 16, "n_heads": 4, "channels": [4, 4], "state_size": 4}
    return json.dumps({"d_joint": 24, "encoder": encoder, "predictor": {"d_model": 16}})


OVERRIDES = {
    "convolution": {"model": model_of("encoder.convolution")},
    "conformer": {"model": model_of("conformer")},
    "heads": HEADS,
}
SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("conformer", "heads")]


@pytest.fixture(scope="module", params=["convolution", *SLOW])
def run(request, corpus, train, tmp_path_factory):
    """Name and folder of a tiny run."""
    folder = tmp_path_factory.mktemp(request.param) / "run"
    options = {"number_of_epochs": 1, **OVERRIDES[request.param]}
    train(arguments(corpus, folder, **options))
    return request.param, folder


def test_it_is_an_encoder_by_the_protocol(encoder):
    assert isinstance(encoder, Encoder)
    assert encoder.n_parameters() == sum(p.numel() for p in encoder.parameters())


@torch.no_grad()
def test_its_front_end_can_be_another(encoder):
    encoder.subsampling = FrameStacking(4, 6)
    features, lengths = torch.randn(2, 9, 4), torch.tensor([9, 5])
    config = SubnetConfig((1,), ffn_dims=(3,))
    expected, n_frames = encoder.eval()(features, lengths, config)
    assert (expected.shape, n_frames.tolist(), encoder.n_frames(9)) == ((2, 4, 6), [4, 2], 4)
    assert encoder.macs(9) == encoder.subsampling.macs(9) + encoder.layers.macs(4)
    torch.testing.assert_close(encoder.extract(config)(features, lengths)[0], expected)


def test_it_trains_is_searched_exported_and_read_back(run, corpus, tmp_path):
    kind, folder = run
    results = json.loads((folder / "results_test-clean.json").read_text(encoding="utf-8"))
    assert [result["subnet"] for result in results][:2] == ["max", "wide"]
    call("search", folder, "--evaluations", 2, "--no-baselines")
    found = json.loads((folder / "search" / "params" / "pareto.json").read_text(encoding="utf-8"))
    assert found["subnets"]

    call("export", folder, tmp_path / "all")
    call("inspect", tmp_path / "all")
    model, space = (load_run(folder)[key] for key in ("model", "space"))
    path = next(corpus.glob("test-clean/*/*/*.flac"))
    features, lengths = torch.randn(1, 40, model.encoder.n_features), torch.tensor([40])
    for subnet in ("max", "min"):
        asr = SubnetASR.from_bundle(tmp_path / "all", subnet)
        assert isinstance(asr.transcribe_file(path), str)
        small, config = asr.mods.encoder.model.encoder, getattr(space, subnet)
        assert small.kind == ("mhssm" if kind == "heads" else kind)
        assert len(small.layers) == len(config.layers)
        assert all(small.dimensions[key] == config[key] for key, _ in config.choices)
        with torch.no_grad():
            expected, _ = model.encoder(features, lengths, config)
            torch.testing.assert_close(small(features, lengths)[0], expected, rtol=1e-5, atol=1e-5)
    if kind == "heads":
        assert small.dimensions["n_heads"] == (2,)


def test_a_subnet_of_it_is_a_bundle_and_a_speechbrain_folder_of_its_own(run, corpus, tmp_path):
    _, folder = run
    path = next(corpus.glob("test-clean/*/*/*.flac"))
    call("export", folder, tmp_path / "bundle", "--subnet=min")
    call("export", folder, tmp_path / "folder", "--subnet=min", "--format=speechbrain")
    text = SubnetASR.from_bundle(tmp_path / "bundle").transcribe_file(path)
    assert SubnetASR.from_hparams(tmp_path / "folder").transcribe_file(path) == text


def test_what_it_cannot_do_is_refused_by_name_in_one_line(run, tmp_path):
    kind, folder = run
    if kind == "heads":
        pytest.skip("the MH-SSM can")
    for form in ("onnx", "onnx-int8", "web"):
        with pytest.raises(ConfigError, match=f"kind {kind} cannot be exported") as refused:
            call("export", folder, tmp_path / form, "--subnet=min", f"--format={form}")
        assert "\n" not in str(refused.value)
        assert not (tmp_path / form).exists()
    for command in (["search", folder], ["export", folder, tmp_path / "causal"]):
        with pytest.raises(ConfigError, match=f"\\({kind}\\) needs whole utterances"):
            call(*command, "--causal")
    call("export", folder, tmp_path / "bundle", "--subnet=min")
    asr = StreamingSubnetASR.from_bundle(tmp_path / "bundle")
    with pytest.raises(ConfigError, match="cannot stream, since its encoder is not causal"):
        asr.make_streaming_context()


def test_a_space_with_a_dimension_that_it_does_not_obey_is_refused(corpus, train, tmp_path):
    overrides = {**HEADS, **OVERRIDES["convolution"]}
    with pytest.raises(ConfigError, match="convolution has no 'n_heads'"):
        train(arguments(corpus, tmp_path / "run", **overrides))
    assert not (tmp_path / "run").exists()


def test_keys_of_another_kind_are_left_out_with_one_line(caplog, encoder):
    options = {**encoder.config, "kind": "convolution", "state_size": 8, "dual_mode": False}
    with caplog.at_level(logging.INFO):
        build_encoder(options)
    assert caplog.messages == ["encoder: convolution has no dual_mode, state_size; left out"]


def test_a_subnet_of_it_is_said_like_any_other(encoder):
    config = SubnetConfig((0,), ffn_dims=(5,))
    assert encoder.extract(config).config["ffn_dims"] == [5]
