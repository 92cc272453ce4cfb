"""Checkpoints that are damaged, half written or too large for the disk."""

import logging
import os
import signal
import time

import pytest
import torch
from torch import nn

from todm_sb.training.checkpoints import (
    SUMS,
    UNFINISHED,
    WER_OF,
    SafeCheckpointer,
    broken,
    competes,
    log_those_apart,
    recover_average,
)
from todm_sb.utils.errors import CheckpointError, ConfigError

FILES = ["CKPT.yaml", SUMS, "model.ckpt", "other.ckpt"]


def network(value):
    model = nn.Linear(3, 2)
    nn.init.constant_(model.weight, value)
    return model


def value(model):
    return model.weight.mean().item()


@pytest.fixture
def saved(tmp_path):
    """A checkpointer that has saved 1.0 and then 2.0, and its model."""
    model = network(1.0)
    checkpointer = SafeCheckpointer(tmp_path, {"model": model, "other": network(7.0)})
    first = checkpointer.save_checkpoint(meta={"WER": 5.0})
    nn.init.constant_(model.weight, 2.0)
    second = checkpointer.save_checkpoint(meta={"WER": 4.0})
    nn.init.constant_(model.weight, 3.0)
    return model, checkpointer, first, second


def again(tmp_path, model):
    """A checkpointer as a new process has it."""
    return SafeCheckpointer(tmp_path, {"model": model, "other": network(0.0)})


def test_the_newest_checkpoint_is_loaded(saved, tmp_path):
    model, checkpointer, first, second = saved
    assert [c.path for c in checkpointer.list_checkpoints()] == [first.path, second.path]
    assert sorted(p.name for p in second.path.iterdir()) == sorted(FILES)
    assert broken(second.path) is None
    assert again(tmp_path, model).recover_if_possible().path == second.path
    assert value(model) == 2.0


def test_a_later_checkpoint_lists_the_others_no_more_often_than_the_first(tmp_path, monkeypatch):
    checkpointer, listed = SafeCheckpointer(tmp_path, {"model": network(1.0)}), []
    listing = SafeCheckpointer.list_checkpoints
    monkeypatch.setattr(
        SafeCheckpointer, "list_checkpoints", lambda self: listed.append(1) or listing(self)
    )
    lists = []
    for wer in range(4):
        checkpointer.save_and_keep_only(meta={"WER": wer}, min_keys=["WER"])
        lists.append(len(listed))
        listed.clear()
    assert len(set(lists)) == 1


def test_a_folder_is_made_by_the_first_checkpoint_and_not_before(tmp_path):
    checkpointer = SafeCheckpointer(tmp_path / "run" / "save", {"model": network(1.0)})
    assert checkpointer.list_checkpoints() == []
    assert checkpointer.recover_if_possible() is None
    assert not list(tmp_path.iterdir())
    saved = checkpointer.save_checkpoint()
    assert [c.path for c in checkpointer.list_checkpoints()] == [saved.path]


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


DAMAGE = {
    "one bit": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    saved, tmp_path, caplog, name, damage
):
    model, _, first, second = saved
    DAMAGE[damage](second.path / name)
    with caplog.at_level(logging.WARNING):
        recovered = again(tmp_path, model).recover_if_possible()
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert recovered.path == first.path
    assert value(model) == 1.0
    if (name, damage) == ("CKPT.yaml", "gone"):  # SpeechBrain takes it for no checkpoint
        return
    (warning,) = warnings
    assert warning.startswith(f"checkpoint {second.path} is broken and not used: ")


@pytest.mark.parametrize("sums", ["null", "3", "[]", "{}"])
def test_sums_of_another_shape_are_damage(saved, sums):
    (saved[3].path / SUMS).write_text(sums)
    assert broken(saved[3].path) == f"{SUMS} is not what it should be"


def test_of_damaged_checkpoints_none_is_averaged_or_deleted(saved, tmp_path):
    model, _, _, second = saved
    flip(second.path / "model.ckpt")
    checkpointer = again(tmp_path, model)
    recover_average(checkpointer, model, 2, min_key="WER")
    assert value(model) == 1.0
    checkpointer.save_and_keep_only(num_to_keep=1)
    assert second.path.exists()
    assert len(checkpointer.list_checkpoints()) == 1


OLD, NEW = ({"dev_set": name, "measured": "max and min"} for name in ("old", "new"))
NEW_OTHERS = {**NEW, "measured": "max alone"}


