import inspect
import json
import os
import pickle
import re

import pytest
import safetensors.torch
import torch
from forged import vouch_for
from speechbrain.processing.features import InputNormalization

from todm_sb.bundle.bundle import read_bundle, write_bundle
from todm_sb.bundle.manifest import BundledSubnet
from todm_sb.nnet.encoders import KINDS, check_encoder
from todm_sb.nnet.features import SpeechFeatures, make_fbank
from todm_sb.nnet.hop import hop_of
from todm_sb.nnet.predictor import LSTMPredictor, StatelessPredictor
from todm_sb.nnet.transducer import NETWORK_CHECKS
from todm_sb.supernet import SubnetConfig, count_parameters, extract_subnet
from todm_sb.utils.errors import ConfigError


def rewrite(folder, change=None, **files):
    """Changes a bundle's files, makes sizes and hashes fit, and then changes its JSON."""
    names = {"weights": "weights.safetensors", "tokenizer": "tokenizer.model"}
    for name, content in files.items():
        (folder / names[name]).write_bytes(content)
    vouch_for(folder, [names[name] for name in files])
    if change is not None:
        data = json.loads((folder / "bundle.json").read_text())
        change(data)
        (folder / "bundle.json").write_text(json.dumps(data))


def tensors_of(folder):
    return safetensors.torch.load((folder / "weights.safetensors").read_bytes())


def refusal(folder):
    """The one line that a bundle is refused with."""
    with pytest.raises(ConfigError) as caught:
        read_bundle(folder)
    line = str(caught.value)
    assert line.startswith(f"bundle {folder}: ")
    assert line.isprintable()
    assert len(line) < 500
    return line


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fbank_kind": "kaldi", "snip_edges": True},
        {"norm_type": "sentence"},
        {"hop_length": 30},
    ],
)
def test_a_bundle_gives_back_the_same_network_and_features(bundle_parts, tmp_path, options):
    norm_type = options.pop("norm_type", "global")
    if norm_type == "sentence":
        bundle_parts["normalize"] = InputNormalization(norm_type="sentence")
    bundle_parts["fbank"].update(options)
    write_bundle(tmp_path, **bundle_parts)
    loaded = read_bundle(tmp_path)
    model = bundle_parts["model"]
    fbank = bundle_parts["fbank"]
    features = SpeechFeatures(make_fbank(**fbank), bundle_parts["normalize"], hop_of(fbank))
    batch = torch.randn(2, 9000), torch.tensor([1.0, 0.6])
    expected, lengths = features.eval()(*batch)
    found, found_lengths = loaded.features(*batch)
    assert torch.equal(found, expected)
    assert torch.equal(found_lengths, lengths)
    assert torch.equal(loaded.model.encoder(found, lengths)[0], model.encoder(found, lengths)[0])
    labels = torch.tensor([[1, 2, 3]])
    assert torch.equal(loaded.model.predictor(labels)[0], model.predictor(labels)[0])
    assert loaded.model.ctc_output is None
    assert not loaded.model.training


def test_the_manifest_knows_every_argument_that_a_network_can_have(bundle_parts):
    """A new argument has to be added to the manifest, with its range."""
    data = {"n_features": 2, "d_model": 2, "ffn_dims": [2], "unknown": 0}
    with pytest.raises(ConfigError, match="unknown key 'unknown'"):
        check_encoder(data, "encoder")
    sizes = {"n_features": 2, "d_model": 2, "ffn_dims": [2]}
    predictor = NETWORK_CHECKS["predictor"]
    for cls, check, values in (
        *((kind.build, check_encoder, {**sizes, "kind": name}) for name, kind in KINDS.items()),
        (LSTMPredictor, predictor, {"kind": "lstm", "d_model": 2}),
        (StatelessPredictor, predictor, {"kind": "stateless", "d_model": 2}),
    ):
        for name, parameter in inspect.signature(cls).parameters.items():
            if name in ("vocab_size", "blank") or parameter.default is parameter.empty:
                continue
            default = parameter.default
            check({**values, name: list(default) if type(default) is tuple else default}, "x")


