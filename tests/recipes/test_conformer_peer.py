"""The peer: SpeechBrain's losses and search, its recipe's numbers, and trainings that end and go on
by processor time."""

import json
import shutil
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
import torchaudio
from speechbrain.decoders.transducer import TransducerBeamSearcher
from speechbrain.utils.run_opts import RunOptions
from tiny import LIBRISPEECH, arguments

from todm_sb.supernet import count_parameters
from todm_sb.supernet.trunk import Labels
from todm_sb.training.arguments import parse_arguments
from todm_sb.utils.errors import ConfigError

FOLDER = Path(__file__).parents[2] / "benchmarks" / "training"
OURS = ("conformer_peer", "peer_brain", "peer_network")


@pytest.fixture
def scripts(monkeypatch):
    """The modules by name; they do not stay."""
    monkeypatch.syspath_prepend(FOLDER)
    yield {name: import_module(name) for name in OURS}
    for name in OURS:
        sys.modules.pop(name, None)


@pytest.fixture
def network(scripts):
    made = scripts["peer_network"].ConformerTransducer(7, 8, n_layers=1, n_heads=2, n_features=20)
    return made.eval()


def test_of_12_layers_it_has_about_as_many_parameters_as_the_recipe_s_largest_subnet(scripts):
    file = LIBRISPEECH / "hparams" / "mini_librispeech.yaml"
    ours = parse_arguments([str(file), "--data_folder=-"])[0].load()
    n = scripts["peer_network"].ConformerTransducer(ours["vocab_size"], 112).n_parameters()
    assert n == pytest.approx(count_parameters(ours["model"], ours["space"].max), rel=0.06)


def test_its_transducer_loss_and_gradient_are_speechbrain_s(network):
    features, n_frames = torch.randn(2, 40, 20), torch.tensor([40, 31])
    labels = Labels(torch.tensor([[1, 5, 2], [3, 6, 0]]), torch.tensor([3, 2]))
    encoded, frames = network.encode(features, n_frames)
    assert frames.tolist() == [10, 8]
    encoded = encoded.detach()
    ours, theirs = (encoded.clone().requires_grad_() for _ in range(2))
    joint = network.joint(theirs.unsqueeze(2), network.predict(labels.ids).unsqueeze(1))
    # SpeechBrain's own loss runs on GPUs alone; on a CPU its recipe takes this one.
    expected = torchaudio.functional.rnnt_loss(
        network.output(joint),
        labels.ids.int(),
        frames.int(),
        labels.lengths.int(),
        blank=0,
        reduction="mean",
    )
    found = network.transducer_loss(ours, frames, labels)
    torch.testing.assert_close(found, expected)
    for loss in (found, expected):
        loss.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_its_greedy_search_finds_what_speechbrain_s_does(network):
    with torch.no_grad():
        network.output.w.weight.mul_(20)
    encoded, n_frames = network.encode(torch.randn(2, 60, 20), torch.tensor([60, 60]))
    theirs = TransducerBeamSearcher(
        [network.embedding, network.lstm, network.project_predictor],
        network.joint,
        [network.output],
        blank_id=0,
        beam_size=1,
        nbest=1,
    )
    expected = theirs(encoded)[0]
    found = [best.tokens for best, *_ in network.searcher().search(encoded, n_frames)]
    assert any(expected)
    assert found == [list(tokens) for tokens in expected]


@pytest.fixture
def peer(scripts, corpus, tmp_path):
    recipe, _ = parse_arguments(arguments(corpus, None))

    def make(seconds, race=1.0):
        size = {"d_model": 8, "n_layers": 1, "n_heads": 2}
        options = {"warmup_steps": 4, "seconds": seconds, "device": "cpu"}
        return scripts["conformer_peer"].Peer(recipe, tmp_path / "peer", size, options, race)

    return make


