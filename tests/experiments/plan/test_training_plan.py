"""A step that is counted on tensors without elements is the step that is taken."""

import math
import random
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from todm_sb.cli.plan import main
from todm_sb.experiments.compare.recipe import load_for_planning
from todm_sb.experiments.plan import plan as module
from todm_sb.experiments.plan.cards import CARDS
from todm_sb.experiments.plan.count import Counted, Work
from todm_sb.experiments.plan.plan import LAUNCH_SECONDS, Data, Plan, plan_of
from todm_sb.experiments.plan.step import (
    Count,
    Step,
    Utterance,
    count_optimizer,
    count_step,
    subnets_of,
)
from todm_sb.losses.pruning import Pruning
from todm_sb.nnet.transducer import Transducer
from todm_sb.optim import ScaledAdam
from todm_sb.space import SearchSpace
from todm_sb.supernet.objective import Objective
from todm_sb.supernet.sandwich import sandwich_backward
from todm_sb.supernet.schedule import Schedule
from todm_sb.supernet.trunk import Labels, Trunk
from todm_sb.training.arguments import parse_arguments
from todm_sb.training.pace import Pace
from todm_sb.utils.device_kind import counted_for
from todm_sb.utils.errors import ConfigError

SPACE = SearchSpace(n_layers=2, min_layers=1, ffn_dims=(16, 32))
NETWORK = {
    "vocab_size": 30,
    "encoder": {
        "n_features": 8,
        "d_model": 16,
        **SPACE.sizes,
        "n_heads": 2,
        "state_size": 2,
        "channels": [4, 4],
        "time_strides": [2, 2],
        "dropout": 0.1,
    },
    "predictor": {"kind": "lstm", "d_model": 16},
    "d_joint": 16,
    "ctc": True,
    "simple_joiner": True,
}
OBJECTIVE = Objective(ctc_weight=0.3, kd_weight=0.5, pruning=Pruning(s_range=3))
UTTERANCE = Utterance(120, 6)
# Utterances of the step that is taken.
N = 5


def real_step(model, subnets, n):
    """Takes the step that is planned."""
    ids = torch.ones(n, UTTERANCE.n_labels, dtype=torch.long)
    features, lengths = torch.zeros(n, UTTERANCE.n_features, 8), torch.full((n,), 120)
    trunk = Trunk.compute(model, features, lengths, ids)
    labels = Labels(ids, torch.full((n,), UTTERANCE.n_labels))
    sandwich_backward(model, OBJECTIVE, trunk, labels, subnets)


@pytest.fixture(scope="module")
def subnets():
    return subnets_of(Transducer(**NETWORK), SPACE, 1)


def network_with_gradients():
    torch.manual_seed(0)
    model = Transducer(**NETWORK)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    return model


@pytest.fixture(scope="module")
def real(subnets):
    """Of N utterances, arranged as for a GPU: what was counted, and PyTorch's own count of
    products."""
    model = network_with_gradients()
    with counted_for("cuda"):
        with Counted() as counted:
            real_step(model, subnets, N)
        with FlopCounterMode(display=False) as peer:
            real_step(model, subnets, N)
    return counted, peer.get_total_flops()


@pytest.fixture(scope="module")
def planned(subnets):
    return count_step(NETWORK, OBJECTIVE, subnets, UTTERANCE, "fp32")


def test_operations_are_those_of_a_real_step(real, planned):
    counted, peer = real
    works = planned.works(N)
    for kind in ("fp32", "fft"):
        assert works[kind].flops == pytest.approx(counted.works[kind].flops, rel=1e-6)
    # PyTorch counts no LSTM; a gate has 16 x (16 + 16) products a label, and as many again twice.
    lstm = 3 * 2 * N * (UTTERANCE.n_labels + 1) * 4 * 16 * (16 + 16)
    assert works["fp32"].flops == pytest.approx(peer + lstm, rel=1e-6)


def test_launches_are_those_of_a_real_step(real, planned):
    counted, _ = real
    assert planned.launches == pytest.approx(counted.total.launches, rel=0.05)


def test_bytes_are_those_of_a_real_step(real, planned):
    counted, _ = real
    total = sum(planned.works(N).values(), Work())
    assert total.n_bytes == pytest.approx(counted.total.n_bytes, rel=0.02)


