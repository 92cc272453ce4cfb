"""The pretended device, for as long as a test lasts."""

import pytest
from pretended import AVAILABLE, pretended_device


@pytest.fixture
def ledger():
    """The device is there, and this is what is asked of it."""
    if not AVAILABLE:
        pytest.skip("this PyTorch has no backends in Python")
    with pretended_device() as ledger:
        yield ledger
