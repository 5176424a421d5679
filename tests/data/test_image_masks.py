"""Folders of pictures and masks: read together, cut together, augmented together; what is wrong is one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kd_lightning.batch import UNLABELLED
from kd_lightning.data.image_masks import ImageMaskFiles, ImageMasksData
from kd_lightning.errors import UserError

PLAIN = {"mean": [0.0] * 3, "std": [1.0] * 3}


def write(folder: Path, count: int = 20, size: tuple[int, int] = (40, 32)) -> Path:
    """Pictures whose red says the class of each pixel, 80 times its number; 255 in a corner of the mask."""
    for name in ("images", "masks"):
        (folder / name / "deep").mkdir(parents=True)
    for number in range(count):
        random = np.random.default_rng(number)
        classes = np.kron(random.integers(0, 3, (size[1] // 8, size[0] // 8)), np.ones((8, 8))).astype(np.uint8)
        pixels = np.stack([80 * classes, 0 * classes, 0 * classes], -1)
        mask = classes.copy()
        mask[:8, :8] = 255
        stem = f"deep/{number}" if number % 2 else f"{number}"
        Image.fromarray(pixels).save(folder / "images" / f"{stem}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{stem}.png")
    return folder


def agree(inputs: torch.Tensor, target: torch.Tensor) -> bool:
    """Whether each labelled pixel has the class that its red says."""
    said = (inputs[:, 0] * 255 / 80).round().long()
    return bool((said == target)[target != UNLABELLED].all())


def test_pictures_and_masks_belong_together_in_every_view(tmp_path):
    settings = {"image_size": 32, "val_size": 4, "batch_size": 4, "augment": {"crop_padding": 4, "flip": True}}
    data = ImageMasksData(str(write(tmp_path)), **settings, **PLAIN)
    data.setup("fit")
    assert (data.num_classes, data.sizes()["image_size"], data.sizes()["in_channels"]) == (3, 32, 3)
    train = data.train_views_dataset
    index = torch.arange(len(train))
    seen = set()
    for view in range(4):
        inputs, target = train.read(index, view)
        assert inputs.shape == (len(train), 3, 32, 32)
        assert target.shape == (len(train), 32, 32)
        assert agree(inputs, target)
        seen.add(target.sum().item())
        assert (target == UNLABELLED).any()
    assert len(seen) == 4  # the views differ


def test_the_square_in_the_middle_is_taken_and_255_has_no_label(tmp_path):
    files = ImageMaskFiles(write(tmp_path, 2), image_size=32, **PLAIN)
    picture, mask = files[0]
    raw = np.array(Image.open(tmp_path / "masks" / "0.png"))[:, 4:36].astype(int)
    expected = torch.from_numpy(np.where(raw == 255, UNLABELLED, raw))
    assert torch.equal(mask, expected)
    assert agree(picture[None], mask[None])
    half = ImageMaskFiles(tmp_path, image_size=16, **PLAIN)[0]
    assert half[0].shape == (3, 16, 16)
    assert set(half[1].unique().tolist()) <= {UNLABELLED, 0, 1, 2}  # nearest: no class in between


def test_a_palette_is_read_by_its_numbers(tmp_path):
    write(tmp_path, 2)
    mask = Image.fromarray(np.full((32, 40), 2, dtype=np.uint8)).convert("P")
    mask.putdata([2] * (32 * 40))
    mask.putpalette([9, 9, 9] * 256)
    mask.save(tmp_path / "masks" / "0.png")
    assert ImageMaskFiles(tmp_path, image_size=8, **PLAIN)[0][1].unique().tolist() == [2]


def test_folders_of_their_own_are_kept_apart(tmp_path):
    for name, count in (("train", 9), ("test", 5), ("val", 3)):
        write(tmp_path / name, count)
    data = ImageMasksData(
        str(tmp_path), train_dir="train", val_dir="val", test_dir="test", image_size=8, batch_size=4, **PLAIN
    )
    data.setup("fit")
    assert (data.train_samples, data.val_samples, len(data.build_test())) == (9, 3, 5)


def test_what_is_wrong_is_one_line_that_names_the_file(tmp_path):
    write(tmp_path, 3)
    with pytest.raises(UserError, match=r"^data\.root: there is no directory .*nowhere"):
        ImageMasksData(str(tmp_path / "nowhere"))
    Image.fromarray(np.zeros((5, 5), dtype=np.uint8)).save(tmp_path / "masks" / "0.png")
    with pytest.raises(UserError, match=r"0\.png: the mask has 5x5 pixels, its picture 40x32"):
        ImageMaskFiles(tmp_path)[0]
    Image.fromarray(np.zeros((32, 40, 3), dtype=np.uint8)).save(tmp_path / "masks" / "0.png")
    with pytest.raises(UserError, match=r"0\.png: a mask holds one class number for each pixel .* has the form RGB"):
        ImageMaskFiles(tmp_path)[0]
    (tmp_path / "masks" / "0.png").unlink()
    with pytest.raises(UserError, match=r"^data\.root: 1 of 3 pictures have no mask, the first: .*0\.png; put a file"):
        ImageMasksData(str(tmp_path))


def test_masks_of_0_and_255_hold_one_class_only(tmp_path):
    for number in range(12):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "masks").mkdir(exist_ok=True)
        mask = np.full((32, 32), 255, np.uint8)
        mask[:16] = 0
        Image.fromarray(np.stack([mask] * 3, -1)).save(tmp_path / "images" / f"{number}.png")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.png")
    with pytest.raises(UserError, match=r"one class only, besides values that mean no label \(255; data\.ignore\)"):
        ImageMasksData(str(tmp_path), image_size=32, val_size=2, batch_size=4, **PLAIN).summary()
