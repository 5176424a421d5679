"""Means and standard deviations are of pixels in [0, 1]."""

from __future__ import annotations

import pytest

from kd_lightning.data.images.normalization import require_normalization
from kd_lightning.errors import UserError


def test_those_of_bytes_are_refused():
    with pytest.raises(UserError, match=r"data.mean=\[127, 127, 127\]: is of pixels in \[0, 1\]: divide by 255"):
        require_normalization([127, 127, 127], [60, 60, 60])
    with pytest.raises(UserError, match=r"data.std=\[60, 60, 60\]"):
        require_normalization([0, 0, 0], [60, 60, 60])


def test_usual_ones_and_none_are_taken():
    require_normalization([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    require_normalization([0, 0, 0], [1, 1, 1])