def test_a_single_subnets_bundle_records_which_it_is(bundle_parts, tmp_path):
    model, space = bundle_parts["model"], bundle_parts["space"]
    config = SubnetConfig((0, 2), ffn_dims=(6, 12))
    subnet = BundledSubnet("own", config, {"params": count_parameters(model, config)})
    bundle_parts |= {"model": extract_subnet(model, config), "space": None, "subnets": [subnet]}
    write_bundle(tmp_path, **bundle_parts)
    found = read_bundle(tmp_path).manifest
    assert found.subnets == (subnet,)
    assert found.choose() is None
    assert found.choose("own") is None
    assert found.choose('{"ffn_dims":[6,12],"layers":[0,2]}') is None
    with pytest.raises(ConfigError, match="single subnet own, not 'max'"):
        found.choose("max")
    assert config in space


@pytest.fixture
def measured(bundle_parts, tmp_path):
    """Manifest of a supernet with four measured subnets."""
    model, space = bundle_parts["model"], bundle_parts["space"]
    wide, deep = SubnetConfig((1,), ffn_dims=(12,)), SubnetConfig((0, 1, 2), ffn_dims=(6, 6, 6))
    figures = {
        "max": (space.max, 5.0, 0.030),
        "deep": (deep, 6.0, 0.025),
        "wide": (wide, 7.0, 0.011),
        "min": (space.min, 9.0, 0.010),
    }
    subnets = [
        BundledSubnet(
            name, c, {"params": count_parameters(model, c), "latency": latency}, {"WER": wer}
        )
        for name, (c, wer, latency) in figures.items()
    ]
    return write_bundle(tmp_path, **bundle_parts, subnets=subnets)


def test_limits_choose_the_lowest_error_rate_among_what_fits(measured):
    by_name = {s.name: s for s in measured.subnets}

    def chosen(**limits):
        config = measured.choose(**limits)
        return next(s.name for s in measured.subnets if s.config == config)

    assert chosen() == "max"
    assert chosen(max_params=by_name["max"].cost["params"]) == "max"
    assert chosen(max_params=by_name["max"].cost["params"] - 1) == "deep"
    assert chosen(max_params=by_name["deep"].cost["params"] - 1) == "wide"
    assert chosen(max_latency_ms=11) == "wide"
    assert chosen(max_latency_ms=10.5) == "min"
    assert chosen(max_latency_ms=100, max_params=by_name["wide"].cost["params"]) == "wide"


def test_any_config_of_the_space_can_be_chosen(measured):
    config = SubnetConfig((0, 2), ffn_dims=(12, 6))
    assert measured.choose(config) == measured.choose(config.to_json()) == config


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"max_params": 10}, "no recorded subnet has params <= 10; least is"),
        ({"max_latency_ms": 1}, "no recorded subnet has latency <= 1 ms; least is 10 ms"),
        ({"subnet": "min", "max_params": 10**9}, "not both"),
        ({"subnet": "huge"}, "unknown subnet 'huge': give one of max, min, deep, wide"),
        ({"subnet": ""}, "unknown subnet ''"),
        ({"subnet": SubnetConfig((0,), ffn_dims=(7,))}, "outside the search space"),
    ],
)
def test_a_choice_that_cannot_be_met_is_one_line(measured, request_, message):
    with pytest.raises(ConfigError, match=message):
        measured.choose(**request_)


def test_no_limit_applies_to_a_figure_that_is_not_recorded(bundle):
    with pytest.raises(ConfigError, match="records no latency"):
        read_bundle(bundle).manifest.choose(max_latency_ms=10)


