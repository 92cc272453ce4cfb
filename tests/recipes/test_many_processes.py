"""Whole runs under torchrun; a process that dies, and the restart."""

import json
import re
import socket
import subprocess
import sys

import optuna
import pytest
from optuna.trial import TrialState
from test_mini_recipe import same, weights
from tiny import LIBRISPEECH, ROOT, arguments

from todm_sb.search.pareto import SearchResult

pytestmark = pytest.mark.slow

# train.py, but the second of two processes kills itself before its fourth step.
DYING = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from tiny import LIBRISPEECH, load_script
from todm_sb.training.brain import TODMBrain
from todm_sb.training.distributed import rank

fit_batch, steps = TODMBrain.fit_batch, 0

def dies(self, batch):
    global steps
    steps += 1
    if steps == 4 and rank() == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    return fit_batch(self, batch)

TODMBrain.fit_batch = dies
load_script(LIBRISPEECH / "train.py").main(sys.argv[1:])
"""


def agent(*command, **options):
    """The command line of one torchrun."""
    extra = [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
    return [sys.executable, "-m", "torch.distributed.run", *extra, *map(str, command)]


def torchrun(*command, **options):
    """Runs two processes; gives the finished job."""
    return subprocess.run(
        agent("--standalone", *command, nproc_per_node=2, **options),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope="module")
def dying(tmp_path_factory):
    script = tmp_path_factory.mktemp("dying") / "train.py"
    script.write_text(DYING.format(tests=str(ROOT / "tests" / "recipes")))
    return script


@pytest.fixture(scope="module")
def unbroken(corpus, tmp_path_factory):
    """Output folder of a run by two processes."""
    output = tmp_path_factory.mktemp("two") / "run"
    job = torchrun(LIBRISPEECH / "train.py", *arguments(corpus, output))
    assert job.returncode == 0, job.stderr[-3000:]
    return output


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"beam_size": 0}, "beam_size must be"),
        ({"grad_accumulation_factor": 1000}, "an epoch has only"),
        ({"valid_csv": "none.csv"}, "manifest none.csv does not exist"),
    ],
)
def test_a_check_that_fails_is_one_line_of_one_process(corpus, tmp_path, overrides, message):
    job = torchrun(LIBRISPEECH / "train.py", *arguments(corpus, tmp_path / "run", **overrides))
    assert job.returncode != 0
    (line,) = (line for line in job.stderr.splitlines() if "error:" in line)
    assert line.startswith("error: ")
    assert message in line
    assert job.stderr.count("Traceback") == 1  # torchrun's own
    assert not (tmp_path / "run" / "hyperparams.yaml").exists()


def test_a_process_that_dies_ends_the_job_with_its_name(corpus, dying, tmp_path):
    job = torchrun(dying, *arguments(corpus, tmp_path / "run"))
    assert job.returncode != 0
    root_cause = job.stderr.partition("Root Cause")[2]
    assert re.search(r"rank +: 1 ", root_cause)
    assert "SIGKILL" in root_cause


def test_a_job_that_torchrun_restarts_ends_as_an_unbroken_one(corpus, dying, unbroken, tmp_path):
    command = arguments(corpus, tmp_path / "run", ckpt_interval_steps=1)
    job = torchrun(dying, *command, max_restarts=3)
    assert job.returncode == 0, job.stderr[-3000:]
    assert "exitcode: -9" in job.stderr
    assert same(weights(tmp_path / "run"), weights(unbroken))


def test_of_two_nodes_one_dies_and_the_job_ends_as_an_unbroken_one(
    corpus, dying, unbroken, tmp_path, monkeypatch
):
    """Two agents with a process each, started as docs/reliability.md says for several nodes."""
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    run = agent(
        dying,
        *arguments(corpus, tmp_path / "run", ckpt_interval_steps=1),
        nnodes=2,
        nproc_per_node=1,
        max_restarts=3,
        rdzv_backend="c10d",
        rdzv_id="supernet",
        rdzv_endpoint=f"localhost:{free_port()}",
    )
    with (tmp_path / "log").open("w") as log:
        nodes = [subprocess.Popen(run, cwd=ROOT, stdout=log, stderr=log) for _ in range(2)]
        try:
            codes = [node.wait(600) for node in nodes]
        finally:
            for node in nodes:
                node.terminate()
    log = (tmp_path / "log").read_text()
    assert codes == [0, 0], log[-3000:]
    assert "exitcode: -9" in log
    assert same(weights(tmp_path / "run"), weights(unbroken))


def test_processes_share_the_test_and_measure_what_one_measures(corpus, train, unbroken):
    shared = (unbroken / "results_test-clean.json").read_text()
    ids = alignments(unbroken)
    train(arguments(corpus, unbroken))  # there is nothing left to train
    assert json.loads((unbroken / "results_test-clean.json").read_text()) == json.loads(shared)
    assert sorted(ids) == sorted(alignments(unbroken))
    assert len(ids) == len(set(ids))


def test_processes_share_a_search(unbroken):
    job = torchrun(
        "--module", "todm_sb.cli", "search", unbroken, "--evaluations=6", "--no-baselines"
    )
    assert job.returncode == 0, job.stderr[-3000:]
    assert job.stdout.count("pareto.json, pareto.png, pareto.html") == 1
    found = SearchResult.load(unbroken / "search" / "params" / "pareto.json")
    assert len(found.subnets) == len({s.config for s in found.subnets}) == 6
    trials = optuna.load_study(
        study_name="params", storage=f"sqlite:///{unbroken / 'search' / 'params' / 'study.db'}"
    ).trials
    assert len([t for t in trials if t.state == TrialState.COMPLETE]) == 6


def free_port():
    """A port that nothing listens on."""
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


def alignments(output):
    """Ids of the utterances in the alignments of the max subnet."""
    return re.findall(
        r"^(\S+), %WER", (output / "wer_test-clean_max.txt").read_text(), re.MULTILINE
    )
