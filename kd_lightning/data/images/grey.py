"""Grey pictures of more than 8 bits as bytes. The file does not say which value is white, so the values have to."""

from __future__ import annotations

import logging
import math

import numpy as np

_WHITES = (255, 4095, 65535)  # of 8, 12 and 16 bits
_log = logging.getLogger(__name__)
_told: set[int] = set()


class GreyError(ValueError):
    """The values are no grey picture; the text goes on from the file's name."""


def grey_bytes(values: np.ndarray, name: str, white: int | None = None) -> np.ndarray:
    """Grey values of any depth, shape (H, W), as RGB bytes (H, W, 3).

    Args:
        values: integers or floats, >= 0.
        name: of the file, for the line that says what was taken as white.
        white: the value that becomes 255, >= 1. None: 255, 4095 or 65535, the first that the largest value does not
            exceed (1.0 for floats up to 1.0), told once for each.

    Raises:
        GreyError: negative values, values that are not finite, or above 65535 without ``white``.
    """
    least, most = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if not (math.isfinite(least) and math.isfinite(most)):
        raise GreyError("has values that are not finite numbers")
    if least < 0:
        raise GreyError(f"has negative values ({least:g} to {most:g}), and black is 0: convert it")
    if white is None:
        white = 1 if values.dtype.kind == "f" and most <= 1 else next((one for one in _WHITES if most <= one), None)
        if white is None:
            raise GreyError(f"has values up to {most:g}: set data.grey_white to the one that is white")
        if white < _WHITES[-1] and white not in _told:
            _told.add(white)
            _log.info(
                "grey pictures of more than 8 bits with values up to %d are taken to be white at %d (first: %s); "
                "data.grey_white says otherwise",
                white, white, name,
            )  # fmt: skip
    wide = values.astype(np.float64)
    # above 8 bits a byte stands for equally many values, as it does for whoever shifts bits away
    scaled = np.floor(wide * (256 / (white + 1))) if white > 255 else np.rint(wide * (255 / white))
    return np.repeat(np.minimum(scaled, 255).astype(np.uint8)[..., None], 3, axis=2)
