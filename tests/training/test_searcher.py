"""The searcher as a key of a recipe, and what does not have that key."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ruamel.yaml.scalarstring import DoubleQuotedScalarString as Text
from speechbrain import Stage
from test_distributed import global_batch, make_brain

from todm_sb.dataio.pipeline import SpeechBatch
from todm_sb.decoders.ctc import CTCSearcher
from todm_sb.decoders.hypothesis import Hypothesis
from todm_sb.decoders.protocol import Searcher
from todm_sb.decoders.transducer import TransducerSearcher
from todm_sb.training.arguments import parse_arguments
from todm_sb.training.recipe import Recipe, dump
from todm_sb.training.searcher import decoding_of, max_symbols_of, searcher_of
from todm_sb.training.settings import load_checked
from todm_sb.utils.errors import ConfigError

HPARAMS = Path(__file__).parents[2] / "recipes" / "LibriSpeech" / "todm" / "hparams"
SIZES = {"beam_size": 3, "max_symbols": 2}


class OneLabel(Searcher):
    """A searcher that nobody but this file knows: it hears its label, and greedy the next one."""

    def __init__(self, model, label=1):
        self.label = label

    def search(self, encoded, n_frames):
        return [[Hypothesis([self.label], [0], [0.0])] for _ in n_frames]

    def greedy(self):
        return OneLabel(None, self.label + 1)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Loads the mini recipe under command-line arguments."""

    def load(*arguments):
        folder = tmp_path_factory.mktemp("run")
        argv = [str(HPARAMS / "mini.yaml"), f"--output_folder={folder}", *arguments]
        recipe, _ = parse_arguments(argv)
        return load_checked(recipe)

    return load


def test_a_recipe_searches_as_it_says(loaded):
    hparams = loaded("--beam_size=3", "--max_symbols=2")
    searcher = searcher_of(hparams, hparams["model"])
    assert type(searcher) is TransducerSearcher
    assert (searcher.beam_size, searcher.max_symbols) == (3, 2)
    assert decoding_of(hparams, hparams["model"]) == 2

    hparams = loaded("--searcher=!name:todm_sb.decoders.ctc.CTCSearcher")
    assert type(searcher_of(hparams, hparams["model"])) is CTCSearcher
    assert decoding_of(hparams, hparams["model"]) == ["CTCSearcher", {}]
    for key in SIZES:
        with pytest.raises(ConfigError, match=f"{key} is given, but nothing here makes use of it"):
            loaded("--searcher=!name:todm_sb.decoders.ctc.CTCSearcher", f"--{key}=4")


def test_a_recipe_without_the_key_takes_sizes_from_the_command_line(tmp_path):
    tree = Recipe(HPARAMS / "mini.yaml").tree()
    del tree["searcher"]
    (tmp_path / "old.yaml").write_text(dump(tree))
    argv = [str(tmp_path / "old.yaml"), "--beam_size=4"]
    hparams = load_checked(parse_arguments(argv)[0])
    assert searcher_of(hparams, hparams["model"]).beam_size == 4


def test_all_recipes_have_the_key():
    named = {key: Text("x") for key in ("data_folder", "train_csv", "valid_csv")}
    for path in HPARAMS.glob("*.yaml"):
        assert "searcher" in Recipe(path, named).settings(), path


def test_a_recipe_without_the_key_searches_by_its_sizes(make_transducer):
    model = make_transducer()
    searcher = searcher_of(SIZES, model)
    assert type(searcher) is TransducerSearcher
    assert (searcher.beam_size, searcher.max_symbols, searcher.nbest) == (3, 2, 1)
    # Checkpoints of such a run compete with those of one with the key.
    named = {**SIZES, "searcher": partial(TransducerSearcher, **SIZES)}
    assert decoding_of(SIZES, model) == decoding_of(named, model) == 2


