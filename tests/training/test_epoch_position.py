import pytest

from todm_sb.training.epoch_position import EpochPosition


@pytest.mark.parametrize(
    ("before", "now", "group", "expected"),
    [
        ((1000, 1618), 203, 1, 125),  # on 64 processes in place of 8
        ((100, 203), 1618, 1, 797),
        ((1000, 1618), 203, 4, 124),
        ((1618, 1618), 203, 4, 203),  # to be validated
        ((7, 9), 9, 4, 7),
        ((1000, None), 203, 1, 1000),  # an older checkpoint
        ((0, 9), 5, 2, 0),
        ((3, 0), 5, 2, 3),  # of a loader that told no length
        ((3, 9), 0, 2, 3),
    ],
)
def test_an_epoch_goes_on_at_the_same_part(tmp_path, before, now, group, expected):
    step, n_before = before
    position = EpochPosition()
    if n_before is not None:
        old = EpochPosition()
        old.n_batches = n_before
        old.save(tmp_path / "position")
        position.load(tmp_path / "position", end_of_epoch=False)
    position.n_batches = now
    assert position.after(step, group) == expected