def test_memory_is_that_of_a_real_step(real, planned):
    counted, _ = real
    assert planned.memory(N) == pytest.approx(counted.peak, rel=0.1)
    assert planned.memory(N, micro_batches=5) < 0.6 * planned.memory(N)


def test_a_step_of_a_cpu_is_in_pieces_of_its_own(planned, subnets):
    on_cpu = count_step(NETWORK, OBJECTIVE, subnets, UTTERANCE, "fp32", "cpu")
    assert planned.launches < 0.7 * on_cpu.launches
    with Counted() as counted:
        real_step(network_with_gradients(), subnets, N)
    works = on_cpu.works(N)
    assert works["fp32"].flops == pytest.approx(counted.works["fp32"].flops, rel=1e-6)
    assert sum(works.values(), Work()).n_bytes == pytest.approx(counted.total.n_bytes, rel=0.02)
    assert on_cpu.memory(N) == pytest.approx(counted.peak, rel=0.1)


def test_products_of_bfloat16_are_counted_as_such(subnets):
    works = count_step(NETWORK, OBJECTIVE, subnets[:1], UTTERANCE, "bf16").works(N)
    assert works["bf16"].flops > 5 * works["fp32"].flops


def test_two_views_are_twice_the_utterances_if_they_last_to_the_end(subnets):
    plain, two, at_first = (
        count_step(
            NETWORK, replace(OBJECTIVE, consistency_weight=weight), subnets[:1], UTTERANCE, "fp32"
        )
        for weight in (0.0, 0.2, Schedule(0.2, 0.0, 0, 9))
    )
    for found, views in ((two, 2), (at_first, 1)):
        for kind in ("fp32", "fft"):
            expected = plain.works(views * N)[kind].flops
            assert found.works(N)[kind].flops == pytest.approx(expected, rel=1e-6)
        assert found.memory(N) == pytest.approx(plain.memory(views * N), rel=0.05)


def test_an_operator_is_counted_by_its_shapes():
    a, b = torch.ones(3, 4), torch.ones(4, 5)
    with Counted() as counted:
        x = a @ b
        y = x.view(15) + 1
        torch.fft.rfft(y.repeat(2, 2)[:, :16])
    assert counted.works["fp32"] == Work(2 * 3 * 4 * 5, 4 * (12 + 20 + 15), 1)
    assert counted.works["fft"].flops == 2.5 * 2 * 16 * math.log2(16)


def test_the_peak_is_what_lives_at_a_time():
    with Counted() as counted:
        for _ in range(3):
            x = torch.ones(1000)
            y = x.view(10, 100)
            del x
            z = y * 2
            del y, z
    assert counted.peak == 8000


def test_the_optimizers_state_is_in_proportion_to_the_parameters():
    found = count_optimizer(lambda ps: ScaledAdam(ps, lr=0.01), 10**6)
    assert found.memory == pytest.approx(8 * 10**6, rel=0.05)  # delta and exp_avg_sq
    adam = count_optimizer(torch.optim.AdamW, 10**6)
    assert adam.memory == pytest.approx(8 * 10**6, rel=0.01)
    # Weights, gradients and both moments are read, all but the gradients written.
    assert adam.works["rest"].n_bytes >= 7 * 4 * 10**6


def test_the_random_subnet_is_of_average_cost():
    space = SearchSpace(n_layers=8, min_layers=2, ffn_dims=(16, 32, 64))
    sizes = {**NETWORK["encoder"], **space.sizes}
    model = Transducer(**{**NETWORK, "encoder": sizes})
    *_, average = subnets_of(model, space, 2)
    rng = random.Random(1)
    costs = [model.encoder.macs(1000, space.random(rng)) for _ in range(2000)]
    assert model.encoder.macs(1000, average) == pytest.approx(sum(costs) / 2000, rel=0.05)


