"""The students alone that distilled runs are compared with: wanted once, told to each run that refers to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from kd_lightning.metrics.declared import Declared
from kd_lightning.running.present_state import finished_result
from kd_lightning.runs.result_file import Result, remove_unfinished_writes, write_where_possible
from kd_lightning.runs.spec import ALONE, RunSpec


def with_baselines(specs: Sequence[RunSpec]) -> list[RunSpec]:
    """The specs and, before them, each student alone that they want to be compared with, once."""
    wanted = {spec.fingerprint: spec for spec in specs if spec.role == ALONE}  # method=none as a job of its own
    alone: dict[str, RunSpec] = {}
    out = []
    for spec in specs:
        if spec.baseline is not None:
            same = wanted.get(spec.baseline.fingerprint) or alone.setdefault(spec.baseline.fingerprint, spec.baseline)
            spec = replace(spec, baseline=same)
        out.append(spec)
    return [*alone.values(), *out]


def link_baselines(specs: Sequence[RunSpec], results: Mapping[Path, Result]) -> None:
    """Tell each distilled run's result about the student alone with the same seed, if there is one."""
    for spec in specs:
        result = results.get(spec.run_dir)
        if result is None or result["status"] != "finished":
            continue
        remove_unfinished_writes(spec.result_path)
        alone = finished_result(spec.baseline) if spec.baseline is not None else None
        if spec.baseline is None or alone is None:
            continue
        metric = alone["monitor"]["metric"]
        fidelity = Declared.of_result(alone).fidelity(name for name in alone["metrics"] if name.startswith("test/"))
        entry = {k: alone["metrics"].get(k) for k in (f"test/{metric}", *fidelity, f"best/val_{metric}")}
        entry |= {"run_dir": str(spec.baseline.run_dir), "student": alone["student"]}
        if result.get("baseline") != entry:
            result["baseline"] = entry
            write_where_possible(spec.result_path, result)
