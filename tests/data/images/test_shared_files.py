"""Copies of training pictures among validation and test pictures are told of, with one of them."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from kd_lightning.data.image_folder import ImageFolderData
from kd_lightning.data.images import shared_files as module
from kd_lightning.data.images.shared_files import shared_files


@pytest.fixture
def root(tmp_path):
    random = np.random.default_rng(0)
    for split, count in (("train", 20), ("val", 8), ("test", 10)):
        for name in ("one", "two"):
            (tmp_path / split / name).mkdir(parents=True)
            for k in range(count):
                pixels = random.integers(0, 256, (9, 9, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{k}.bmp")
    return tmp_path


def files(folder) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*.bmp"))


def made(root) -> ImageFolderData:
    data = ImageFolderData(
        str(root), val_dir="val", image_size=8, resize=9, batch_size=4, cache_dir=str(root / "cache")
    )
    data.setup("fit")
    return data


def test_copies_are_counted_and_one_is_named(root, caplog):
    assert made(root).notes == []
    for k in range(4):
        shutil.copy(root / "train" / "one" / f"{k}.bmp", root / "test" / "one" / f"copy{k}.bmp")
    notes = made(root).notes
    assert len(notes) == 1
    assert notes[0].startswith("4 of the 24 test pictures are training pictures too")
    assert "one/copy0.bmp is" in notes[0]
    assert "train/one/0.bmp" in notes[0]
    assert made(root).notes == notes
    assert [record.levelname for record in caplog.records] == ["WARNING"], (
        "once, though a run's teacher has data of its own"
    )


def test_a_copy_or_two_in_many_is_what_published_sets_have(root):
    shutil.copy(root / "train" / "one" / "1.bmp", root / "test" / "one" / "0.bmp")
    assert shared_files({"test": files(root / "test")}, files(root / "train")) == []


def test_of_many_files_a_part_is_read_and_the_count_is_said_to_be_about(root, monkeypatch):
    monkeypatch.setattr(module, "READ", 20)
    (told,) = shared_files({"test": files(root / "train")}, files(root / "train"))
    assert told.startswith("about 100% of the 40 test pictures")
    assert shared_files({"test": files(root / "test")}, files(root / "train")) == []
    monkeypatch.setattr(module, "LOOKED_AT", 10)
    (told,) = shared_files({"test": files(root / "train")}, files(root / "train"))
    assert "of the 40 test pictures" in told
