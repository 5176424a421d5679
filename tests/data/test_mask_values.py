"""Masks that hold grey values or colours in place of class numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from kd_lightning.batch import UNLABELLED
from kd_lightning.data.image_masks import ImageMaskFiles, ImageMasksData
from kd_lightning.data.mask_values import MaskValues
from kd_lightning.errors import UserError

PLAIN = {"mean": [0.0] * 3, "std": [1.0] * 3, "image_size": 16}
CLASSES = np.random.default_rng(0).integers(0, 3, (16, 16))
COLOURS = np.array([[0, 0, 0], [128, 0, 64], [0, 0, 255]], np.uint8)


def written(folder, mask: Image.Image, count: int = 1):
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(folder / "images" / f"{number}.png")
        mask.save(folder / "masks" / f"{number}.png")
    return folder


def test_grey_values_become_the_classes_in_whose_place_they_stand(tmp_path):
    grey = np.array([255, 0, 7], np.uint8)[CLASSES]
    _, mask = ImageMaskFiles(written(tmp_path, Image.fromarray(grey)), mask_values=[0, 255], ignore=[255, 7], **PLAIN)[
        0
    ]
    assert torch.equal(mask, torch.tensor([1, 0, UNLABELLED])[torch.from_numpy(CLASSES)])


@pytest.mark.parametrize("form", ["RGB", "RGBA", "P"])
def test_colours_become_classes_in_every_form_of_file(form, tmp_path):
    picture = Image.fromarray(COLOURS[CLASSES])
    if form == "P":
        picture = Image.fromarray(CLASSES.astype(np.uint8)).convert("P")
        picture.putdata(CLASSES.flatten().tolist())
        picture.putpalette(COLOURS.flatten().tolist())
    picture = picture.convert(form)
    values = COLOURS[[2, 1]].tolist()
    settings = {"mask_values": values, "ignore": [255, COLOURS[0].tolist()]}
    _, mask = ImageMaskFiles(written(tmp_path, picture), **settings, **PLAIN)[0]
    assert torch.equal(mask, torch.tensor([UNLABELLED, 1, 0])[torch.from_numpy(CLASSES)])


def test_the_classes_are_those_that_are_named(tmp_path):
    root = written(tmp_path, Image.fromarray(np.full((16, 16), 255, np.uint8)), 12)
    data = ImageMasksData(str(root), mask_values=[0, 128, 255], val_size=2, batch_size=4, augment=False, **PLAIN)
    data.setup("fit")
    assert data.num_classes == 3
    assert data.train_dataset().read(torch.tensor([0]), 0)[1].unique().tolist() == [2]


def test_a_value_that_nobody_named_is_told_with_its_file(tmp_path):
    root = written(tmp_path, Image.fromarray(COLOURS[CLASSES]))
    with pytest.raises(UserError, match=r"0\.png: the mask holds \[0, 0, 255\], which is none of data\.mask_values"):
        ImageMaskFiles(root, mask_values=COLOURS[:2].tolist(), **PLAIN)[0]
    written(tmp_path, Image.fromarray(np.array([0, 255, 9], np.uint8)[CLASSES]))
    with pytest.raises(UserError, match=r"0\.png: the mask holds 9, which is none .* in data\.ignore"):
        ImageMaskFiles(root, mask_values=[0, 255], **PLAIN)[0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, [1, 2, 3]], "name a grey value for each class"),
        ([7], "name a grey value for each class"),
        ([7, 7], "two classes have one value"),
        ([[0, 0, 0], [1, 2]], r"\[1, 2\] is no colour"),
        ([[0, 0, 0], [1, 2, 256]], r"is no colour"),
    ],
)
def test_what_cannot_be_meant_is_one_line(values, message):
    with pytest.raises(UserError, match=rf"data\.mask_values.*{message}"):
        MaskValues(values, ())
