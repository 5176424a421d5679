"""A teacher's node in a configuration: the keys that every kind has, and teachers within teachers.

Which of the keys decide a result, the table of keys says (:mod:`kd_lightning.config.keys`). Nothing here imports torch: it is asked before anything is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kd_lightning.config.keys import KEYS

BESIDE = tuple(
    key.removeprefix("teacher.") for key, entry in KEYS.items() if key.startswith("teacher.") and entry.beside
)
"""Keys that every teacher has, whatever its kind: they are no arguments of its class."""

DEFAULT_KIND = "kd_lightning.teachers.trained.TrainedTeacher"
"""What a teacher's node without a ``_target_`` means: one with the keys of ``conf/teacher/none.yaml``."""


def arguments_of(node: Mapping[str, Any]) -> dict[str, Any]:
    """A teacher's node without the keys that are no arguments of its kind."""
    return {"_target_": DEFAULT_KIND, **{key: value for key, value in node.items() if key not in BESIDE}}
