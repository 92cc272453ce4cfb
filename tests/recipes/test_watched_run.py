"""What a whole run tells of its steps: in steps.jsonl, the log, TensorBoard and on stdout."""

import re

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import arguments

from todm_sb.training.tensorboard import TensorboardLogger
from todm_sb.training.watch import read_steps

# Told once a minute, and at the end of an epoch.
SUMMARY = {
    "lr",
    *("max", "min", "random", "random layers", "random FFN"),
    *("kd", "alpha -1", "alpha 1"),
    *("gradient norm", "clipped", "left out"),
    *("utterances a second", "audio hours an hour", "memory GB"),
}


def test_every_step_is_told_with_its_subnets(tiny_run):
    steps = read_steps(tiny_run / "steps.jsonl")
    assert [step["step"] for step in steps] == list(range(1, len(steps) + 1))
    assert [len(step["losses"]) for step in steps] == [1, 1] + [4] * (len(steps) - 2)
    for step in steps[2:]:
        assert step["losses"][:2] == [step["max"], step["min"]]
        assert len(step["ctc"]) == 4
        assert len(step["divergences"]) == 3
        assert (step["layers"][:2], step["FFN"][:2]) == ([2, 1], [64, 16])
        assert step["alpha -1"] + step["alpha 1"] == pytest.approx(1)
        assert step["clipped"] in (0.0, 1.0)
        assert step["gradient norm"] > 0
        assert step["utterances"] > 0
        assert step["memory GB"] > 0
    # Not one of the random subnets is the only one there is.
    assert len({tuple(step["FFN"]) for step in steps}) > 2


def test_summaries_go_to_the_log_and_to_tensorboard(tiny_run):
    log = (tiny_run / "log.txt").read_text()
    # Training's own: whatever logs later in this process is in the file, too.
    lines = re.findall(r"todm_sb.training.watch - INFO - (step \d+, epoch \d: lr .*)", log)
    assert {line.partition(":")[0].split()[-1] for line in lines} == {"1", "2"}
    events = EventAccumulator(str(tiny_run / "tensorboard"))
    events.Reload()
    for name in SUMMARY:
        assert re.search(rf"[:,] {re.escape(name)} [-\d.e+]+(,|$)", lines[-1]), name
        assert len(events.Scalars(f"steps/{name}")) >= 1
    last = read_steps(tiny_run / "steps.jsonl")[-1]["step"]
    assert events.Scalars("steps/max")[-1].step == last


def test_figures_of_an_epoch_are_drawn_at_it(tmp_path):
    for epochs in ([1, 2], [3]):  # resumed before the third
        logger = TensorboardLogger(str(tmp_path))
        for epoch in epochs:
            later = {"WER min": 9.0} if epoch > 1 else {}
            logger.log_stats({"epoch": epoch, "lr": 0.1}, {"max": 1.0}, {"WER max": 5.0, **later})
        logger.writer.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    for name in ("lr", "max/train", "WER max/valid", "WER min/valid"):
        steps = [event.step for event in events.Scalars(name)]
        assert steps == ([2, 3] if "min" in name else [1, 2, 3]), name


def test_clipping_is_told_and_summaries_without_a_terminal(corpus, train, tmp_path, capfd):
    adam = {"lr": 0.001, "opt_class": "!name:torch.optim.AdamW", "max_grad_norm": 20.0}
    train(arguments(corpus, tmp_path / "run", number_of_epochs=1, **adam))
    steps = read_steps(tmp_path / "run" / "steps.jsonl")
    assert [s["clipped"] for s in steps] == [float(s["gradient norm"] > 20.0) for s in steps]
    assert max(s["gradient norm"] for s in steps) > 20.0
    out = capfd.readouterr().out
    (line,) = (x for x in out.splitlines() if re.search(r"\bstep \d+, epoch 1: ", x))
    assert re.search(r": lr .*\bmax .*\bmemory GB ", line)
