"""Encoders by name: what a user or an author of one gets wrong is one line that names it."""

import pytest
from torch import nn

from todm_sb.nnet.encoders import LayerStack, StackedEncoder, build_encoder, check_encoder, register
from todm_sb.nnet.encoders.registry import KINDS
from todm_sb.utils.errors import ConfigError

SIZES = {"n_features": 6, "d_model": 8, "sizes": {"ffn_dims": [5]}}


@pytest.fixture(autouse=True)
def _kinds(monkeypatch):
    """What a test registers is forgotten after it."""
    known = dict(KINDS)
    yield
    KINDS.clear()
    KINDS.update(known)


def refused(options, *words, **others):
    with pytest.raises(ConfigError) as error:
        build_encoder({**SIZES, **options, **others})
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("key", ["causal", "dual_mode"])
def test_what_a_user_counts_on_is_never_left_out(key):
    refused({"kind": "conformer", key: True}, "conformer", f"set {key}: False")
    built = build_encoder({**SIZES, "kind": "conformer", key: False, "state_size": 3})
    assert built.modes == (False,)


@pytest.mark.parametrize("kind", ["lstm", 3, None, ["conformer"], {}, "", ".x", "x.", "nobody.x"])
def test_a_kind_that_there_is_not(kind):
    refused({"kind": kind}, "encoder: kind")


@pytest.mark.parametrize(
    ("code", "words"),
    [("def x(:", "SyntaxError"), ("raise RuntimeError('no\\ngood')", "RuntimeError: no good")],
)
def test_a_module_that_cannot_be_imported(code, words, tmp_path, monkeypatch):
    (tmp_path / "broken_module_of_mine.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    refused({"kind": "broken_module_of_mine.x"}, "broken_module_of_mine", words, "PYTHONPATH")


def test_a_dimension_that_the_kind_does_not_obey():
    sizes = {"ffn_dims": [5], "n_heads": [2]}
    refused({"kind": "conformer"}, "conformer is not elastic in n_heads", sizes=sizes)
    sizes = {"ffn_dims": [5], "ranks": [2]}
    refused({"kind": "conformer"}, "conformer has no 'ranks'", "ranks: null", sizes=sizes)


class Lacking(StackedEncoder):
    """Sets nothing that it has to set."""

    def __init__(self, n_features, d_model, ffn_dims):
        super().__init__()

    dimensions = encode = None


def test_a_class_that_builds_no_encoder():
    register("lacking")(Lacking)
    refused({"kind": "lacking"}, "lacking lacks config, d_model, layers")
    register("linear")(lambda n_features, d_model, ffn_dims: nn.Linear(n_features, d_model))
    refused({"kind": "linear"}, "linear lacks", "extract")
    abstract = type("Abstract", (Lacking,), {"encode": StackedEncoder.encode})
    register("abstract")(abstract)
    refused({"kind": "abstract"}, "encode")


@pytest.mark.parametrize("error", [KeyError, AttributeError, ValueError, TypeError])
def test_a_class_that_fails_to_build(error):
    class Failing(Lacking):
        def __init__(self, n_features, d_model, ffn_dims):
            raise error("oops")

    register("failing")(Failing)
    refused({"kind": "failing"}, "encoder: failing", "oops")


def test_layers_that_cannot_be_cut_or_counted():
    class Cut(nn.Linear):
        def extract(self): ...

    for layer, lacks in ((nn.Linear(2, 2), "Linear.*extract"), (Cut(2, 2), "Cut.*macs")):
        with pytest.raises(TypeError, match=lacks):
            LayerStack([layer])


@pytest.mark.parametrize("kind", ["stranger", ["conformer"], None, {}, 3])
def test_a_bundle_of_a_kind_that_is_not_registered_says_what_to_import(kind):
    with pytest.raises(ConfigError, match=r"network.encoder.kind .*--import"):
        check_encoder({"kind": kind}, "network.encoder")
