"""Crops of pictures: equal to torchvision's where nothing is random, of its distribution where something is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image
from torchvision.transforms import v2

from kd_lightning.data.images.crops import CentreCrop, RandomResizedCrop
from kd_lightning.errors import UserError

PHOTO = load_sample_image("china.jpg").copy()  # 427 x 640


def chw(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)


def shape(pixels: np.ndarray) -> tuple[int, int]:
    return pixels.shape[:2]


@pytest.mark.parametrize("picture", [PHOTO, PHOTO.transpose(1, 0, 2).copy(), PHOTO[:300, :300].copy(), PHOTO[:50, :70]])
@pytest.mark.parametrize(("size", "resize"), [(224, 256), (96, 96), (64, 75)])
def test_the_centre_crop_is_torchvisions(picture, size, resize):
    crop = CentreCrop(size, resize)
    theirs = v2.Compose([v2.Resize(resize, antialias=True), v2.CenterCrop(size)])(chw(picture.copy()))
    ours = crop.cut(picture, shape(picture), None)
    assert ours.shape == (1, 3, size, size)
    assert (ours[0].int() - theirs.int()).abs().max() <= 1  # rounding differs between memory formats


def test_the_random_crop_is_torchvisions_resize_of_its_box():
    crop = RandomResizedCrop(112, seed=4)
    for index, draw in enumerate(crop.draw(torch.arange(20), view=3)):
        top, left, height, width = crop.box(*shape(PHOTO), draw)
        theirs = v2.functional.resized_crop(chw(PHOTO), top, left, height, width, [112, 112], antialias=True)
        if draw[-1] < 0.5:
            theirs = theirs.flip(-1)
        ours = crop.cut(PHOTO, shape(PHOTO), draw)[0]
        assert (ours.int() - theirs.int()).abs().max() <= 1, index


@pytest.mark.parametrize("picture", [PHOTO, PHOTO.transpose(1, 0, 2).copy(), PHOTO[:300, :300].copy(), PHOTO[:50, :70]])
@pytest.mark.parametrize("crop", [CentreCrop(224, 256), CentreCrop(64, 75), CentreCrop(96, 96), RandomResizedCrop(112)])
def test_what_lies_below_the_rows_of_a_crop_does_not_matter(picture, crop):
    for draw in crop.draw(torch.arange(12), view=0):
        other = picture.copy()
        other[crop.rows(*shape(picture), draw) :] = 255 - other[crop.rows(*shape(picture), draw) :]
        assert torch.equal(crop.cut(other, shape(other), draw), crop.cut(picture, shape(picture), draw))


def test_boxes_have_the_distribution_of_torchvision():
    n, crop = 4000, RandomResizedCrop(64)
    ours = np.array([crop.box(300, 500, draw) for draw in crop.draw(torch.arange(n), 0)])
    torch.manual_seed(0)
    image = torch.empty(3, 300, 500)
    params = [v2.RandomResizedCrop(64).make_params([image]) for _ in range(n)]
    theirs = np.array([[p["top"], p["left"], p["height"], p["width"]] for p in params])
    for column in range(4):
        points = np.sort(np.concatenate([ours[:, column], theirs[:, column]]))
        one = np.searchsorted(np.sort(ours[:, column]), points, side="right") / n
        two = np.searchsorted(np.sort(theirs[:, column]), points, side="right") / n
        assert np.abs(one - two).max() < 0.045  # Kolmogorov-Smirnov, p < 1e-3


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (3, 2), (375, 500)])
def test_every_box_lies_in_the_picture(size):
    crop = RandomResizedCrop(16, scale=(0.01, 1.0))
    for draw in crop.draw(torch.arange(300), 0):
        top, left, height, width = crop.box(*size, draw)
        assert 0 <= top <= top + height <= size[0]
        assert 0 <= left <= left + width <= size[1]
        assert height >= 1
        assert width >= 1
    assert crop.cut(np.zeros((*size, 3), np.uint8), size, draw).shape == (1, 3, 16, 16)


def test_draws_of_a_sample_do_not_depend_on_its_batch():
    crop = RandomResizedCrop(16, seed=2)
    together = crop.draw(torch.tensor([5, 900, 5, 1]), 8)
    assert together[0] == together[2] == crop.draw(torch.tensor([5]), 8)[0]
    assert together[0] != together[1]
    assert together[0] != crop.draw(torch.tensor([5]), 9)[0]


def test_half_of_the_views_are_flipped_and_none_without_flip():
    both = RandomResizedCrop(8, scale=(1, 1), ratio=(1, 1))
    never = RandomResizedCrop(8, scale=(1, 1), ratio=(1, 1), flip=False)
    ramp = np.arange(8, dtype=np.uint8)[None, :, None].repeat(8, 0).repeat(3, 2)
    first = [int(both.cut(ramp, (8, 8), draw)[0, 0, 0, 0]) for draw in both.draw(torch.arange(1000), 0)]
    assert set(first) == {0, 7}
    assert 430 < first.count(7) < 570
    assert all(int(never.cut(ramp, (8, 8), d)[0, 0, 0, 0]) == 0 for d in never.draw(torch.arange(50), 0))


@pytest.mark.parametrize(("short", "factor"), [(100, 1), (255, 1), (256, 1), (511, 1), (512, 2), (1024, 4), (9000, 8)])
def test_a_picture_is_never_shrunk_below_what_the_resize_needs(short, factor):
    assert CentreCrop(224, 256).factor(short, 2 * short, None) == factor


def test_a_crop_of_a_shrunken_picture_shows_the_same_part():
    crop = RandomResizedCrop(48, seed=1)
    draws = crop.draw(torch.arange(30), 0)
    shrunk = [(d, f) for d in draws if (f := crop.factor(*shape(PHOTO), d)) > 1]
    assert shrunk
    for draw, factor in shrunk:
        small = chw(PHOTO)[None].float()
        small = torch.nn.functional.interpolate(
            small, [-(-side // factor) for side in shape(PHOTO)], mode="bilinear", antialias=True
        )
        pixels = small[0].round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()
        ours = crop.cut(pixels, shape(PHOTO), draw).float()
        whole = crop.cut(PHOTO, shape(PHOTO), draw).float()
        together = torch.stack([ours.flatten(), whole.flatten()])
        assert torch.corrcoef(together)[0, 1] > 0.97


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: RandomResizedCrop(8, scale=(0, 1)), r"data\.augment\.scale"),
        (lambda: RandomResizedCrop(8, scale=(0.5, 0.2)), r"data\.augment\.scale"),
        (lambda: RandomResizedCrop(8, scale=(0.5,)), r"data\.augment\.scale"),
        (lambda: RandomResizedCrop(8, ratio=(2, 1)), r"data\.augment\.ratio"),
        (lambda: CentreCrop(224, 200), r"data\.resize=200 must be at least data\.image_size=224"),
    ],
)
def test_wrong_settings_are_told(make, told):
    with pytest.raises(UserError, match=told):
        make()
