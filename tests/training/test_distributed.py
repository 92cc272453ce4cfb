"""Two processes train as one does with both their batches."""

import json
import os
import random
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from speechbrain.processing.features import InputNormalization
from torch import distributed, nn
from torch.multiprocessing import spawn

from todm_sb.dataio.pipeline import BrokenAudio, SpeechBatch
from todm_sb.nnet.transducer import Transducer
from todm_sb.optim import Eden, ScaledAdam
from todm_sb.supernet import SearchSpace
from todm_sb.supernet.objective import Objective
from todm_sb.training.averages import Averages
from todm_sb.training.brain import TODMBrain
from todm_sb.training.checkpoints import SafeCheckpointer
from todm_sb.training.distributed import (
    RankBatches,
    all_gather,
    all_reduce_gradients,
    all_reduce_sum,
    broadcast_weights,
    form_again,
    join,
    own_device,
    update_statistics_with_nothing,
)
from todm_sb.training.error_rates import ErrorRates
from todm_sb.training.stopwatch import Stopwatch
from todm_sb.utils.errors import ConfigError, DataError
from todm_sb.utils.processes import on_first

N_FEATURES, VOCABULARY, STEPS = 6, 7, 10
SPACE = {"n_layers": 3, "min_layers": 1, "ffn_dims": [4, 8], "layer_drop": "any"}


class GivenFeatures(nn.Module):
    """Takes (batch, frames, features) for what they are, and normalises them."""

    def __init__(self, normalizer):
        super().__init__()
        self.normalizer = normalizer

    def forward(self, x, lengths, epoch=None):
        n_frames = (lengths.double() * x.shape[1]).round().long()
        return self.normalizer(x.float(), lengths, epoch=epoch).to(x.dtype), n_frames


def make_brain(dtype, accumulation, seed=0, **hparams):
    """A supernet of three layers that trains without augmentation or dropout."""
    torch.manual_seed(seed)
    space = SearchSpace.from_dict(SPACE)
    model = Transducer(
        vocab_size=VOCABULARY,
        encoder={
            "n_features": N_FEATURES,
            "d_model": 8,
            **space.sizes,
            "n_heads": 2,
            "state_size": 2,
            "channels": [2],
            "time_strides": [2],
        },
        predictor={"kind": "lstm", "d_model": 6},
        d_joint=8,
        ctc=True,
    ).to(dtype)
    normalize = InputNormalization(norm_type="global", update_until_epoch=4)
    schedule = Eden(lr_initial=0.05, lr_batches=10, lr_epochs=2, warmup_batches=5)
    brain = TODMBrain(
        modules={"features": GivenFeatures(normalize), "normalize": normalize, "model": model},
        opt_class=lambda parameters: ScaledAdam(parameters, lr=0.05),
        hparams={
            "space": space,
            "objective": Objective(ctc_weight=0.3, kd_weight=0.5),
            "named_subnets": {},
            "n_random": 1,
            "sandwich_warmup": 3,
            "micro_batches": 1,
            "seed": 5,
            "epoch_counter": SimpleNamespace(current=1),
            "lr_annealing": schedule,
            **hparams,
        },
        run_opts={
            "device": "cpu",
            "max_grad_norm": float("inf"),
            "grad_accumulation_factor": accumulation,
        },
    )
    broadcast_weights(brain.modules)
    brain.init_optimizers()
    brain.modules.train()
    schedule.set_epoch(0)
    schedule.apply(brain.optimizer)
    return brain


def global_batch(step, dtype):
    """Five utterances of unlike lengths; the same in every process."""
    generator = random.Random(step)
    torch.manual_seed(step)
    lengths = [generator.randint(10, 24) for _ in range(5)]
    return [
        {
            "id": f"{step}-{i}",
            "sig": torch.randn(n, N_FEATURES, dtype=dtype),
            "words": ["SAID"],
            "duration": n / 100,
            "tokens": torch.randint(1, VOCABULARY, (generator.randint(1, 3),)),
        }
        for i, n in enumerate(lengths)
    ]


def louder(features, lengths):
    """Makes the second view of each utterance differ from the first."""
    return features * (1 + 0.3 * (torch.arange(len(features)) % 2))[:, None, None], lengths


VIEWS = {
    "objective": Objective(ctc_weight=0.3, kd_weight=0.5, consistency_weight=0.5),
    "feature_augment": louder,
    "mask_after": 2,
    "micro_batches": 2,
}


def share(examples, step, rank, n_ranks):
    """Two of five utterances for the second of two ranks; at some steps none of them is sound."""
    if n_ranks == 1:
        return [x for i, x in enumerate(examples) if i < 3 or step % 4]
    mine = examples[:3] if rank == 0 else examples[3:]
    if rank == 1 and step % 4 == 0:
        mine = [{**x, "sig": BrokenAudio("gone")} for x in mine]
    return mine


