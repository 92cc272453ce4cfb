"""A setting that makes no sense is refused in one line before anything is written."""

import functools
import random
from dataclasses import fields
from pathlib import Path

import pytest
from hyperpyyaml import load_hyperpyyaml
from junk import mutated
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString as Text
from speechbrain.augment.augmenter import Augmenter
from speechbrain.augment.freq_domain import SpectrogramDrop
from speechbrain.utils.run_opts import RunOptions
from test_config_fuzz import made

from todm_sb.nnet.spec_augment import SpecAugment
from todm_sb.training.arguments import parse_arguments, value_of
from todm_sb.training.recipe import TAGGED, Recipe
from todm_sb.training.settings import OPTIONAL, REQUIRED, check_parts, check_settings, load_checked
from todm_sb.utils.errors import ConfigError

RECIPES = Path(__file__).parents[2] / "recipes"
YAMLS = sorted(RECIPES.glob("*/todm/hparams/*.yaml"))
MINI = RECIPES / "LibriSpeech" / "todm" / "hparams" / "mini.yaml"

WIDE = "{layers: [0, 2, 5], ffn_dims: [384, 384, 384]}"


@functools.cache
def settings_of(path):
    """Those of a recipe, whatever folder it needs."""
    named = {key: Text("x") for key in ("data_folder", "train_csv", "valid_csv")}
    return Recipe(path, named).settings()


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: f"{path.parents[2].name}/{path.name}")
def test_the_recipes_pass_and_all_their_plain_settings_are_known(path):
    found = settings_of(path)
    check_settings(found)
    plain = {key for key, value in found.items() if value is not TAGGED}
    assert plain - {*REQUIRED, *OPTIONAL, "__set_seed"} <= {"search_space", "pruning"}


def test_every_setting_is_a_key_of_a_recipe_or_an_option():
    """What no recipe has cannot be given on the command line."""
    known = {key for path in YAMLS for key in settings_of(path)}
    assert {*REQUIRED, *OPTIONAL} <= known | {option.name for option in fields(RunOptions)}


def test_settings_build_nothing_whatever_was_loaded_before():
    load_hyperpyyaml("a: !new:collections.Counter {b: 1}")  # adds its tags to ruamel's loader
    assert Recipe(MINI).settings()["space"] is TAGGED


@pytest.fixture(scope="module")
def mini():
    return Recipe(MINI).settings()


def checked_with(mini, key, text):
    """The mini recipe under one argument."""
    if key in {option.name for option in fields(RunOptions)}:
        return load_checked(*parse_arguments([str(MINI), f"--{key}={text}"]))
    # As parse_arguments does, but for reading the recipe once more.
    return load_checked(Recipe(MINI, {key: value_of(key, text, mini[key])}))


