from types import SimpleNamespace

import pytest
import speechbrain as sb

from todm_sb.brain import TODMBrain


@pytest.mark.parametrize(("options", "first"), [({}, 0), ({"augment_after": 3}, 3)])
def test_augmentation_starts_after_so_many_steps_and_only_in_training(options, first):
    for step in range(6):
        brain = SimpleNamespace(hparams=SimpleNamespace(**options), optimizer_step=step)
        assert TODMBrain.augments(brain, sb.Stage.TRAIN) == (step >= first)
        assert not TODMBrain.augments(brain, sb.Stage.VALID)
        assert not TODMBrain.augments(brain, sb.Stage.TEST)