@pytest.mark.slow
def test_a_training_ends_by_time_and_goes_on_from_its_checkpoint(scripts, peer):
    found = peer(0.2).train("speechbrain", 0.001)
    assert found["seconds"]["train"]["processor"] > 0.2
    assert found["dev"]["words"] == sum(found["dev"]["words of"])
    folder = peer(0.2).folder("speechbrain", 0.001)
    history = scripts["peer_brain"].read_history(folder)
    assert history[-1]["steps"] == found["steps"] > 0
    assert {"ctc", "transducer", "WER", "CER"} <= history[-1].keys()
    # Finished, it is only read.
    assert peer(0.2).train("speechbrain", 0.001) == found
    with pytest.raises(ConfigError, match=r"seconds was 0.2, is 1.2: give another --work"):
        peer(1.2).train("speechbrain", 0.001)
    with pytest.raises(ConfigError, match=r"race was 1.0, is 0.5: give another --work"):
        peer(0.2, race=0.5).train("speechbrain", 0.001, 0.5)
    # As if it had been broken off.
    for name in ("finished-1.json", "settings.json"):
        (folder / name).unlink()
    later = peer(1.2).train("speechbrain", 0.001)
    assert later["steps"] > found["steps"]
    assert later["seconds"]["train"]["processor"] > 1.2
    assert scripts["peer_brain"].read_history(folder)[: len(history)] == history


def test_options_are_followed_or_refused(scripts):
    followed = scripts["conformer_peer"].followed
    options = RunOptions(precision="bf16", overridden_args={"precision", "noprogressbar"})
    assert followed(options) == {"device": "cpu", "precision": "bf16"}
    assert followed(RunOptions(overridden_args=set()))["precision"] is None
    with pytest.raises(ConfigError, match="--precision must be"):
        followed(RunOptions(precision="bf", overridden_args={"precision"}))


def test_the_precision_asked_for_is_that_of_the_training(scripts, peer):
    made = peer(100.0)
    made.options["precision"] = "bf16"
    brain, _ = made.prepare("ours", 0.001)
    assert brain.precision == "bf16"


def test_losses_are_weighted_as_either_recipe_has_it(scripts, peer):
    brain, _ = peer(100.0).prepare("speechbrain", 0.001)
    assert brain.weights() == (0.7, 0.3)
    brain.stopwatch.stopped["train"] = (0.0, 61.0)
    assert brain.weights() == (0.7, 0.0)
    ours, _ = peer(100.0).prepare("ours", 0.001)
    assert ours.weights() == (1.0, 1.0)  # mini.yaml's


@pytest.mark.parametrize(
    ("race", "rate"), [pytest.param("1", "WER", marks=pytest.mark.slow), ("0.5", "CER")]
)
def test_the_rate_is_chosen_on_dev_and_it_alone_is_tested(
    scripts, corpus, tmp_path, monkeypatch, capsys, race, rate
):
    work = tmp_path / "work"
    size = ["--d_model=8", "--n_layers=1", "--n_heads=2", "--starts", "ours", "--rates"]
    command = [*arguments(corpus, None), f"--work={work}", "--processor_seconds=0.4", *size]
    command += ["0.001", "0.01", f"--race={race}"]
    monkeypatch.setattr(sys, "argv", ["conformer_peer.py", *command])
    scripts["conformer_peer"].main()

    def finished(share):
        paths = work.glob(f"*/finished-{share}.json")
        return {path.parent.name: json.loads(path.read_text()) for path in paths}

    dev = {name: found["dev"][rate] for name, found in finished(race).items()}
    assert dev.keys() == {"ours-0.001", "ours-0.01"}
    (tested,) = work.glob("*/tested.json")
    best = tested.parent.name
    assert dev[best] == min(dev.values())
    if race != "1":  # it alone goes on
        assert finished("1").keys() == {best}
        assert finished("1")[best]["steps"] > finished(race)[best]["steps"]
    assert list(json.loads(tested.read_text())) == ["test-clean"]
    assert "dev WER %" in capsys.readouterr().out


