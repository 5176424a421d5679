"""A private Slurm, and a folder in which commands find it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_cluster import SlurmCluster


@pytest.fixture(scope="module")
def slurm() -> Iterator[SlurmCluster]:
    cluster = SlurmCluster()
    yield cluster
    cluster.stop()


@pytest.fixture
def folder(tmp_path, monkeypatch, slurm) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    yield tmp_path
    slurm.run("scancel", "--user", str(os.getuid()), check=False)
    slurm.wait_until_empty()