class Payload:
    """Unpickled, it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_in_place_of_any_file_is_refused_and_does_not_run(bundle, tmp_path):
    evil = pickle.dumps(Payload(tmp_path / "pwned"))
    whole = (bundle / "tokenizer.model").read_bytes()
    weights = (bundle / "weights.safetensors").read_bytes()
    rewrite(bundle, weights=evil.ljust(len(weights), b"\0"))
    assert "no safetensors file" in refusal(bundle)
    torch.save(Payload(tmp_path / "pwned"), tmp_path / "saved")
    rewrite(bundle, weights=(tmp_path / "saved").read_bytes().ljust(len(weights), b"\0"))
    assert "no safetensors file" in refusal(bundle)
    rewrite(bundle, weights=weights, tokenizer=evil)
    assert "no SentencePiece model" in refusal(bundle)
    rewrite(bundle, tokenizer=whole)
    read_bundle(bundle)
    (bundle / "bundle.json").write_bytes(evil)
    assert "not usable JSON" in refusal(bundle)
    assert not (tmp_path / "pwned").exists()


def test_a_yaml_beside_the_bundle_is_not_read(bundle, tmp_path):
    (bundle / "hyperparams.yaml").write_text(f"x: !apply:os.mkdir ['{tmp_path / 'pwned'}']")
    read_bundle(bundle)
    assert not (tmp_path / "pwned").exists()


FILES = ("bundle.json", "weights.safetensors", "tokenizer.model")


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_flipped_renamed_linked_or_special_file_is_refused(bundle, tmp_path, name):
    path = bundle / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refusal(bundle)
    path.write_bytes(b"")
    refusal(bundle)
    if name != "bundle.json":
        flipped = bytearray(whole)
        flipped[len(whole) // 3] ^= 4
        path.write_bytes(flipped)
        assert f"{name} is damaged" in refusal(bundle)
    path.rename(bundle / "other")
    assert f"{name} is missing" in refusal(bundle)
    path.symlink_to(bundle / "other")
    assert f"{name} is a link" in refusal(bundle)
    path.unlink()
    os.mkfifo(path)
    assert f"{name} is no regular file" in refusal(bundle)
    path.unlink()
    path.mkdir()
    refusal(bundle)


def test_two_files_exchanged_are_refused(bundle):
    weights, tokenizer = bundle / "weights.safetensors", bundle / "tokenizer.model"
    data = weights.read_bytes(), tokenizer.read_bytes()
    weights.write_bytes(data[1])
    tokenizer.write_bytes(data[0])
    assert "bytes instead of" in refusal(bundle)


def test_what_is_no_folder_is_refused(bundle, tmp_path):
    assert "is not a folder" in refusal(tmp_path / "nowhere")
    assert "is not a folder" in refusal(bundle / "bundle.json")
    (tmp_path / "empty").mkdir()
    assert "bundle.json is missing" in refusal(tmp_path / "empty")


def at(*keys, value):
    """A change of one place of the JSON."""

    def change(data):
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = value

    return change


RECORD = {"bytes": 4, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (at("files", "../x", value=RECORD), "unknown key '../x'"),
        (at("files", "/etc/passwd", value=RECORD), "unknown key '/etc/passwd'"),
        (at("files", "weights.safetensors", "bytes", value=1 << 39), "549,755,813,888 bytes for"),
        (at("files", "tokenizer.model", "bytes", value=1 << 39), "larger than"),
        (at("files", "tokenizer.model", "bytes", value=10**400), "must be an integer"),
        (at("files", "tokenizer.model", "bytes", value=99), "bytes instead of 99"),
        (at("version", value=2), "is of version 2, but this todm_sb reads 1"),
        (at("version", value="1"), "version must be an integer"),
        (at("format", value="zip"), "does not say that its format"),
        (at("surplus", value=1), "unknown key 'surplus'"),
        (lambda data: data.pop("max_symbols"), "key 'max_symbols' is missing"),
        (at("max_symbols", value=True), "max_symbols must be an integer in 1..100, not True"),
        (at("max_symbols", value=2.0), "max_symbols must be an integer in 1..100, not 2.0"),
        (at("max_symbols", value=10**6), "max_symbols must be"),
        (at("network", "vocab_size", value=10**12), "network.vocab_size must be"),
        (at("network", "vocab_size", value=1 << 20), "bytes for a network of"),
        (at("network", "encoder", "d_model", value=65536), "bytes for a network of"),
        (at("network", "encoder", "d_model", value=-8), "encoder.d_model must be"),
        (at("network", "encoder", "ffn_dims", value=[65536] * 128), "the max subnet of its search"),
        (at("network", "encoder", "ffn_dims", value=[1] * 10**5), "a list of 1..128"),
        (at("network", "encoder", "n_heads", value=3), "multiple of heads"),
        (at("network", "encoder", "__class__", value="os.system"), "unknown key '__class__'"),
        (at("network", "predictor", "kind", value="os.system"), "'lstm' or 'stateless'"),
        (at("network", "predictor", "contexts", value=2), "unknown key 'contexts'"),
        (at("network", "encoder", "dt_range", value=[float("nan"), 1]), "NaN is not a number"),
        (at("features", "mean", 0, value=float("inf")), "Infinity is not a number"),
        (at("features", "mean", value=[0.0] * 7), "length of features.mean is 7"),
        (at("features", "mean", value=None), "both be given"),
        (at("features", "std", 3, value=-1), r"features.std\[3\] must be a number"),
        (at("features", "n_fft", value=64), "longer than n_fft"),
        (at("features", "sample_rate", value=10**9), "features.sample_rate must be"),
        (at("space", "min_layers", value=9), "min_layers"),
        (at("space", value=None), "the one subnet must be the network itself"),
        (at("subnets", 0, "ffn_dims", value=[7, 7, 7]), "outside the search space"),
        (at("subnets", 0, "cost", "params", value=1), "its cost says 1"),
        (at("subnets", 1, "name", value="max"), "the same name|another one"),
        (at("subnets", 1, "name", value="\x1b[2J"), "subnets\\[1\\].name must be"),
        (at("subnets", value=[]), "subnets must be a list"),
    ],
)
def test_a_manifest_that_is_not_as_it_should_be_is_refused(bundle, change, message):
    rewrite(bundle, change)
    line = refusal(bundle)
    assert re.search(message, line), line


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"format": "todm_sb bundle", "format": "todm_sb bundle"}',
        "[]",
        "null",
        '"\ud800"',
        " " * (5 << 20),
        '{"format": "todm_sb bundle", "version": ' + "9" * 5000 + "}",
    ],
)
def test_json_beyond_reason_is_refused(bundle, text):
    (bundle / "bundle.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    refusal(bundle)


def test_weights_that_do_not_fit_are_refused(bundle):
    name, other = "joiner.output.bias", "joiner.output.weight"
    for change, message in (
        (lambda t: t.update({name: t[name].reshape(1, -1)}), f"{name} is F32 \\[1, 17\\]"),
        (lambda t: t.update({name: t[name].view(torch.int32)}), f"{name} is I32"),
        (lambda t: t.update({other: t[other].T.contiguous()}), f"{other} is F32"),
        (lambda t: t.update({"x" * 9: t.pop(name)}), "tensor"),
        (lambda t: t.update({name: t[name] / 0}), "not finite"),
    ):
        tensors = tensors_of(bundle)
        kept = (bundle / "weights.safetensors").read_bytes()
        change(tensors)
        rewrite(bundle, weights=safetensors.torch.save(tensors))
        with pytest.raises(ConfigError, match=message):
            read_bundle(bundle)
        rewrite(bundle, weights=kept)
    read_bundle(bundle)


def test_a_huge_claim_is_refused_before_anything_is_allocated(bundle):
    """The weights are replaced by a sparse file of a terabyte that the manifest vouches for."""
    size = 1 << 40
    with (bundle / "weights.safetensors").open("r+b") as file:
        file.truncate(size)
    rewrite(bundle, at("files", "weights.safetensors", "bytes", value=size))
    assert "1,099,511,627,776 bytes for a network of" in refusal(bundle)


def test_a_tokenizer_of_other_pieces_is_refused(bundle):
    whole = (bundle / "tokenizer.model").read_bytes()
    # Field 1 of the protobuf is a repeated piece: one more makes 18.
    rewrite(bundle, tokenizer=whole + b"\x0a\x08\x0a\x01#\x15\0\0\0\0")
    assert "18 pieces, but the network 17 labels" in refusal(bundle)


def field(number, data):
    """A field of bytes in protobuf's form."""
    length, rest = b"", len(data)
    while rest > 127:
        length, rest = length + bytes([rest & 127 | 128]), rest >> 7
    return bytes([number << 3 | 2]) + length + bytes([rest]) + data


TRIE = b"\0\xfc\xff\x7f\0\xff\xff\x7f" * 128  # its nodes lead far out of it


@pytest.mark.parametrize(
    "attack",
    [field(1, field(1, b"A" * 2_000_000)), field(3, field(2, b"\0\4\0\0" + TRIE + b"\0"))],
    ids=["a long piece", "a map of characters that leads out of itself"],
)
def test_a_tokenizer_that_crashes_older_versions_of_sentencepiece_is_refused(bundle, attack):
    rewrite(bundle, tokenizer=(bundle / "tokenizer.model").read_bytes() + attack)
    assert "no SentencePiece model" in refusal(bundle)


def test_a_tokenizer_cannot_command_a_terminal(bundle):
    whole = (bundle / "tokenizer.model").read_bytes()
    at_piece = whole.index(b"\x0a\x01", 20)
    for character, message in ((b"\x1b", "control character"), (b"\xff", "no UTF-8")):
        rewrite(bundle, tokenizer=whole[: at_piece + 2] + character + whole[at_piece + 3 :])
        assert message in refusal(bundle)