def train(rank, n_ranks, dtype, accumulation):
    """Weights and statistics after so many steps."""
    # The schedule is that of one process whose batches are twice as long.
    audio = {"max_batch_seconds": 20.0 / n_ranks, "reference_batch_seconds": 40.0}
    views = VIEWS if accumulation > 1 else {}
    brain = make_brain(dtype, accumulation, seed=rank, **audio, **views)
    for brain.step in range(1, STEPS * accumulation + 1):
        examples = global_batch(brain.step, dtype)
        brain.fit_batch(SpeechBatch(share(examples, brain.step, rank, n_ranks)))
    norm = brain.modules["normalize"]
    assert brain.hparams.lr_annealing.batch == STEPS * accumulation / 2
    return {
        **brain.modules["model"].state_dict(),
        "mean": norm.glob_mean,
        "std": norm.glob_std,
        "losses": brain.train_losses.means_of_all(),
    }


def gradients_of_two(rank):
    """Gradients after the sum, where ranks lack some; with buckets of a few elements."""
    parameters = [nn.Parameter(torch.zeros(n, dtype=d)) for n, d in GRADIENTS]
    for i, p in enumerate(parameters):
        if i % 4 != 3 and not (rank == 1 and i % 4 == 1):
            p.grad = torch.full_like(p, 10.0**rank * (i + 1))
    all_reduce_gradients(parameters)
    return [p.grad if p.grad is None else p.grad.tolist() for p in parameters]


GRADIENTS = [(3, torch.float32), (1, torch.float64), (5, torch.float32), (2, torch.float32)] * 2


# Not to be had in bfloat16, nor are their sums.
ODD = 1.0 + 2.0**-9


def sums_in_bfloat16_of_two(rank):
    """A gradient of float32 after the sum in bfloat16."""
    p = nn.Parameter(torch.zeros(3))
    p.grad = torch.full((3,), ODD + rank)
    all_reduce_gradients([p], torch.bfloat16)
    return p.grad


def talk_again(rank):
    """Two who form a new group: who is heard, and how long they wait for each other."""
    form_again("cpu:gloo", timedelta(minutes=7))
    group = distributed.group.WORLD._get_backend(torch.device("cpu"))
    return all_gather(rank), group.options._timeout


def statistics_of_two(rank):
    """Normaliser after rank 0 has seen frames thrice, and rank 1 nothing, something, nothing."""
    normalizer = InputNormalization(norm_type="global", update_until_epoch=4)
    for step in range(3):
        torch.manual_seed(10 * step + rank)
        x = torch.randn(2, 4, N_FEATURES)
        if rank == 0 or step == 1:
            normalizer(x, torch.ones(2), epoch=1)
        else:
            update_statistics_with_nothing(normalizer, N_FEATURES, 1)
    return normalizer.count, normalizer.glob_mean, normalizer.glob_std


REFERENCE = [["A", "B"], ["C"], ["D", "E", "F"], ["G"]]
HYPOTHESES = [["A"], ["C"], ["X", "E", "F", "Y"], []]


def rates_of(indices):
    """What is told of the errors in some utterances; the process has one that it cannot decode."""
    errors = ErrorRates(["max", "min"])
    for i in indices:
        errors.append("max", [str(i)], [HYPOTHESES[i]], [REFERENCE[i]])
        errors.append("min", [str(i)], [[]], [REFERENCE[i]])
    errors.append_undecodable({f"{min(indices)} broken": ["H"]})
    errors.merge()
    return errors.by_utterance(), errors.rates(), errors.scored()


def seconds_of_two(rank):
    """Processor seconds of a stage of training, by each process's clock: 2 s and 3 s."""
    clock = [0.0]
    with mock.patch("time.process_time", side_effect=lambda: clock[0]):
        stopwatch = Stopwatch()
        stopwatch.start("train")
        clock[0] += 2.0 + rank
        while_it_runs = stopwatch.seconds()["train"]["processor"]
        stopwatch.start("valid")
    return while_it_runs, stopwatch.seconds()["train"]["processor"]


def checkpoints_of_two(rank, folder):
    """Saves thrice, keeps two and damages the newer: how many are whole for the process that saved
    them, for one that starts anew, and what that loads."""
    model = nn.Linear(1, 1)
    checkpointer = SafeCheckpointer(folder, {"model": model})
    for value in (1.0, 2.0, 3.0):
        nn.init.constant_(model.weight, value)
        checkpointer.save_and_keep_only(num_to_keep=2)
    if rank == 0:
        (max(folder.glob("CKPT*")) / "model.ckpt").write_bytes(b"")
    distributed.barrier()
    again = SafeCheckpointer(folder, {"model": model})
    again.recover_if_possible()
    return len(checkpointer.list_checkpoints()), len(again.list_checkpoints()), float(model.weight)