def refused_in_one_line(message, check):
    with pytest.raises(ConfigError, match=message) as caught:
        check()
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("seed", "12345678901234567890", r"seed must be an integer in 0\.\.4294967295, not 12345"),
        ("seed", "-1", "seed must be an integer"),
        ("seed", "1.5", r"seed must be an integer .*1\.5"),
        ("seed", "2026-11-26", "seed must be an integer"),
        ("seed", "True", "seed must be an integer"),
        ("corpus_seed", "-1", "corpus_seed must be"),
        ("strict", "maybe", "strict must be true or false, not 'maybe'"),
        ("strict", "1", "strict must be true or false"),
        ("beam_size", "0", "beam_size must be"),
        ("max_symbols", "0", "max_symbols must be"),
        ("avg_checkpoints", "0", "avg_checkpoints must be"),
        ("n_random", "-1", "n_random must be"),
        ("n_random", "two", "n_random must be .*'two'"),
        ("sandwich_warmup", "-1", "sandwich_warmup must be"),
        ("micro_batches", "0", "micro_batches must be"),
        ("max_batch_seconds", "0", "max_batch_seconds must be a number above 0"),
        ("max_batch_seconds", "inf", "max_batch_seconds must be a number above 0"),
        ("max_duration", "-1", "max_duration must be a number above 0"),
        ("num_workers", "-1", "num_workers must be"),
        ("number_of_epochs", "0", "number_of_epochs must be"),
        ("lr", "0", "lr must be a number above 0"),
        ("lr", "fast", "lr must be a number above 0, not 'fast'"),
        ("sample_rate", "0", "sample_rate must be"),
        ("hop_length", "0", "hop_length must be"),
        ("win_length", "30", "a window of 480 samples is longer than n_fft 400"),
        ("hop_length", "26", "hop_length 26 is longer than win_length 25"),
        ("n_fft", "256", "a window of 400 samples is longer than n_fft 256"),
        ("n_mels", "0", "n_mels must be"),
        ("n_mels", "160", r"n_mels: \d+ of 160 mel filters .* hold no point"),
        ("fbank_kind", "mfcc", "fbank_kind must be"),
        ("snip_edges", "True", "snip_edges is an option of fbank_kind: kaldi"),
        ("vocab_size", "1", "vocab_size must be"),
        ("tokenizer_type", "word", "tokenizer_type must be"),
        ("test_splits", "test-clean", "test_splits must be a list"),
        ("named_subnets", "[1]", "named_subnets must be a mapping"),
        ("search_space", "{n_layer: 5}", "unknown key 'n_layer'"),
        ("max_grad_norm", "-1", "max_grad_norm must be a number above 0"),
        ("max_grad_norm", "0", "max_grad_norm must be a number above 0"),
        ("grad_accumulation_factor", "0", "grad_accumulation_factor must be auto or an integer"),
        ("grad_accumulation_factor", "-2", "grad_accumulation_factor must be auto or an integer"),
        ("grad_accumulation_factor", "many", "grad_accumulation_factor must be auto or .*'many'"),
        ("reference_batch_seconds", "0", "reference_batch_seconds must be a number above 0"),
        ("reference_batch_seconds", "-9", "reference_batch_seconds must be a number above 0"),
        ("reference_batch_seconds", "an hour", "reference_batch_seconds must be .*'an hour'"),
        ("model", "null", "model must be an object .*, not None"),
        ("checkpointer", "null", "checkpointer must be an object .*, not None"),
        ("objective", "5", "objective must be an object .*, not 5"),
        ("prepare", "5", "prepare must be a list"),
        ("modules", "null", "modules must be a mapping"),
    ],
)
def test_a_plain_setting_that_makes_no_sense_is_one_line(mini, key, text, message):
    settings = {**mini, key: value_of(key, text, mini[key])}
    refused_in_one_line(message, lambda: check_settings(settings))


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("hop_length", "10.04", r"hop_length: 160\.64 samples"),
        ("test_splits", "[a/b]", r"test_splits\[0\] must be the name of a data set"),
        ("test_splits", "[..]", r"test_splits\[0\] must be the name of a data set"),
        ("test_splits", "[a, A]", "test_splits names a data set twice"),
        ("dev_splits", "[dev-clean, test-clean]", "dev_splits is given, but nothing here"),
        ("noise_augment", "{share: 0.9}", "but no noise: give its --noise_folder, too"),
        ("named_subnets", "{a/b: null}", "a key of named_subnets must be a name"),
        ("named_subnets", "{../../x: null}", "a key of named_subnets must be a name"),
        ("named_subnets", f"{{max: {WIDE}}}", "there is a 'max' already"),
        ("named_subnets", f"{{Min: {WIDE}}}", "there is a 'Min' already"),
        ("named_subnets", f"{{Wide: {WIDE}}}", "there is a 'Wide' already"),
        ("named_subnets", f"{{a-causal: {WIDE}}}", "'a-causal' is how the causal mode"),
        (
            "named_subnets",
            "{a: {ffn_dims: [8]}}",
            "named_subnets: a: a subnet is a mapping of layers",
        ),
        ("named_subnets", "{a: {layers: [0], ffn_dims: [384]}}", "named_subnets: a: .*outside the"),
        ("search_space", "{n_layers: 5}", "named_subnets: wide: .*outside the search space"),
        ("max_grad_norm", "5", "ScaledAdam clips gradients itself"),
        ("reference_batch_seconds", "null", "is auto, but there is no reference_batch_seconds"),
        ("nonfinite_patience", "-1", "nonfinite_patience must be"),
        ("device", "cuda:99", "cuda:99 is not to be had"),
        ("device", "gpu", "gpu is not to be had"),
        ("compile_module_keys", "[model]", "compile_module_keys cannot be had"),
        (
            "lr_annealing",
            "!new:speechbrain.nnet.schedulers.NoamScheduler {lr_initial: 1, n_warmup_steps: 2}",
            "lr_annealing cannot be NoamScheduler",
        ),
        # What objects refuse, and what does not go together.
        ("objective", "{kd_weight: -1}", "kd_weight must be a number"),
        ("lr_annealing", "{lr_batches: 0}", "lr_batches must be a number above 0"),
        ("lr_annealing", "{lr_epochs: x}", "lr_epochs must be a number above 0, not 'x'"),
        ("pruning", "[5]", r"cannot be .*: give null or !new:todm_sb\.losses\.pruning\.Pru"),
        ("objective", "{ctc_weight: yes please}", "ctc_weight must be a number"),
        ("opt_class", "{betas: [2, 0]}", "betas"),
        ("opt_class", "{no_such: 1}", "no_such"),
        ("opt_class", "!name:torch.optim.AdamW {lr: -1}", "Invalid learning rate"),
        ("model", "{d_joint: 0}", "network.d_joint must be an integer"),
        (
            "model",
            "{encoder: {dropout: 1.5}}",
            r"encoder.dropout must be a number in 0\.\.1",
        ),
        ("model", "{encoder: {channels: [0, 0]}}", r"encoder.channels\[0\] must be"),
        ("model", "{encoder: {time_strides: [0, 1]}}", r"encoder.time_strides\[0\] must be"),
        ("model", "{encoder: {adaptive_dropout: 1}}", "adaptive_dropout must be true or false"),
        ("model", "{encoder: {dropout_width: 2}}", "dropout is 0.1 at dropout_width 2, and so abo"),
        ("opt_class", "!name:torch.optim.LBFGS {lr: 0.1}", "opt_class: .*closure"),
        ("normalize", "{norm_type: batch}", "normalize: norm_type must be one of"),
        ("normalize", "{update_until_epoch: 1}", "update_until_epoch must be at least 2, not 1"),
        (
            "objective",
            "{divergence: {alphas: 1}}",
            "alphas must hold at least one number, not 1",
        ),
        ("model", "{encoder: {n_features: 40}}", "n_mels is 80, but the network was built for 40"),
        ("model", "{encoder: {ffn_dims: [8]}}", r"encoder: ffn_dims is .*\[8\].*search space"),
        ("model", "{vocab_size: 64}", "vocab_size is 128, but the network was built for 64"),
        ("model", "{ctc: False}", "ctc_weight needs a CTC head"),
        ("prepare", "[5]", r"prepare\[0\] must be an object"),
        ("features", "{hop: 0}", "features: a hop of 0 samples, but 160 of its fbank"),
        ("features", "{fbank: {hop_length: 20}}", "features: a hop of 160 samples, but 320"),
        ("features", "{fbank: {n_mels: 40}}", "n_mels is 40, but the network was built for 80"),
        ("opt_class", "!name:torch.optim.Adam {betas: [0.9]}", "opt_class: list index out of"),
        ("lr", "{a: 1}", r"^[^:]*mini\.yaml: lr: the mapping"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_one_line_and_writes_nothing(
    mini, key, text, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    refused_in_one_line(message, lambda: checked_with(mini, key, text))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ("null", "two views that feature_augment makes: set"),
        ("{time_warp: 5}", "two views frame by frame, but time_warp of feature_augment"),
        (
            "!new:speechbrain.augment.augmenter.Augmenter\n  augmentations:\n"
            "  - !new:todm_sb.nnet.spec_augment.SpecAugment\n    time_warp: 5",
            "two views frame by frame, but time_warp of feature_augment",
        ),
    ],
)
def test_views_are_made_to_differ_but_in_time(augment, message):
    overrides = ["--objective={consistency_weight: 0.2}", f"--feature_augment={augment}"]
    with pytest.raises(ConfigError, match=message):
        load_checked(*parse_arguments([str(MINI), *overrides]))