def test_searchers_of_other_arguments_measure_otherwise(make_transducer):
    model = make_transducer(ctc=True)
    kinds = [
        OneLabel,
        partial(OneLabel, label=2),
        CTCSearcher,
        partial(TransducerSearcher, max_symbols=1),
        TransducerSearcher,
    ]
    ids = [decoding_of({**SIZES, "searcher": kind}, model) for kind in kinds]
    assert len({str(x) for x in ids}) == len(kinds)
    # Exports have the labels a frame of validation, or, of a searcher without such, the key's.
    assert [max_symbols_of({**SIZES, "searcher": x}, model) for x in kinds] == [2, 2, 2, 1, 5]


@pytest.mark.parametrize(("stage", "heard"), [(Stage.VALID, 3), (Stage.TEST, 2)])
def test_the_brain_decodes_with_any_searcher(stage, heard):
    brain = make_brain(torch.float32, accumulation=1)
    brain.hparams.searcher = partial(OneLabel, label=2)
    brain.tokenizer = SimpleNamespace(decode_ids=lambda ids: " ".join(map(str, ids)), normalize=str)
    brain.on_stage_start(stage, epoch=1)
    brain.evaluate_batch(SpeechBatch(global_batch(1, torch.float32)), stage)
    for stats in brain.evaluation.errors.words.values():
        assert [score["hyp_tokens"] for score in stats.scores] == [[str(heard)]] * 5


@pytest.mark.parametrize(
    ("searcher", "message"),
    [
        ("greedy", "searcher cannot be 'greedy': name a class"),
        (None, "searcher cannot be None"),
        (dict, "searcher"),
        (partial(CTCSearcher, beam_size=4), "searcher: .*beam_size"),
        (lambda model: model, "searcher cannot be"),
    ],
)
def test_what_is_no_searcher_is_refused(make_transducer, searcher, message):
    model = make_transducer(ctc=True)
    with pytest.raises(ConfigError, match=message):
        searcher_of({**SIZES, "searcher": searcher}, model)
    built = CTCSearcher(model)
    with pytest.raises(ConfigError, match="name a class"):
        searcher_of({**SIZES, "searcher": built}, model)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--searcher=greedy"], "searcher cannot be 'greedy'"),
        (["--searcher=!name:todm_sb.decoders.greedy.greedy_search"], "searcher"),
        (
            [
                "--searcher=!name:todm_sb.decoders.ctc.CTCSearcher",
                "--model={ctc: False}",
                "--objective={ctc_weight: 0.0}",
                "--pruning=null",
            ],
            "CTCSearcher needs a CTC head: set the model's ctc: True",
        ),
        (["--searcher={nbest: 3}"], r"nbest must be an integer in 1\.\.1, not 3"),
        (["--searcher={nbest: 0}"], "nbest must be an integer"),
        (["--searcher={beam_size: 0}"], "beam_size must be an integer"),
        (["--searcher={beam_size: 2.5}"], "beam_size must be an integer"),
        (["--searcher={max_symbols: 0}"], "max_symbols must be an integer"),
    ],
)
def test_a_recipe_whose_searcher_cannot_search_is_refused_before_the_first_step(
    loaded, arguments, message
):
    with pytest.raises(ConfigError, match=message) as caught:
        loaded(*arguments)
    assert "\n" not in str(caught.value)


def test_weights_of_losses_may_depend_on_the_step_from_the_command_line(loaded):
    schedule = "!new:todm_sb.supernet.schedule.Schedule {start: 1.0, end: 0.3, last_batch: 100}"
    objective = loaded(f"--objective={{ctc_weight: {schedule}}}")["objective"]
    assert [objective.ctc_weight(step) for step in (0, 50, 100)] == pytest.approx([1, 0.65, 0.3])
    assert objective.kd_weight > 0


class _NoSearch(Searcher):
    def __init__(self, model):
        self.model = model


class _Failing(OneLabel):
    def __init__(self, model):
        raise AttributeError("no such\nattribute")


@pytest.mark.parametrize(("make", "word"), [(_NoSearch, "search"), (_Failing, "no such")])
def test_a_class_that_makes_no_searcher_is_refused_before_the_first_step(make, word):
    with pytest.raises(ConfigError, match=f"searcher: .*{word}") as refused:
        searcher_of({"searcher": make}, None)
    assert "\n" not in str(refused.value)
