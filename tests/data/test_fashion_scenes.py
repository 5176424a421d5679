"""Scenes made of Fashion-MNIST's items: the same everywhere, of the right items, with masks that fit."""

from __future__ import annotations

import made_up_data
import pytest
import torch

from kd_lightning.data.fashion_scenes import SEEN, FashionScenesData
from kd_lightning.errors import UserError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    made_up_data.write_fashion_mnist(folder)
    return str(folder)


def scenes(root, **settings):
    return FashionScenesData(
        root=root, existing=[], download=False, scenes=12, test_scenes=6, val_size=2, batch_size=4, **settings
    )


def test_scenes_are_the_same_each_time_and_pixels_outside_of_items_are_background(root):
    pictures, masks = scenes(root).train_data()
    again = scenes(root).train_data()
    assert torch.equal(pictures, again[0])
    assert torch.equal(masks, again[1])
    assert (pictures.shape, pictures.dtype, masks.shape, masks.dtype) == (
        (12, 1, 64, 64),
        torch.uint8,
        (12, 64, 64),
        torch.int64,
    )
    assert 0 < int(masks.max()) <= 10
    assert all(0 < int((mask > 0).sum()) < 64 * 64 for mask in masks)
    fewer = FashionScenesData(root=root, existing=[], download=False, scenes=5).train_data()
    assert torch.equal(pictures[:5], fewer[0])  # more scenes leave the first ones as they are


def test_no_more_items_than_wanted_and_test_scenes_of_their_own(root):
    _, one = scenes(root, most_items=1).train_data()
    assert all(len(mask.unique()) == 2 for mask in one)
    assert not torch.equal(scenes(root).train_data()[0][:6], scenes(root).test_data()[0])


def test_views_move_picture_and_mask_together(root):
    data = scenes(root, augment=True)
    data.setup("fit")
    train, index = data.train_views_dataset, torch.arange(10)
    plain_inputs, plain = data.array(*data.train_data(), "plain").read(torch.arange(12), 0)
    dark = plain_inputs[:, 0][plain == 0].median()
    for view in (1, 2):
        inputs, target = train.read(index, view)
        assert inputs[:, 0][target > 0].median() > inputs[:, 0][target == 0].median()
        assert abs(inputs[:, 0][target == 0].median() - dark) < 0.5


@pytest.mark.parametrize("settings", [{"canvas": 16}, {"most_items": 0}])
def test_what_cannot_be_is_one_line(settings, root):
    with pytest.raises(UserError, match=r"^data\.(canvas|most_items) must be >="):
        scenes(root, **settings)


def test_which_kinds_are_seen_and_how_much_is_covered_follow_from_the_masks(root):
    pictures, masks = scenes(root).train_data()
    same, seen = scenes(root, target="presence").train_data()
    assert torch.equal(same, pictures)
    assert seen.tolist() == [[int((mask == kind).sum() >= SEEN) for kind in range(1, 11)] for mask in masks]
    _, area = scenes(root, target="area").train_data()
    torch.testing.assert_close(area, torch.tensor([[100 * float((mask > 0).sum()) / 64**2] for mask in masks]))
    presence, covered = scenes(root, target="presence"), scenes(root, target="area")
    assert (presence.sizes()["num_classes"], presence.class_names[0]) == (10, "t-shirt")
    assert (covered.sizes()["num_classes"], covered.class_names) == (1, None)
    assert (scenes(root).sizes()["num_classes"], scenes(root).class_names[0]) == (11, "background")
    with pytest.raises(UserError, match=r"data\.target must be one of masks, presence, area, got 'count'"):
        scenes(root, target="count")
