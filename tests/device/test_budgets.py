"""What a training step may cost, in counts, which unlike times are the same on every machine."""

from collections import Counter

import pytest
from pretended import AVAILABLE, FAR, pretended_device
from recipe_step import make_batch, make_brain

# Of a sandwich step of supernet.yaml: 16 layers; max, min, two random subnets; distillation.
LAUNCHES = 5000
# Results that the host reads, besides those inside torchaudio's loss.
READS = 10

INSIDE_TORCHAUDIO = "lengths of rnnt_loss"


@pytest.fixture(scope="module")
def step(tmp_path_factory):
    """The second step: the first, of max alone, makes the optimizer's state."""
    if not AVAILABLE:
        pytest.skip("this PyTorch has no backends in Python")
    with pretended_device() as ledger:
        brain = make_brain(tmp_path_factory.mktemp("run"), FAR, sandwich_warmup=0.1)
        brain.on_fit_start()
        for brain.step in (1, 2):
            batch = make_batch(brain.hparams.vocab_size, seed=brain.step)
            ledger.clear()
            brain.fit_batch(batch)
        assert len(brain.hparams.model.encoder.layers) == 16
        assert brain.train_losses.means()["kd"] > 0  # there were students
        return Counter(ledger.launches), Counter(ledger.reads)


def test_a_sandwich_step_has_few_launches(step):
    launches, _ = step
    assert launches.total() <= LAUNCHES


def test_a_sandwich_step_seldom_waits_for_the_device(step):
    _, reads = step
    own = {key: n for key, n in reads.items() if key[0] != INSIDE_TORCHAUDIO}
    assert sum(own.values()) <= READS, own