@pytest.mark.parametrize(
    ("key", "text", "subnets"),
    [
        ("named_subnets", "{}", {}),
        ("named_subnets", "null", None),
        (
            "named_subnets",
            "{wide: null, deep: null}",
            {"shallow": None, "wide": None, "deep": None},
        ),
    ],
)
def test_named_subnets_can_be_removed_one_by_one_and_all_at_once(key, text, subnets):
    found = parse_arguments([str(MINI), f"--{key}={text}"])[0].settings()
    check_settings(found)
    assert found["named_subnets"] == subnets


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data_parallel_backend"], "data_parallel_backend cannot be had: start a process"),
        (["--jit"], "jit cannot be had"),
        (["--compile"], "compile cannot be had"),
        (["--ckpt_interval_minutes=5", "--ckpt_interval_steps=5"], "are both above 0: set one"),
    ],
)
def test_options_that_training_has_no_use_for_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        load_checked(*parse_arguments([str(MINI), *options]))


def test_a_setting_that_is_missing_is_named(mini):
    for key in REQUIRED:
        without = {k: v for k, v in mini.items() if k != key}
        with pytest.raises(ConfigError, match=f"key '{key}' is missing"):
            check_settings(without)


def test_limits_can_be_lifted(mini):
    check_settings({**mini, "max_duration": float("inf"), "max_grad_norm": float("inf")})
    check_settings({**mini, "test_splits": [], "num_workers": 0, "held_out_speaker": "010"})


