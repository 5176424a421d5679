"""Groups of runs are divided into jobs: few enough runs for one device, and nothing made twice that they share."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from kd_lightning.config.processes import devices_of, nodes_of
from kd_lightning.errors import UserError
from kd_lightning.running.shared import teacher_layers
from kd_lightning.runs.spec import RunSpec
from kd_lightning.teachers.suits import reads_logits

AT_MOST = 16
"""Runs of a job where the configuration leaves it open: what they share costs each less than a sixteenth of it then."""


class Lot(NamedTuple):
    """Jobs that share data and teacher.

    Attributes:
        processes: (nodes, devices of each) that train one run of it together.
        shared: some of their runs that together ask for all that can be made before: what a preparing job is given.
        jobs: runs of each job.
    """

    processes: tuple[int, int]
    shared: list[RunSpec]
    jobs: list[list[RunSpec]]


def divided(groups: Sequence[Sequence[RunSpec]], runs_per_job: int | None) -> list[Lot]:
    """The groups as jobs.

    Args:
        groups: of runs that can train in lockstep.
        runs_per_job: most runs of a job; None: :data:`AT_MOST`. Jobs of a group are of equal size, as far as possible.

    Raises:
        UserError: ``runs_per_job`` is no number of runs.
    """
    if runs_per_job is not None and runs_per_job < 1:
        raise UserError(f"launcher.runs_per_job must be >= 1, or null, got {runs_per_job}")
    lots: dict[str, Lot] = {}
    for group in groups:
        config = group[0].config
        processes = nodes_of(config["trainer"]), devices_of(config["trainer"].get("devices"))
        shared = [config["teacher"], config["data"], config["task"], processes]
        lot = lots.setdefault(json.dumps(shared, sort_keys=True, default=str), Lot(processes, [], []))
        lot.shared.extend(_representatives(group))
        lot.jobs.extend(_chunks(group, runs_per_job or AT_MOST))
    return list(lots.values())


def _representatives(specs: Sequence[RunSpec]) -> list[RunSpec]:
    """One run of each kind of demand on the teacher; the student alone only where there is nobody else."""
    kinds: dict[Any, RunSpec] = {}
    for spec in specs:
        layers = tuple(sorted(teacher_layers([spec])))
        kinds.setdefault((spec.role, layers, reads_logits([spec.config["method"]])), spec)
    return list(kinds.values())


def _chunks(specs: Sequence[RunSpec], most: int) -> list[list[RunSpec]]:
    """Parts of nearly equal size; a student alone is beside the runs that are compared with it, where there is room."""
    family: dict[Any, int] = {}
    for spec in specs:
        family.setdefault((spec.baseline or spec).run_dir, len(family))
    ordered = sorted(specs, key=lambda spec: family[(spec.baseline or spec).run_dir])
    count = math.ceil(len(ordered) / most)
    ends = [len(ordered) * (part + 1) // count for part in range(count)]
    return [ordered[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
