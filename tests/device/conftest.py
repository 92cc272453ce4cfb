"""The pretended device, for as long as a test lasts."""

import pytest
from pretended import AVAILABLE, FAR, pretended_device

from todm_sb.nnet import dropout


@pytest.fixture
def ledger(monkeypatch):
    """The device is there, and this is what is asked of it; a CPU that it is compared with draws
    the same dropout."""
    monkeypatch.setattr(dropout, "kind_of", lambda _: FAR)
    if not AVAILABLE:
        pytest.skip("this PyTorch has no backends in Python")
    with pretended_device() as ledger:
        yield ledger