def test_augmentation_that_would_fail_in_mid_training_is_refused_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = f"--data_folder={tmp_path}"
    hparams = load_checked(parse_arguments([str(MINI), data])[0])
    of_one = SpectrogramDrop()
    for augment in (SpecAugment(), Augmenter(augmentations=[of_one]), None):
        check_parts({**hparams, "feature_augment": augment}, float("inf"))
    for copies in ({"concat_original": True}, {"repeat_augment": 2}):
        augment = Augmenter(augmentations=[of_one], **copies)
        check_parts({**hparams, "wav_augment": augment}, float("inf"))
        with pytest.raises(
            ConfigError, match="feature_augment makes speech longer, or adds copies"
        ):
            check_parts({**hparams, "feature_augment": augment}, float("inf"))
    for key in ("wav_augment", "feature_augment"):
        for augment in (of_one, 3):
            with pytest.raises(ConfigError, match=f"^{key}: .* does not take a batch and its"):
                check_parts({**hparams, key: augment}, float("inf"))


@pytest.mark.parametrize("times", [100, pytest.param(10_000, marks=pytest.mark.slow)])
def test_settings_with_junk_in_them_work_or_are_refused_in_one_line(mini, times):
    of_objects = {"prepare", "modules"}
    checked = (REQUIRED | OPTIONAL).keys() - of_objects
    plain = {key: x for key, x in mini.items() if x is not TAGGED and key in checked}
    objects = {k: x if k in of_objects else TAGGED for k, x in mini.items() if k not in plain}
    rng, outcomes = random.Random(0), {True: 0, False: 0}
    for _ in range(times):
        junk = mutated(plain, rng)
        if not isinstance(junk, dict):
            continue
        taken = made(lambda junk=junk: check_settings({**objects, **junk}) or True)
        outcomes[taken is True] += 1
    assert min(outcomes.values()) >= times / 20


def test_what_is_saved_is_the_recipe_again(tmp_path):
    recipe, _ = parse_arguments([str(MINI), "--lr=1e-3", "--output_folder=hs/run #2"])
    (tmp_path / "hyperparams.yaml").write_text(recipe.text(), encoding="utf-8")
    again = Recipe(tmp_path / "hyperparams.yaml").settings()
    assert again == recipe.settings()
    assert YAML().load(tmp_path / "hyperparams.yaml")["save_folder"] == "hs/run #2/save"
