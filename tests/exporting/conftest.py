"""A finished run of digits that all tests of exports share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from processes import run

QUICK = ("teacher=none", "method=none", "trainer.max_epochs=2", "trainer.accelerator=cpu", "pictures.every_n_epochs=0")


@pytest.fixture(scope="session")
def convolutional(tmp_path_factory) -> Path:
    """A finished run of a small CNN."""
    folder = tmp_path_factory.mktemp("cnn")
    ended = run(folder, "student=small_cnn", "student.channels=[4,8]", *QUICK, "run_dir=run")
    assert ended.code == 0, ended.text
    return folder / "run"


@pytest.fixture
def cnn(convolutional, tmp_path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(convolutional, tmp_path / "run"))
