"""Trainings that begin from a trained network, in each form that there is."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from test_mini_recipe import same, weights
from tiny import LIBRISPEECH, ROOT, arguments, call, contents, load_script

from todm_sb.bundle.bundle import read_bundle
from todm_sb.supernet import SubnetConfig, extract_subnet
from todm_sb.training.adaptation import start_of
from todm_sb.training.arguments import parse_arguments
from todm_sb.training.brain import TODMBrain
from todm_sb.training.decided import decided_by
from todm_sb.training.runs import load_run, trained_tokenizer
from todm_sb.training.sources import Source, read_source
from todm_sb.utils.errors import ConfigError

# mini.yaml as it is shipped, but for its length: of other shapes than the source.
SHIPPED = dict.fromkeys(("vocab_size", "named_subnets", "search_space", "model", "sandwich_warmup"))
TWO_WIDTHS = "{min_layers: 1, ffn_dims: [16, 32]}"
FEATURES, LENGTHS = torch.randn(2, 60, 80), torch.tensor([60, 41])


class StoppedError(Exception):
    pass


def files_of(source):
    """What is in a source, but for its log, which the training of the source still has open where
    this process did it."""
    return {name: entry for name, entry in contents(source).items() if name != "log.txt"}


@pytest.fixture
def stopped(train, monkeypatch):
    """Trains up to a step; gives the Brain as it is then."""

    def train_up_to(n, arguments):
        seen, fit_batch = [], TODMBrain.fit_batch

        def stops(self, batch):
            if self.optimizer_step == n:
                seen.append(self)
                raise StoppedError
            return fit_batch(self, batch)

        with monkeypatch.context() as patch:
            patch.setattr(TODMBrain, "fit_batch", stops)
            with pytest.raises(StoppedError):
                train(arguments)
        return seen[0]

    return train_up_to


@pytest.fixture(scope="module")
def sources(tiny_run, tmp_path_factory):
    """What may be begun from, by its kind."""
    folder = tmp_path_factory.mktemp("sources")
    call("export", tiny_run, folder / "bundle")
    call("export", tiny_run, folder / "training", "--for-training")
    call("export", tiny_run, folder / "subnet", "--subnet=min", "--format=speechbrain")
    call("export", tiny_run, folder / "supernet", "--format=speechbrain")
    call("export", tiny_run, folder / "plain", "--subnet=max")
    return {"run": tiny_run, **{path.name: path for path in folder.iterdir()}}


@pytest.fixture
def begun(corpus, tmp_path, stopped):
    """The Brain of a training that begins from a source, before its first step."""

    def begin(source, output="run", **overrides):
        return stopped(0, command(corpus, tmp_path / output, source, **overrides))

    return begin


def command(corpus, output, source, **overrides):
    return arguments(corpus, output, **{**SHIPPED, "init_from": source, **overrides})


@pytest.mark.parametrize("kind", ["run", "bundle", "subnet"])
def test_it_begins_with_weights_statistics_and_tokenizer_of_its_source(
    begun, tiny_run, sources, tmp_path, kind
):
    before = files_of(sources[kind])
    brain = begun(sources[kind])
    hparams = load_run(tiny_run)
    space, expected = hparams["space"], hparams["model"]
    if kind == "subnet":
        expected = extract_subnet(expected, space.min)
    has_auxiliaries = kind == "run"
    theirs = (expected if has_auxiliaries else expected.deployed()).state_dict()
    ours = brain.modules.model.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    # What only training needs is the recipe's to want.
    assert brain.modules.model.ctc_output is not None
    told = "ctc_output is not there and begins untrained" in (
        tmp_path / "run" / "log.txt"
    ).read_text(encoding="utf-8")
    assert told != has_auxiliaries
    for name in ("glob_mean", "glob_std"):
        got, wanted = getattr(brain.modules.normalize, name), getattr(hparams["normalize"], name)
        assert torch.equal(got, wanted)
    # They stay: the network was trained on them.
    assert not brain.modules.normalize._should_update(1)
    (tokenizer,) = (tmp_path / "run" / "tokenizer").iterdir()
    assert tokenizer.read_bytes() == trained_tokenizer(tiny_run, hparams).read_bytes()
    assert brain.hparams.space.size == (1 if kind == "subnet" else space.size)
    assert brain.sandwich.warmup == 0
    assert files_of(sources[kind]) == before


@pytest.mark.parametrize("kind", ["training", "supernet", "plain"])
def test_a_source_of_any_form_is_the_network_that_was_trained(tiny_run, sources, kind):
    before = files_of(sources[kind])
    source, hparams = read_source(str(sources[kind])), load_run(tiny_run)
    model = hparams["model"] if kind == "training" else hparams["model"].deployed()
    assert same(dict(source.model.state_dict()), dict(model.state_dict()))
    for name in ("glob_mean", "glob_std"):
        assert torch.equal(source.statistics[name], getattr(hparams["normalize"], name))
    assert source.tokenizer == trained_tokenizer(tiny_run, hparams).read_bytes()
    assert source.space == (None if kind == "plain" else hparams["space"])
    assert files_of(sources[kind]) == before


def test_one_subnet_of_a_supernet_is_trained_alone(begun, tiny_run, sources):
    hparams = load_run(tiny_run)
    deep = SubnetConfig((0, 1), ffn_dims=(16, 16))
    mixed = SubnetConfig((0, 1), ffn_dims=(16, 32))
    for source, subnet, config in (
        ("run", "deep", deep),
        ("bundle", "min", hparams["space"].min),
        ("supernet", mixed.to_json(), mixed),
    ):
        brain = begun(sources[source], output=config.id, init_subnet=subnet)
        assert brain.hparams.space.size == 1
        expected = extract_subnet(hparams["model"], config).encoder
        got, ours = brain.modules.model.eval().encoder, brain.hparams.space.max
        assert got.dimensions == expected.dimensions
        with torch.no_grad():
            outputs = [x(FEATURES, LENGTHS, s)[0] for x, s in ((got, ours), (expected, None))]
        assert torch.equal(*outputs)


@pytest.mark.parametrize("heads", [False, True])
def test_a_plain_network_becomes_a_supernet_whose_units_are_sorted(begun, tiny_run, sources, heads):
    asked = TWO_WIDTHS.replace("}", ", n_heads: [2, 4]}") if heads else TWO_WIDTHS
    brain = begun(sources["plain"], search_space=asked)
    expected, model = load_run(tiny_run)["model"], brain.modules.model.eval()
    space = brain.hparams.space
    assert (space.n_layers, space.min_layers, space["ffn_dims"]) == (2, 1, (16, 32))
    assert ("n_heads" in dict(space.choices)) == heads
    with torch.no_grad():
        for causal in (False, True):
            got, wanted = (x.encoder(FEATURES, LENGTHS, None, causal)[0] for x in (model, expected))
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    moved = [
        layer.ffn.w_1.bias.ne(theirs.ffn.w_1.bias).any()
        for layer, theirs in zip(model.encoder.layers, expected.encoder.layers, strict=True)
    ]
    assert all(moved)
    if not heads:
        ours, theirs = (x.encoder.layers[0].ssm.w_in.bias for x in (model, expected))
        assert torch.equal(ours, theirs)


@pytest.mark.slow
def test_killed_and_resumed_it_ends_as_unbroken_and_needs_its_source_no_more(
    corpus, train, sources, tmp_path, stopped
):
    options = {"search_space": TWO_WIDTHS, "ckpt_interval_steps": 1, "number_of_epochs": 1}
    source = shutil.copytree(sources["plain"], tmp_path / "source")
    train(command(corpus, tmp_path / "unbroken", source, **options))
    again = command(corpus, tmp_path / "broken", source, **options)
    stopped(0, again)
    stopped(2, again)
    shutil.rmtree(source)
    train(again)
    assert same(weights(tmp_path / "broken"), weights(tmp_path / "unbroken"))

    with pytest.raises(ConfigError, match=r"began from .*source: give another --output_folder"):
        train(command(corpus, tmp_path / "broken", sources["bundle"], **options))
    results = json.loads((tmp_path / "broken" / "results_test-clean.json").read_text())
    train([*command(corpus, tmp_path / "broken", source, **options), "--test_only"])
    again = json.loads((tmp_path / "broken" / "results_test-clean.json").read_text())
    assert [r["weights"] for r in again] == [r["weights"] for r in results]


def test_a_run_that_began_otherwise_is_not_taken_for_an_adaptation(
    corpus, train, tiny_run, sources
):
    before = files_of(tiny_run)
    for source, message in (
        (sources["plain"], "began from no other network: give another --output_folder"),
        (tiny_run, "is the output_folder: give another --output_folder"),
    ):
        with pytest.raises(ConfigError, match=message):
            train(command(corpus, tiny_run, source))
    assert files_of(tiny_run) == before


@pytest.mark.parametrize(
    ("kind", "overrides", "message"),
    [
        ("bundle", {"vocab_size": 50}, r"has vocab_size 40, not 50: leave that out of the command"),
        ("subnet", {"n_mels": 64}, "has n_mels 80, not 64"),
        ("run", {"model": "{encoder: {d_model: 24}}"}, "has model.encoder.d_model 16, not 24"),
        ("run", {"tokenizer_type": "char"}, "has tokenizer_type 'unigram', not 'char'"),
        ("bundle", {"features": "{fbank: {win_length: 20}}"}, "builds something else"),
        ("bundle", {"search_space": "{ffn_dims: [8, 16]}"}, "the network has FFN"),
        ("plain", {"search_space": "{n_layers: 3}"}, "the network has 2 layers"),
        ("plain", {"init_subnet": "max"}, "is a single network: leave out --init_subnet"),
        ("bundle", {"init_subnet": "huge"}, "unknown subnet 'huge'"),
        ("causal", {"model": "{encoder: {dual_mode: True}}"}, "is of one mode, but the recipe"),
        ("missing", {}, "there is no such folder"),
        ("corpus", {}, "holds neither a training run nor a bundle or SpeechBrain folder"),
        ("damaged", {}, "is no SpeechBrain folder of todm-sb export"),
        (None, {"init_subnet": "max"}, "init_subnet is a subnet of init_from, which is not given"),
    ],
)
def test_what_does_not_go_with_the_source_is_one_line(
    corpus, train, tiny_run, sources, tmp_path, kind, overrides, message
):
    places = {**sources, "corpus": corpus, "missing": tmp_path / "missing", None: None}
    if kind == "causal":
        places[kind] = tmp_path / "causal"
        call("export", tiny_run, places[kind], "--causal")
    if kind == "damaged":
        places[kind] = shutil.copytree(sources["subnet"], tmp_path / "damaged")
        (places[kind] / "model.ckpt").write_bytes(b"no weights")
    with pytest.raises(ConfigError, match=message) as refused:
        train(command(corpus, tmp_path / "run", places[kind], **overrides))
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_what_a_reference_takes_from_the_command_line_counts_as_said_there(sources, tmp_path):
    def start(width):
        recipe = LIBRISPEECH / "hparams" / "individual.yaml"
        keys = {"output_folder": tmp_path, "n_layers": 2, "ffn_dim": width, "data_folder": "-"}
        options = [f"--{k}={v}" for k, v in {**keys, "init_from": sources["bundle"]}.items()]
        return start_of(parse_arguments([str(recipe), *options])[0])

    space = start(32).recipe.settings()["search_space"]
    assert (space["n_layers"], space["min_layers"], space["ffn_dims"]) == (2, 2, [32])
    with pytest.raises(ConfigError, match="the network has FFN"):
        start(16)


def test_a_network_that_has_learnt_is_masked_at_once(make_transducer):
    source = Source(make_transducer(), b"", {}, "global", {})
    normalize = {"norm_type": "global", "update_until_epoch": 4}
    before = {"augment_after": 50, "mask_after": 1290, "normalize": normalize}
    decided = decided_by(source, {}, before)
    assert (decided["augment_after"], decided["mask_after"]) == (0, None)
    assert "mask_after" not in decided_by(source, {"mask_after": 7}, before)
    for given, kept in (({"norm_type": "global"}, False), (normalize, True)):
        assert ("normalize" not in decided_by(source, {"normalize": given}, before)) == kept


def test_the_recipes_subnets_that_are_none_of_the_source_are_taken_back_beside_ones_own(
    make_transducer,
):
    source = Source(make_transducer(), b"", {}, "global", {})
    mine, wide = ({"layers": [0], "ffn_dims": [n]} for n in (7, 9))
    before = {"search_space": {}, "named_subnets": {"mine": mine, "wide": wide}}
    decided = decided_by(source, {"named_subnets": {"mine": mine}}, before)
    assert decided["named_subnets"] == {"wide": None}


def test_the_command_line_counts_in_a_run_that_has_begun(tmp_path):
    settings = {"sandwich_warmup": 0, "vocab_size": 40, "search_space": {"n_layers": 2}}
    settings["named_subnets"] = {"small": None}
    record = {"init_from": "gone", "init_subnet": None, "settings": settings}
    (tmp_path / "save" / "CKPT+1").mkdir(parents=True)
    (tmp_path / "init.json").write_text(json.dumps(record))

    def settings_of(**overrides):
        argv = command("data", tmp_path, "gone", **overrides)
        return start_of(parse_arguments(argv)[0]).recipe.settings()

    for given, expected in (
        ({}, (0, 40, 2)),
        ({"sandwich_warmup": 9, "vocab_size": 64, "search_space": "{n_layers: 3}"}, (9, 64, 3)),
    ):
        found = settings_of(**given)
        depth = found["search_space"]["n_layers"]
        assert (found["sandwich_warmup"], found["vocab_size"], depth) == expected
    assert settings_of()["named_subnets"].keys() > {"small"}
    assert settings_of(named_subnets="{}")["named_subnets"] == {}


def test_a_causal_network_is_made_of_one_of_two_modes(begun, tiny_run, sources):
    brain = begun(sources["bundle"], model="{encoder: {causal: True}}")
    assert brain.modules.model.encoder.modes == (True,)
    expected, model = load_run(tiny_run, causal=True)["model"], brain.modules.model.eval()
    with torch.no_grad():
        assert torch.equal(
            model.encoder(FEATURES, LENGTHS)[0], expected.encoder(FEATURES, LENGTHS)[0]
        )


def test_a_folders_yaml_is_read_and_not_run(begun, sources, tmp_path):
    folder = shutil.copytree(sources["subnet"], tmp_path / "copy")
    yaml = folder / "hyperparams.yaml"
    yaml.write_text(yaml.read_text() + f"\nx: !apply:os.mkdir ['{tmp_path / 'pwned'}']\n")
    begun(folder)
    assert not (tmp_path / "pwned").exists()


def test_a_bundle_for_training_keeps_what_training_needs(sources, tiny_run, tmp_path):
    plain, kept = (read_bundle(sources[kind]) for kind in ("bundle", "training"))
    model = load_run(tiny_run)["model"]
    assert kept.model.state_dict().keys() == model.state_dict().keys()
    assert plain.model.state_dict().keys() == model.deployed().state_dict().keys()
    assert torch.equal(kept.model.ctc_output.weight, model.ctc_output.weight)
    assert kept.manifest.subnets == plain.manifest.subnets
    for form in ("speechbrain", "onnx", "web"):
        with pytest.raises(ConfigError, match="--for-training is of bundles"):
            call("export", tiny_run, tmp_path / form, "--for-training", f"--format={form}")


def fsdd():
    """The clone that TODM_FSDD names, or the one beside the repository."""
    beside = ROOT.parent / "shared" / "data" / "free-spoken-digit-dataset"
    return Path(os.environ.get("TODM_FSDD", beside))


@pytest.mark.slow
@pytest.mark.skipif(not fsdd().is_dir(), reason="set TODM_FSDD to a clone of the dataset")
def test_adaptation_lowers_the_error_rate_of_a_speaker_unheard_before(tmp_path):
    """Some recordings of the speaker are adapted to, strings of others are the test."""
    folder = ROOT / "recipes" / "FSDD" / "todm"
    train = load_script(folder / "train.py").main
    alone = tmp_path / "alone" / "recordings"
    alone.mkdir(parents=True)
    for path in (fsdd() / "recordings").glob("*_lucas_*.wav"):
        shutil.copy(path, alone)

    def error_rate(name, *options):
        fixed = ["--noprogressbar", "--device=cpu", f"--output_folder={tmp_path / name}"]
        train([str(folder / "hparams" / "supernet.yaml"), *fixed, *options])
        (result, *_) = json.loads((tmp_path / name / "results_test.json").read_text())
        return result["WER"]

    small = ["--train_hours=0.5", "--n_test=100", "--number_of_epochs=8", "--sandwich_warmup=200"]
    error_rate("base", f"--data_folder={fsdd()}", "--held_out_speaker=lucas", *small)
    adapt = [
        f"--init_from={tmp_path / 'base'}",
        f"--data_folder={alone.parent}",
        "--train_hours=0.25",
        "--n_test=50",
    ]
    before = error_rate("before", *adapt, "--number_of_epochs=1", "--lr=1e-9")
    after = error_rate("after", *adapt, "--number_of_epochs=3", "--lr=0.01")
    print(f"WER of max before {before:.2f} %, after {after:.2f} %")
    assert after < 0.7 * before
