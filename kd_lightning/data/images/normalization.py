"""By what pixels are normalised, as a user gives it."""

from __future__ import annotations

from collections.abc import Sequence

from kd_lightning.errors import UserError


def require_normalization(mean: Sequence[float], std: Sequence[float]) -> None:
    """Raise a UserError where ``data.mean`` and ``data.std`` cannot be those of three channels of pixels in [0, 1]."""
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise UserError(f"data.mean and data.std need three values, std > 0; got {list(mean)} and {list(std)}")
    for key, values in (("mean", mean), ("std", std)):
        if max(values) > 1:
            raise UserError(f"data.{key}={list(values)}: is of pixels in [0, 1]: divide by 255")