@pytest.fixture
def measured(tmp_path):
    """A checkpointer that saves a value with its WER and what that is of, and its model."""
    model = network(0.0)
    checkpointer = SafeCheckpointer(tmp_path, {"model": model, "other": network(7.0)})

    def save(value, wer, wer_of, n_average=2, metric="WER"):
        nn.init.constant_(model.weight, value)
        checkpointer.save_and_keep_only(
            meta={metric: wer, WER_OF: wer_of},
            min_keys=[metric],
            num_to_keep=n_average,
            ckpt_predicate=competes(wer_of),
        )

    return checkpointer, model, save


@pytest.mark.parametrize(
    ("wer_of", "chosen"),
    [
        (NEW, 30.0),
        ({"dev_set": "new"}, 30.0),  # the subnets of the newest on this set
        (NEW_OTHERS, 20.0),
        (OLD, 1.5),  # the average of the two
        ({}, 30.0),
        (None, 30.0),
        ({"dev_set": "seen by none"}, 30.0),
    ],
)
def test_checkpoints_of_another_dev_set_do_not_compete(measured, caplog, wer_of, chosen):
    checkpointer, model, save = measured
    save(1.0, 5.0, OLD)
    save(2.0, 6.0, OLD)
    save(20.0, 1.0, NEW_OTHERS)
    save(30.0, 60.0, NEW)
    recover_average(checkpointer, model, 2, min_key="WER", wer_of=wer_of)
    assert value(model) == chosen
    assert "checkpoints do not compete" in caplog.text
    seen = wer_of != {"dev_set": "seen by none"}
    assert ("no WER was measured as it would be now" in caplog.text) != seen
    # Without a metric there is nothing to compete in.
    recover_average(checkpointer, model, 4)
    assert value(model) == pytest.approx((1 + 2 + 20 + 30) / 4)


def test_no_checkpoint_is_deleted_for_the_wer_of_another_dev_set(measured, caplog):
    checkpointer, model, save = measured
    for step, (wer, of) in enumerate(
        [(5.0, OLD), (9.0, OLD), (8.0, OLD), (60.0, NEW), (50.0, NEW), (70.0, NEW), (80.0, NEW)]
    ):
        save(float(step), wer, of, n_average=1)
    left = [(c.meta["WER"], c.meta[WER_OF]) for c in checkpointer.list_checkpoints()]
    # The best and the newest one of each.
    assert left == [(5.0, OLD), (8.0, OLD), (50.0, NEW), (80.0, NEW)]
    log_those_apart(checkpointer, NEW)
    line = caplog.messages[-1]
    old = [c.path.name for c in checkpointer.list_checkpoints()[:2]]
    assert f"the WER of {', '.join(old)} is of another dev set" in line
    # The old set is back: its best one competes again.
    recover_average(checkpointer, model, 1, min_key="WER", wer_of=OLD)
    assert value(model) == 0.0
    # Training goes on from the newest one, whatever it was measured on.
    checkpointer.recover_if_possible()
    assert value(model) == 6.0


def test_checkpoints_of_max_alone_give_way_to_those_of_all_subnets(measured):
    checkpointer, model, save = measured
    for weight, wer in ((1.0, 50.0), (2.0, 30.0), (3.0, 40.0), (4.0, 60.0)):
        save(weight, wer, NEW, metric="WER of max")
    left = {c.meta["WER of max"] for c in checkpointer.list_checkpoints()}
    assert left == {30.0, 40.0, 60.0}  # the best two and the newest two
    recover_average(checkpointer, model, 2, min_key="WER", wer_of=NEW)
    assert value(model) == 4.0
    save(5.0, 95.0, NEW)
    # By their own metric they would be better.
    left = {(c.meta.get("WER"), c.meta.get("WER of max")) for c in checkpointer.list_checkpoints()}
    assert left == {(None, 60.0), (95.0, None)}


def test_where_max_was_trained_alone_at_last_the_newest_checkpoint_counts(measured):
    """Those with the metric are of before: the warm-up was made longer."""
    checkpointer, model, save = measured
    save(1.0, 5.0, NEW)
    save(2.0, 50.0, NEW, metric="WER of max")
    recover_average(checkpointer, model, 2, min_key="WER", wer_of=NEW)
    assert value(model) == 2.0
    # In the midst of the next epoch.
    nn.init.constant_(model.weight, 3.0)
    checkpointer.save_checkpoint(end_of_epoch=False)
    recover_average(checkpointer, model, 2, min_key="WER", wer_of=NEW)
    assert value(model) == 3.0
    save(4.0, 90.0, NEW)
    recover_average(checkpointer, model, 1, min_key="WER", wer_of=NEW)
    assert value(model) == 1.0


