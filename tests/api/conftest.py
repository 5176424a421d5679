"""A folder of its own for each test, with this one on the path."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

QUICK = {"pictures.every_n_epochs": 0, "trainer.accelerator": "cpu", "data.num_threads": 1}
"""Settings of runs that take about a second."""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path
