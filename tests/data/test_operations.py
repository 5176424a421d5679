"""Operations on bytes against torchvision's, one picture after another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.autoaugment import RandAugment, TrivialAugmentWide, _apply_op

from kd_lightning.data import operations as do
from kd_lightning.data.policy import OPERATIONS, RAND, WIDE, operated

THEIRS = {"colour": "Color", "autocontrast": "AutoContrast"}
EXACT = ("equalize", "solarize", "posterize", "rotate", "translate_x", "translate_y")
SHAPES = [(1, 28, 28), (3, 32, 32), (3, 20, 31)]


def pictures(shape: tuple[int, ...], count: int = 8) -> torch.Tensor:
    """Smooth and noisy ones, one of a single value, one with few values."""
    generator = torch.Generator().manual_seed(sum(shape))
    noise = torch.randint(0, 256, (count, *shape), generator=generator, dtype=torch.uint8)
    ramp = torch.arange(shape[2]).mul(5).clamp(20, 200).to(torch.uint8).expand(shape)
    noise[0], noise[1], noise[2] = 77, ramp, (ramp // 64) * 50
    return noise


@pytest.mark.parametrize("shape", SHAPES)
def test_solarize_posterize_and_equalize_give_torchvisions_bytes(shape):
    images = pictures(shape)
    assert torch.equal(do.equalize(images), F.equalize(images))
    for number in (1, 2, 5, 7, 8):
        assert torch.equal(do.posterize(images, torch.full((8,), number)), F.posterize(images, number))
    for number in (0, 1, 77, 128, 255):
        assert torch.equal(do.solarize(images, torch.full((8,), number)), F.solarize(images, number))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("space", ["wide", "rand"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_at_every_strength_is_torchvisions(name, space, shape):
    _, h, w = shape
    images = pictures(shape)
    called = THEIRS.get(name) or "".join(part.capitalize() for part in name.split("_"))
    theirs = (
        TrivialAugmentWide()._augmentation_space(31)
        if space == "wide"
        else RandAugment()._augmentation_space(31, (h, w))
    )
    magnitudes, signed = theirs[called]
    for strength in (0, 1, 9, 15, 22, 30):
        for sign in (1, -1) if signed else (1,):
            magnitude = sign * round(float(magnitudes[strength] if magnitudes.dim() else 0), 4)  # 16, not 15.999999
            if name.startswith("translate") and space == "wide":
                magnitude = sign * min(abs(magnitude), 32.0)
                if min(h, w) < 32:
                    continue  # ours go no further than the picture's side
            expected = _apply_op(images, called, magnitude, InterpolationMode.NEAREST, None)
            given = [np.full(8, value) for value in (OPERATIONS.index(name), strength, sign)]
            made = operated(images, *given, WIDE if space == "wide" else RAND)
            if name in EXACT:
                assert torch.equal(made, expected), (strength, sign)
            elif name.startswith("shear"):  # pixels that lie just between two
                beside = [
                    _apply_op(images, called, magnitude * k, InterpolationMode.NEAREST, None) for k in (0.999, 1.001)
                ]
                assert ((made == expected) | (made == beside[0]) | (made == beside[1])).all(), (strength, sign)
            else:
                assert (made.int() - expected.int()).abs().max() <= 1, (strength, sign)