def test_of_rates_with_as_many_errors_that_of_the_lowest_loss_goes_on(
    scripts, tmp_path, monkeypatch
):
    module = scripts["conformer_peer"]
    found = {0.1: (100.0, 4.0), 0.2: (100.0, 3.0), 0.3: (101.0, 1.0)}

    def train(self, start, rate, share=1.0):
        return {"rate": rate, "dev": {"CER": found[rate][0]}, "loss": found[rate][1]}

    monkeypatch.setattr(module.Peer, "train", train)
    best, others = module.Peer(None, tmp_path, {}, {}, race=0.5).best("ours", found)
    assert [x["rate"] for x in (best, *others)] == [0.2, 0.1, 0.3]


def test_ours_beside_the_peer_is_drawn_over_speakers(scripts, tmp_path):
    keys = ["a", "b", "c"]
    ours = {"utterances": keys, "words": [4, 4, 2], "errors": {"max": [1, 1, 0]}}
    ours["speakers"] = ["x", "x", "y"]
    (tmp_path / "errors_test.json").write_text(json.dumps(ours))
    result = {"subnet": "max", "layers": [0], "ffn_dims": [16]}
    result |= {"utterances": 3, "words": 10, "undecodable": 0, "left_out": {}}
    (tmp_path / "results_test.json").write_text(json.dumps([result]))
    found = {"utterance": keys, "words of": [4, 4, 2], "errors": [2, 1, 1]}
    found["speakers"] = ours["speakers"]
    compared = scripts["conformer_peer"].against(tmp_path, "test", found)
    assert (compared["WER"], compared["WER of the other"]) == (20.0, 40.0)
    assert (compared["units"], compared["unit"]) == (2, "speakers")
    # Both of x, both of y, or one of each.
    interval = compared["relative difference"]
    assert interval["low"] == pytest.approx(-100)
    assert interval["high"] == pytest.approx(100 * (2 / 3 - 1))
    # Each test split has columns of its own.
    for kind in ("errors", "results"):
        shutil.copy(tmp_path / f"{kind}_test.json", tmp_path / f"{kind}_other.json")
    trained = {"start": "ours", "rate": 0.1, "parameters": 1, "steps": 1, "dev": {"WER": 1.0}}
    trained["seconds"] = {"train": {"processor": 1.0}}
    found |= {"WER": 40.0, "CER": 1.0}
    row = scripts["conformer_peer"].row_of(trained, {"test": found, "other": found}, tmp_path)
    assert [key for key in row if "ours" in key] == [
        "test, ours (max), WER %",
        "test, ours to it, %, over 2 speakers",
        "other, ours (max), WER %",
        "other, ours to it, %, over 2 speakers",
    ]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "how long? give --processor_seconds, or --against a run of ours"),
        (["--against=nowhere"], "nowhere/cost.json: No such file"),
        (["--against=nowhere", "--processor_seconds=1"], "nowhere was not tested on test-clean"),
        (["--processor_seconds=1", "--d_model=9"], "--d_model=9 is not for 4 heads"),
        (["--processor_seconds=0"], "--processor_seconds: must be above 0"),
        (["--processor_seconds=1", "--race=1.5"], "--race: 1.5 is more than all of the time, 1"),
        (["--processor_seconds=1", "--no_such=1"], "has no key 'no_such'"),
        (["--processor_seconds=1", "--debug"], "--debug is nothing that the peer follows"),
    ],
)
def test_a_mistake_is_told_before_anything_is_written(
    scripts, corpus, tmp_path, monkeypatch, capsys, more, message
):
    command = [*arguments(corpus, None), f"--work={tmp_path / 'work'}", *more]
    monkeypatch.setattr(sys, "argv", ["conformer_peer.py", *command])
    with pytest.raises(SystemExit):
        scripts["conformer_peer"].main()
    assert message in capsys.readouterr().err
    assert not (tmp_path / "work").exists()