def plan_by_hand(**changes):
    count = Count({"bf16": Work(10e12, 5e9, 100), "rest": Work(0, 200e9, 900)}, 1e9)
    nothing = Count({"rest": Work(0, 0, 0)}, 0.0)
    step = Step(nothing, count * 0.1, 1000)
    optimizer = Count({"rest": Work(0, 1e9, 50)}, 8e8)
    plan = Plan((10, 5), 10**8, 1, step, optimizer, Pace(2, 1.0), 10.0, 12.0, 1, 3600, 8, 4, "bf16")
    return replace(plan, **changes)


def test_a_step_is_the_longer_of_computing_and_moving_of_each_kind_and_then_sending():
    plan, card = plan_by_hand(), CARDS["h100"]
    seconds = plan.seconds(card)
    products = 2 * max(10e12 / 989e12, 5e9 / 3.35e12)
    device = products + (2 * 200e9 + 1e9) / 3.35e12
    sending = 2 * 7 / 8 * 4e8 / 450e9
    assert seconds["step"] == pytest.approx(device + sending)
    assert seconds["launching"] == pytest.approx(LAUNCH_SECONDS * 2050)


def test_a_device_waits_for_python_where_launching_takes_longer():
    plan = plan_by_hand(step=replace(plan_by_hand().step, launches=10**4))
    sending = 2 * 7 / 8 * 4e8 / 450e9
    launching = LAUNCH_SECONDS * (2 * 10**4 + 50)
    assert plan.seconds(CARDS["h100"])["step"] == pytest.approx(launching + sending)


def test_one_gpu_sends_nothing_and_needs_no_room_for_it():
    alone = plan_by_hand(n_gpus=1)
    assert alone.sent == 0
    assert alone.memory["gradients"] == 4e8
    assert plan_by_hand().memory["gradients"] == 8e8
    assert plan_by_hand().memory["activations"] == pytest.approx(1.2e9)


HPARAMS = "recipes/LibriSpeech/todm/hparams/supernet.yaml"
SMALL = (
    "--search_space={n_layers: 2, min_layers: 1, ffn_dims: [16, 32]}",
    "--named_subnets=null",
    "--model={encoder: {d_model: 16, n_heads: 2, state_size: 2}, predictor: {d_model: 16}}",
    "--number_of_epochs=2",
    "--n_random=0",
)


@pytest.fixture
def root(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)


def test_the_command_plans_a_recipe_as_it_is_overridden(root, capsys):
    main([HPARAMS, "--gpus=8", "--card", "h100", "a100", "--hours=100", *SMALL])
    text = capsys.readouterr().out
    # 100 h in batches of 300 s / 1.11 that are 99 % full, dealt to eight.
    n_steps = 2 * math.ceil(math.ceil(360000 / (0.99 * 300 / (100 / 90))) / 8)
    assert f" {n_steps:,} " in text
    assert "| 100 h " in text
    assert "| bf16 " in text
    assert "8 x H100" in text
    assert "8 x A100" in text


def test_time_is_of_batches_as_they_are_and_memory_of_the_fullest(root, monkeypatch):
    monkeypatch.setattr(module, "count_step", lambda *_: plan_by_hand().step)
    recipe, _ = parse_arguments([HPARAMS, "--data_folder=-", *SMALL])
    plan = plan_of(load_for_planning(recipe), "fp32", 8, Data(seconds=10.0))
    # Of 10 s, which the slowest speed makes 10 s / 0.9.
    assert plan.utterances == pytest.approx(0.99 * 0.9 * 300 / 10)
    assert plan.most_utterances == 300 / 10


def test_the_mean_of_the_weights_needs_as_much_room_as_they_do(root, monkeypatch):
    monkeypatch.setattr(module, "count_step", lambda *_: plan_by_hand().step)

    def weights(every):
        arguments = [HPARAMS, "--data_folder=-", f"--average_every={every}", *SMALL]
        recipe, _ = parse_arguments(arguments)
        return plan_of(load_for_planning(recipe), "fp32", 8, Data()).memory["weights"]

    assert weights("20") == 2 * weights("null")


@pytest.mark.parametrize("wrong", ["--numer_of_epochs=3", "--max_batch_seconds=-1"])
def test_what_is_wrong_with_the_recipe_is_told(root, wrong):
    with pytest.raises(ConfigError, match=wrong.strip("-").partition("=")[0]):
        main([HPARAMS, wrong])
