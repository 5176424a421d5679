"""Random numbers by hashing, and the crop and flip made with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kd_lightning.data.augment import CropFlip, hash_bits, integers, uniforms
from kd_lightning.errors import UserError


def test_the_hash_is_splitmix64():
    # first outputs of the published generator seeded with 0: its state is the counter, its finaliser is ours
    from kd_lightning.data.augment import _GOLDEN, _mix, _mix_int

    known = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    states = [(_GOLDEN * k) & (2**64 - 1) for k in (1, 2, 3)]
    assert [_mix_int(s) for s in states] == known
    assert _mix(np.array(states, dtype=np.uint64)).tolist() == known


def test_numbers_of_a_sample_do_not_depend_on_the_batch_it_is_in():
    together = uniforms(3, 5, torch.tensor([7, 0, 123456, 7]), 4)
    for row, index in enumerate((7, 0, 123456, 7)):
        assert torch.equal(together[row : row + 1], uniforms(3, 5, torch.tensor([index]), 4))


def test_more_draws_extend_the_fewer():
    index = torch.arange(10)
    assert torch.equal(uniforms(0, 0, index, 9)[:, :4], uniforms(0, 0, index, 4))


@pytest.mark.parametrize("other", [(1, 0), (0, 1), (-1, 0), (0, -1), (2**40, 0)])
def test_seed_and_view_choose_unrelated_streams(other):
    index = torch.arange(4000)
    one, two = uniforms(0, 0, index, 1).flatten(), uniforms(*other, index, 1).flatten()
    assert (one == two).sum() < 5
    assert torch.corrcoef(torch.stack([one, two]))[0, 1].abs() < 0.06


def test_uniforms_are_uniform_and_their_draws_uncorrelated():
    u = uniforms(1, 2, torch.arange(100_000), 3)
    assert u.dtype == torch.float32
    assert u.min() >= 0
    assert u.max() < 1
    counts = torch.histc(u.flatten(), bins=50, min=0, max=1)
    expected = u.numel() / 50
    assert ((counts - expected) ** 2 / expected).sum() < 95  # chi-squared, 49 degrees of freedom: p = 1e-4
    assert (torch.corrcoef(u.T) - torch.eye(3)).abs().max() < 0.015
    assert torch.corrcoef(torch.stack([u[1:, 0], u[:-1, 0]]))[0, 1].abs() < 0.015


@pytest.mark.parametrize("below", [1, 2, 7, 81])
def test_integers_are_in_range_and_equally_frequent(below):
    drawn = integers(hash_bits(0, 0, torch.arange(81_000), 1)[:, 0], below)
    counts = np.bincount(drawn, minlength=below)
    assert len(counts) == below
    assert np.abs(counts - 81_000 / below).max() < 6 * (81_000 / below) ** 0.5


def images(n=6, channels=3, size=9, dtype=torch.uint8):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (n, channels, size, size), generator=generator).to(dtype)


def slow_views(pixels: torch.Tensor, augment: CropFlip, seed: int, view: int, mode: str) -> torch.Tensor:
    """The same crop and flip, one sample at a time, by padding and slicing."""
    p, made = augment.crop_padding, []
    for index, image in enumerate(pixels):
        bits = hash_bits(seed, view, torch.tensor([index]), 1)[0]
        place = int(integers(bits, (2 * p + 1) ** 2)[0])
        top, left = divmod(place, 2 * p + 1)
        padded = F.pad(image[None].float(), (p, p, p, p), mode=mode)[0].to(image.dtype)
        crop = padded[:, top : top + image.shape[1], left : left + image.shape[2]]
        made.append(crop.flip(-1) if augment.flip and int(bits[0]) & 1 else crop)
    return torch.stack(made)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("padding", "mode"), [(0, "zeros"), (1, "zeros"), (4, "zeros"), (2, "reflect"), (2, "edge")])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_views_equal_padding_and_slicing_one_by_one(channels, flip, padding, mode, dtype):
    pixels = images(40, channels, dtype=dtype)
    augment = CropFlip(padding, flip, mode)
    torch_mode = {"zeros": "constant", "reflect": "reflect", "edge": "replicate"}[mode]
    views = augment.gather(augment.pad(pixels), torch.arange(40), seed=3, view=2)
    assert views.dtype == dtype
    assert torch.equal(views, slow_views(pixels, augment, 3, 2, torch_mode))


def test_a_view_is_the_same_alone_and_in_any_batch():
    pixels = images(30)
    augment = CropFlip(2, True)
    padded = augment.pad(pixels)
    batch = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    views = augment.gather(padded, batch, 0, 4)
    for place, index in enumerate(batch.tolist()):
        assert torch.equal(augment.gather(padded, torch.tensor([index]), 0, 4)[0], views[place])


def test_views_differ_between_epochs_and_every_shift_occurs():
    pixels = torch.zeros(1, 1, 5, 5, dtype=torch.uint8)
    pixels[0, 0, 2, 2] = 1
    augment = CropFlip(2)
    padded = augment.pad(pixels)
    places = {int(augment.gather(padded, torch.tensor([0]), 0, view).flatten().argmax()) for view in range(400)}
    assert places == set(range(25))


def test_half_of_the_samples_are_flipped():
    pixels = torch.tensor([[[[1, 2]]]], dtype=torch.uint8).expand(2000, 1, 1, 2).contiguous()
    augment = CropFlip(0, True)
    flipped = augment.gather(augment.pad(pixels), torch.arange(2000), 0, 0)[:, 0, 0, 0] == 2
    assert 900 < flipped.sum() < 1100


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"crop_padding": -1}, "crop_padding"),
        ({"crop_padding": 1.5}, "crop_padding"),
        ({"flip": 0.5}, "flip"),
        ({"padding_mode": "mirror"}, "padding_mode"),
    ],
)
def test_wrong_settings_are_told(settings, told):
    with pytest.raises(UserError, match=told):
        CropFlip(**settings)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "edge"])
def test_moving_a_picture_out_of_sight_is_told(mode):
    side = min(images().shape[2:])
    assert CropFlip(side - 1, padding_mode=mode).pad(images()).shape[2] >= 3 * side - 2
    with pytest.raises(UserError, match=f"crop_padding={side} moves pictures of .* out of sight"):
        CropFlip(side, padding_mode=mode).pad(images())