def verdict(error):
    """What :func:`on_first` raises where the first process meets an error."""

    def fails():
        raise error

    try:
        on_first(fails)
    except Exception as raised:
        return type(raised).__name__, str(raised)


def verdicts_of_two(rank):
    errors = (DataError("a line"), FileNotFoundError(2, "gone", "x"), KeyError("bug"))
    return [on_first(lambda: f"of {rank}"), *map(verdict, errors)]


def work(rank, folder):
    """One of two processes; leaves what it found in the folder."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))  # as torchrun does
    # Where the processes wait for each other in vain, that is an error, and soon.
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    found = {
        "float64": train(rank, 2, torch.float64, 1),
        "float32": train(rank, 2, torch.float32, 1),
        "accumulated": train(rank, 2, torch.float64, 2),
        "total": all_reduce_sum(rank + 5),
        "gathered": all_gather({"rank": rank}),
        "verdicts": verdicts_of_two(rank),
        "dealt": [list(RankBatches([[i] for i in range(n)], True)) for n in (1, 4, 5)],
        "dealt once": [list(RankBatches([[i] for i in range(n)], False)) for n in (1, 4, 5)],
        "lengths": [len(RankBatches(range(5), even)) for even in (True, False)],
        "seconds": seconds_of_two(rank),
        "rates": rates_of([0] if rank == 0 else [1, 2, 3]),
        "gradients": gradients_of_two(rank),
        "bfloat16": sums_in_bfloat16_of_two(rank),
        "statistics": statistics_of_two(rank),
        "checkpoints": checkpoints_of_two(rank, Path(folder) / "checkpoints"),
        "again": talk_again(rank),
    }
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def meet(local_rank, port, start):
    """One of two processes as torchrun starts it, with a store that outlives its processes."""
    os.environ.update(
        RANK=str(local_rank),
        LOCAL_RANK=str(local_rank),
        WORLD_SIZE="2",
        GROUP_WORLD_SIZE="1",
        MASTER_ADDR="localhost",
        MASTER_PORT=str(port),
        TORCHELASTIC_USE_AGENT_STORE="True",
        TORCHELASTIC_RESTART_COUNT=str(start),
    )
    if local_rank == 1 and start:
        time.sleep(3)  # long enough for the first to read what the store knows of the second
    join("gloo")
    assert all_gather(local_rank) == [0, 1]
    time.sleep(1)
    os._exit(0)  # without a word to the other, as one that dies


@pytest.mark.slow
def test_processes_that_are_started_again_do_not_look_for_those_that_died():
    store = distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    for start in range(2):
        context = spawn(meet, (store.port, start), nprocs=2, join=False)
        assert context.join(timeout=120) or context.join(timeout=120)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What the two processes found."""
    folder = tmp_path_factory.mktemp("two")
    spawn(work, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize(
    ("name", "dtype", "accumulation", "tolerance"),
    [
        ("float64", torch.float64, 1, 1e-6),
        ("float32", torch.float32, 1, 1e-4),
        ("accumulated", torch.float64, 2, 1e-6),
    ],
)
def test_two_processes_give_the_weights_of_one(two, name, dtype, accumulation, tolerance):
    """Ranks have 3 and 2 utterances, or 3 and none; subnets leave parameters unused."""
    alone = train(0, 1, dtype, accumulation)
    start = dict(make_brain(dtype, 1).modules["model"].state_dict())
    assert ("consistency" in alone["losses"]) == (accumulation > 1)
    for key, value in alone.items():
        if key == "losses":
            assert two[0][name][key] == two[1][name][key] == pytest.approx(value, rel=1e-3)
            continue
        assert torch.equal(two[0][name][key], two[1][name][key])
        torch.testing.assert_close(two[0][name][key], value, rtol=0, atol=tolerance)
    moved = [float((alone[k] - start[k]).abs().max()) for k in start]
    assert max(moved) > 0.05


def test_what_stops_the_first_process_stops_all_of_them(two):
    mendable = [("DataError", "a line"), ("FileNotFoundError", "[Errno 2] gone: 'x'")]
    assert two[0]["verdicts"] == ["of 0", *mendable, ("KeyError", "'bug'")]
    told = "the first process failed: KeyError('bug')"
    assert two[1]["verdicts"] == ["of 0", *mendable, ("TODMError", told)]


def test_gradients_are_summed_where_any_rank_has_one(two):
    for found in two:
        for i, ((n, _), gradient) in enumerate(zip(GRADIENTS, found["gradients"], strict=True)):
            expected = {0: 11.0, 2: 11.0, 1: 1.0}.get(i % 4)
            assert gradient == (None if expected is None else [expected * (i + 1)] * n)


def test_gradients_can_be_summed_in_bfloat16(two):
    expected = (torch.tensor(ODD).bfloat16() + torch.tensor(ODD + 1).bfloat16()).float()
    assert expected != 2 * ODD + 1
    for found in two:
        assert found["bfloat16"].dtype == torch.float32
        assert found["bfloat16"].tolist() == [float(expected)] * 3


def test_a_new_group_of_the_same_processes_has_a_patience_of_its_own(two):
    assert [found["again"] for found in two] == [([0, 1], timedelta(minutes=7))] * 2


@pytest.mark.parametrize(
    ("local_rank", "given", "own"),
    [
        (None, "cuda", "cuda"),
        (None, "cuda:1", "cuda:1"),
        ("3", None, None),
        ("3", "cpu", "cpu"),
        ("3", "cuda", "cuda:3"),
        ("0", "cuda", "cuda:0"),
    ],
)
def test_each_process_has_a_device_of_its_own(monkeypatch, local_rank, given, own):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local_rank:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert own_device(given) == own


def test_one_device_for_several_processes_is_refused(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match="take --device=cuda,"):
        own_device("cuda:0")


def test_statistics_of_frames_are_those_over_all_ranks(two):
    seen = []
    for step in range(3):
        for rank in (0, 1) if step == 1 else (0,):
            torch.manual_seed(10 * step + rank)
            seen.append(torch.randn(2, 4, N_FEATURES))
    frames = torch.cat(seen).flatten(0, 1)
    for count, mean, std in (found["statistics"] for found in two):
        assert count == len(frames)
        torch.testing.assert_close(mean, frames.mean(0))
        torch.testing.assert_close(std, frames.std(0, unbiased=False))


def test_batches_are_dealt_evenly_for_training_and_once_for_evaluation(two):
    first, second = (found["dealt"] for found in two)
    assert first == [[[0]], [[0], [2]], [[0], [2], [4]]]
    assert second == [[[0]], [[1], [3]], [[1], [3], [0]]]
    first, second = (found["dealt once"] for found in two)
    assert first == [[[0]], [[0], [2]], [[0], [2], [4]]]
    assert second == [[], [[1], [3]], [[1], [3]]]
    assert [found["lengths"] for found in two] == [[3, 3], [3, 2]]


def test_processor_seconds_are_those_of_all_processes(two):
    assert [found["seconds"] for found in two] == [(4.0, 5.0), (6.0, 5.0)]


def test_error_counts_of_shares_add_up(two):
    for found in two:
        by_utterance, rates, scored = found["rates"]
        assert by_utterance == {
            "utterances": ["0", "0 broken", "1", "1 broken", "2", "3"],
            "words": [2, 1, 1, 1, 3, 1],
            "errors": {"max": [1, 1, 0, 1, 2, 1], "min": [2, 1, 1, 1, 3, 1]},
        }
        # Of 12 characters, spaces among them, 2, 1, 1, 3 and 1 are wrong.
        assert rates["max"] == pytest.approx({"WER": 600 / 9, "CER": 800 / 12})
        assert rates["min"] == {"WER": 100, "CER": 100}
        assert scored == {"utterances": 6, "words": 9, "undecodable": 2}


def test_numbers_and_objects_are_gathered(two):
    for found in two:
        assert found["total"] == 11
        assert found["gathered"] == [{"rank": 0}, {"rank": 1}]


def test_both_processes_take_the_checkpoints_that_the_first_finds_whole(two):
    assert [found["checkpoints"] for found in two] == [(2, 1, 2.0)] * 2


def test_a_single_process_needs_no_group():
    p = nn.Parameter(torch.ones(2))
    p.grad = torch.ones(2)
    all_reduce_gradients([p])
    assert p.grad.tolist() == [1.0, 1.0]
    assert (all_reduce_sum(3), all_gather("x")) == (3, ["x"])
    assert list(RankBatches([[0], [1]], even=True)) == [[0], [1]]


def test_averages_are_weighted_and_survive_a_restart(tmp_path):
    averages = Averages()
    averages.add("a", 1.0, 3)
    averages.add("a", 5.0, 1)
    averages.add("b", 2.0)
    averages.save(tmp_path / "x")
    assert json.loads((tmp_path / "x").read_text())
    for end_of_epoch, expected in ((False, {"a": 2.0, "b": 2.0}), (True, {})):
        again = Averages()
        again.load(tmp_path / "x", end_of_epoch)
        assert again.means() == again.means_of_all() == expected


def test_averages_are_saved_digit_by_digit(tmp_path):
    averages = Averages()
    for i in range(1, 200):
        averages.add(str(i), 1 / i, i / 7)
    averages.save(tmp_path / "x")
    again = Averages()
    again.load(tmp_path / "x", False)
    assert again.sums == averages.sums
