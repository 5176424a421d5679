"""docs/image_folder.md: its commands run as they stand, on tiny pictures in the layouts that it draws."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import processes
import pytest
from PIL import Image

PAGE = Path(__file__).parents[2] / "docs" / "image_folder.md"
COMMANDS = [
    line for line in PAGE.read_text().splitlines() if line.startswith("kd-train ") and "data.image_size" in line
]
"""Those without labels: tests/running/test_unlabelled_folder.py."""
QUICK = ("teacher.train.max_epochs=1", "trainer.max_epochs=1", "baseline=false", "pictures.every_n_epochs=0",
         "data.num_threads=1", "trainer.accelerator=cpu")  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for layout, count in {"pictures": 30, "split/train": 20, "split/test": 4, "named/training": 16,
                          "named/validation": 5, "named/testing": 4}.items():  # fmt: skip
        for label, name in enumerate(("cats", "dogs")):
            (folder / layout / name).mkdir(parents=True)
            for k in range(count):
                noise = np.random.RandomState(k).randint(0, 99, (40, 48, 3)) + 150 * label
                Image.fromarray(noise.astype(np.uint8)).save(folder / layout / name / f"{k:03}.jpg")
    return folder


def test_the_page_has_a_command_for_each_layout():
    assert [word for line in COMMANDS for word in line.split() if word.startswith("data.root=")] == [
        "data.root=pictures", "data.root=split", "data.root=named", "data.root=pictures",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=lambda line: line.split("data.root=")[1].split()[0])
def test_a_command_of_the_page_runs(command, place):
    words = [w for w in shlex.split(command)[1:] if not w.startswith("trainer.max_epochs")]
    ended = processes.run(place, *words, *QUICK)
    assert ended.code == 0, ended.text
    assert "2 classes, labels 0 to 1; inputs 3 x 32 x 32 float32" in ended.text
