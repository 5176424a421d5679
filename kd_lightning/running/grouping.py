"""Which runs can train in lockstep."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from kd_lightning.running.shared import teacher_layers
from kd_lightning.runs.spec import RunSpec

log = logging.getLogger(__name__)


def grouped(specs: Sequence[RunSpec], fuse: bool) -> list[list[RunSpec]]:
    """The specs in groups that can train in lockstep; each by itself if ``fuse`` is false."""
    if not fuse:
        return [[spec] for spec in specs]
    groups: dict[Any, list[RunSpec]] = {}
    for number, spec in enumerate(specs):
        reason = why_alone(spec)
        if reason and len(specs) > 1:
            log.info("%s runs alone: %s", spec.name, reason)
        # Stored outputs are rounded and hold no features, so whether a group reads them must not depend on its company.
        key = number if reason else (spec.group_key, bool(teacher_layers([spec])))
        groups.setdefault(key, []).append(spec)
    return list(groups.values())


def why_alone(spec: RunSpec) -> str | None:
    """Why a run cannot share a group, or None."""
    return "it has Lightning callbacks of its own (callbacks)" if spec.config.get("callbacks") else None