def test_a_checkpoint_in_the_midst_of_an_epoch_is_deleted_as_ever(measured):
    checkpointer, _, save = measured
    save(1.0, 5.0, OLD, n_average=1)
    checkpointer.save_checkpoint(meta={"intra-epoch_ckpt": True}, end_of_epoch=False)
    save(2.0, 50.0, NEW, n_average=1)
    assert [c.meta["WER"] for c in checkpointer.list_checkpoints()] == [5.0, 50.0]


def test_without_a_whole_checkpoint_there_is_nothing_to_average(tmp_path):
    with pytest.raises(ConfigError, match="no checkpoint"):
        recover_average(SafeCheckpointer(tmp_path), network(0.0), 2)


@pytest.mark.parametrize("names", [["model.ckpt"], [SUMS], ["CKPT.yaml"]])
def test_a_deletion_that_was_broken_off_leaves_no_checkpoint(saved, tmp_path, names):
    model, _, first, second = saved
    for name in names:
        (first.path / name).unlink()
    assert [c.path for c in again(tmp_path, model).list_checkpoints()] == [second.path]


def full(monkeypatch, name):
    """Makes one file of the next checkpoint one on a full disk."""
    make = SafeCheckpointer._new_checkpoint_dirpath

    def full_folder(self):
        folder = make(self)
        folder.mkdir()
        (folder / name).symlink_to("/dev/full")
        return folder

    monkeypatch.setattr(SafeCheckpointer, "_new_checkpoint_dirpath", full_folder)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("name", FILES)
def test_a_full_disk_is_one_clear_line_and_the_older_checkpoints_are_kept(
    saved, tmp_path, monkeypatch, name
):
    model, checkpointer, first, second = saved
    with monkeypatch.context() as patch:
        full(patch, name)
        with pytest.raises(CheckpointError, match="make room and start again") as caught:
            checkpointer.save_checkpoint()
    message = str(caught.value)
    assert str(tmp_path) in message
    assert f"the newest whole one is {second.path.name}" in message
    assert sorted(p.name for p in tmp_path.iterdir()) == [first.path.name, second.path.name]
    fresh = again(tmp_path, model)
    assert fresh.recover_if_possible().path == second.path
    assert value(model) == 2.0
    fresh.save_checkpoint()
    assert len(fresh.list_checkpoints()) == 3


def test_an_error_of_another_kind_is_not_taken_for_a_full_disk(saved, monkeypatch):
    _, checkpointer, _, _ = saved

    def save(*_):
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(RuntimeError, match="Connection closed"):
        checkpointer.save_checkpoint()


def save_on_and_on(folder):
    """Saves 1.0, 2.0, ... and keeps two, until it is killed."""
    model = network(0.0)
    checkpointer = SafeCheckpointer(folder, {"model": model, "other": network(0.0)})
    for step in range(1, 100_000):
        nn.init.constant_(model.weight, float(step))
        checkpointer.save_and_keep_only(meta={"step": step}, num_to_keep=2)


@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_at_any_moment_a_whole_checkpoint_is_left(tmp_path, kills):
    """The loop does nothing but save and delete, so that every kill falls into one of the two."""
    steps, unfinished = set(), 0
    for kill in range(kills):
        before = whole(tmp_path)
        child = os.fork()
        if child == 0:
            logging.disable()
            try:
                save_on_and_on(tmp_path)
            finally:
                os._exit(1)
        wait_until(lambda before=before: whole(tmp_path) - before)
        if kill % 2:
            stop_while_writing(child, tmp_path)
        else:
            time.sleep(0.0007 * kill % 0.01)
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        unfinished += any(tmp_path.glob(f"{UNFINISHED}*"))

        model = network(-1.0)
        found = again(tmp_path, model).recover_if_possible()
        assert value(model) == found.meta["step"]
        steps.add((found.path.name, found.meta["step"]))
    assert len(steps) > 1
    assert unfinished >= kills // 2


def stop_while_writing(child, folder):
    """Halts the child while a checkpoint is not yet whole, however slow this process is."""

    def is_halted_there():
        if not any(folder.glob(f"{UNFINISHED}*")):
            return False
        os.kill(child, signal.SIGSTOP)
        os.waitpid(child, os.WUNTRACED)
        if any(folder.glob(f"{UNFINISHED}*")):
            return True
        os.kill(child, signal.SIGCONT)
        return False

    wait_until(is_halted_there)


def whole(folder):
    return {path.name for path in folder.glob("CKPT*")}


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.0005)
