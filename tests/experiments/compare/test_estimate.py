"""The estimate counts steps by hand, and subnets by their multiply-accumulates."""

from types import SimpleNamespace

import pytest

from todm_sb.experiments.compare.cells import Cell
from todm_sb.experiments.compare.estimate import estimate_text, steps_of_max
from todm_sb.experiments.compare.sizes import Size
from todm_sb.space import SearchSpace
from todm_sb.supernet.cost import count_macs

SPACE = SearchSpace(4, 1, ffn_dims=(6, 12))


@pytest.fixture
def hparams(make_transducer):
    return {
        "model": make_transducer(),
        "space": SPACE,
        "features": SimpleNamespace(n_frames=lambda samples: samples // 160),
        "sample_rate": 16000,
        "max_batch_seconds": 100.0,
        "reference_batch_seconds": 100.0,
        "number_of_epochs": 3,
        "sandwich_warmup": 10,
        "n_random": 2,
    }


def test_steps_of_a_cell_in_those_of_max_alone(hparams):
    sizes = [Size(SPACE.min, 1), Size(SPACE.max, 2)]
    # 1,970 s of audio are 20 batches of 99 s, the share of a batch that is no padding.
    steps = steps_of_max(hparams, sizes, hours=1970 / 3600)
    macs = [count_macs(hparams["model"], x, 1230, 46) for x in (SPACE.min, SPACE.max)]
    low = 0.45 + 0.55 * macs[0] / macs[1]
    assert steps(Cell("individual-4x12", 1, {})) == pytest.approx(60)
    assert steps(Cell("tuned-1x6", 1, {})) == pytest.approx(60 * low)
    assert steps(Cell("trial-1x6-lr2-dropout1", 1, {})) == pytest.approx(60 * low)
    random = (1 + low) / 2
    assert steps(Cell("supernet", 1, {})) == pytest.approx(10 + 50 * (1 + low + 2 * random))
    none = Cell("ablation-random-0", 1, {"n_random": "0"})
    assert steps(none) == pytest.approx(10 + 50 * (1 + low))
    # Also where sizes are of layers alone, and one is called "4".
    called = SimpleNamespace(name="4", subnet=SPACE.max)
    of_four = steps_of_max(hparams, [called], hours=1970 / 3600)
    four = Cell("ablation-random-4", 1, {"n_random": "4"})
    assert of_four(four) == pytest.approx(10 + 50 * (1 + low + 4 * random))
    assert of_four(Cell("individual-4", 1, {})) == pytest.approx(60)
    assert estimate_text([none] * 3, lambda cell: 600, 2.0) == (
        "3 cells to run: about 1.0 hours of processor time, validation apart"
    )
