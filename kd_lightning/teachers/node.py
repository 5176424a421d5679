"""A teacher's node in a configuration: the keys that every kind has, and teachers within teachers.

Which of the keys decide a result, the table of keys says (:mod:`kd_lightning.config.keys`), for the outermost teacher
and by :func:`outer_key` for those within it. Nothing here imports torch: it is asked before anything is made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

BESIDE = ("name", "cache", "cache_precision", "cache_top_k", "cache_limit_gb")
"""Keys that every teacher has, whatever its kind: they are no arguments of its class."""

DEFAULT_KIND = "kd_lightning.teachers.trained.TrainedTeacher"
"""What a teacher's node without a ``_target_`` means: one with the keys of ``conf/teacher/none.yaml``."""

_INNER = re.compile(r"^teacher(\.train\.teacher|\.members\.[^.]+)+(?=\.|$)")


def outer_key(key: str) -> str:
    """The key that means the same of the outermost teacher: ``teacher.members.a.train.seed`` is ``teacher.train.seed``."""
    return _INNER.sub("teacher", key)


def arguments_of(node: Mapping[str, Any]) -> dict[str, Any]:
    """A teacher's node without the keys that are no arguments of its kind."""
    return {"_target_": DEFAULT_KIND, **{key: value for key, value in node.items() if key not in BESIDE}}
