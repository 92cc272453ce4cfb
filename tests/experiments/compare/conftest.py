"""Comparisons whose cells take no time."""

import pytest


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """Cells are looked at more often than is worth it where they train."""
    monkeypatch.setattr("todm_sb.experiments.compare.runner.POLL", 0.02)
