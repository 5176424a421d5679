"""Sweep directories and a real browser for the report's tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from chromium import BINARY, Chromium
from sweep_maker import make_sweep


@pytest.fixture
def sweep_dir(tmp_path) -> Path:
    """4 temperatures x 3 weights x 3 seeds and the student alone; one run failed, one running, one not started."""
    return make_sweep(
        tmp_path / "temperature_weight",
        failed=("T08.0_kd0.10_s1",),
        running=("T01.0_kd0.90_s2",),
        missing=("T02.0_kd0.50_s2",),
    )


@pytest.fixture(scope="session")
def large_sweep(tmp_path_factory) -> Path:
    """8 temperatures x 6 weights x 3 seeds = 144 runs and the student alone, 300 lines of metrics each."""
    grid = {"method.temperature": [1, 2, 3, 4, 6, 8, 12, 16], "method.weights.kd": [0.1, 0.3, 0.5, 0.7, 0.9, 1.0]}
    return make_sweep(tmp_path_factory.mktemp("large") / "temperature_weight", grid, steps=1500, every=10)


@pytest.fixture(scope="session")
def browser():
    if BINARY is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    with Chromium() as chromium:
        yield chromium


@pytest.fixture
def screenshots(tmp_path) -> Path:
    """Where pictures of pages go: ``outputs`` of the test, or the directory that KD_SCREENSHOTS names."""
    return Path(os.environ.get("KD_SCREENSHOTS") or tmp_path / "outputs")
