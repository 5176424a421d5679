"""A teacher's inputs from those that the loader made for the student: its normalisation, its size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kd_lightning.errors import UserError

Normalization = Mapping[str, Sequence[float]]


def renormalization(
    teacher: Normalization | None, data: Normalization | None, name: str
) -> tuple[Tensor, Tensor] | None:
    """(scale, shift), each of shape (C,), taking loader-normalised inputs to the teacher's; None where they agree."""
    if teacher is None:
        return None
    mean, std = _mean_std(teacher, f"teacher {name!r}: normalization")
    data_mean, data_std = _mean_std(data or {"mean": [0.0], "std": [1.0]}, "data normalization")
    try:
        scale, shift = torch.broadcast_tensors(data_std / std, (data_mean - mean) / std)
    except RuntimeError:
        raise UserError(
            f"teacher {name!r}: normalization has {len(mean)} channels, the data's has {len(data_mean)}; "
            "give the teacher's mean and std for the data's channels"
        ) from None
    if torch.allclose(scale, torch.ones_like(scale), 0, 1e-6) and torch.allclose(
        shift, torch.zeros_like(shift), 0, 1e-6
    ):
        return None
    return scale.float(), shift.float()


def _mean_std(normalization: Normalization, where: str) -> tuple[Tensor, Tensor]:
    if set(normalization) != {"mean", "std"}:
        raise UserError(f"{where}: expected the keys mean and std, got {', '.join(map(str, normalization)) or 'none'}")
    mean, std = (torch.as_tensor([float(v) for v in normalization[k]], dtype=torch.float64) for k in ("mean", "std"))
    if len(mean) != len(std) or not len(std) or not bool((std > 0).all()):
        raise UserError(f"{where}: mean and std need one number a channel each, std > 0, got {dict(normalization)}")
    return mean, std


def per_channel(values: Tensor, inputs: Tensor) -> Tensor:
    """Values of shape (C,) shaped to broadcast along dimension 1 of ``inputs``, in its dtype and on its device."""
    return values.to(inputs).view(1, -1, *[1] * (inputs.dim() - 2))


def resized(inputs: Any, image_size: int | None) -> Any:
    """Images (N, C, H, W) scaled to ``image_size`` pixels a side, bilinearly and without aliasing; others as they are."""
    if image_size is None or not isinstance(inputs, Tensor) or inputs.shape[-2:] == (image_size, image_size):
        return inputs
    if inputs.dim() != 4:
        raise UserError(
            f"teacher.image_size={image_size}: the inputs are no images (N, C, H, W): {tuple(inputs.shape)}"
        )
    return F.interpolate(inputs, size=(image_size, image_size), mode="bilinear", antialias=True, align_corners=False)


def normalization_doubt(inputs: Any, data: Normalization | None, whose: str = "data.mean and data.std") -> str | None:
    """What speaks against the normalisation that the data say they have, from a batch of inputs; None if nothing does.

    Args:
        inputs: as the loader makes them.
        data: what the loader applied to pixels in [0, 1]; None: nothing.
        whose: what to call it, in the plural.
    """
    if not isinstance(inputs, Tensor) or inputs.dim() < 3 or not inputs.is_floating_point():
        return None
    mean, std = _mean_std(data or {"mean": [0.0], "std": [1.0]}, "data normalization")
    untouched = bool((mean == 0).all() and (std == 1).all())
    low, high = float(inputs.min()), float(inputs.max())
    measured = f"mean {float(inputs.mean()):.2f}, std {float(inputs.std()):.2f}, from {low:.2f} to {high:.2f}"
    if untouched:
        return None if low >= -0.01 and high <= 1.01 else f"are no pixels in [0, 1] ({measured})"
    pixels = inputs * per_channel(std.float(), inputs) + per_channel(mean.float(), inputs)
    outside = float(((pixels < -0.05) | (pixels > 1.05)).float().mean())
    if outside > 0.02:
        return f"are not what {whose} make of pixels in [0, 1] ({measured})"
    if low >= 0 and float(pixels.min()) > float(mean.min()) - 1e-3 and high <= 1:
        return f"look as if nobody had normalised them ({measured})"
    return None
