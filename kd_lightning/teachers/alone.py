"""The method of whatever learns from labels alone: a teacher in training, a student without a teacher."""

from __future__ import annotations

from typing import Any

ALONE_METHOD: dict[str, Any] = {
    "_target_": "kd_lightning.method.Method",
    "temperature": None,
    "weights": {"task": 1.0},
    "terms": {},
    "taps": {"student": {}, "teacher": {}},
}
