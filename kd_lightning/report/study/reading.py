"""Runs as they lie on disk: one ``Run`` from ``result.json``, ``metrics.jsonl`` and ``.hydra``, finished or not.

Everything that a report shows is read here, and from files only, so that a report can be made while runs are written,
on another machine, or years later. A run that is half-written, running, failed or from a killed process is a ``Run``
too; only what it lacks is missing from it.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kd_lightning.config.replicates import digest, seeds_of, setting_of_result
from kd_lightning.metrics.declared import Declared
from kd_lightning.runs.directory import NOTES

ALIVE_SECONDS = 600.0
"""A run without result whose files have not changed for longer than this counts as stopped, not as running."""

_RUN_MARKS = ("result.json", "metrics.jsonl", ".hydra")
_WATCHED = ("result.json", NOTES, "metrics.jsonl", os.path.join(".hydra", "overrides.yaml"), "kd-train.log")


@dataclass(eq=False)
class Run:
    """One training as found on disk. Figures keep the unit they were written in (accuracies: fractions 0..1)."""

    path: Path
    name: str
    status: (
        str  # finished | pruned | failed | diverged | interrupted | running | stopped | missing | unreadable | outdated
    )
    role: str = "distilled"
    seed: Any = None
    overrides: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)  # flat: dotted key -> plain value
    choices: dict[str, str] = field(default_factory=dict)  # config group -> the option that was composed
    task: str = ""
    metric: str | None = None
    mode: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    teacher: dict[str, Any] = field(default_factory=dict)
    baseline: dict[str, Any] = field(default_factory=dict)
    student: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    host: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    validated: int | None = None  # samples of validation
    fingerprint: str | None = None
    setting: str = ""  # equal for runs that differ in seeds only; empty where the configuration is not known
    replicate: tuple[tuple[str, str], ...] = ()  # the seeds, which tell such runs apart
    error: str | None = None
    warnings: list[str] = field(default_factory=list)  # of its training, said by the doctor
    finished: str = ""
    declared: Declared = field(default_factory=lambda: Declared((), ""))
    curves: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)  # tag -> (steps, values)
    notes: str = ""  # what somebody wrote into notes.txt of its directory; its words with "#" are tags
    changed: float = 0.0  # newest modification of its files, seconds since the epoch

    @property
    def is_finished(self) -> bool:
        return self.status == "finished"

    @property
    def has_ended(self) -> bool:
        """Whether nothing is left to do: it finished, or a search stopped it early."""
        return self.status in ("finished", "pruned")

    @property
    def override_values(self) -> dict[str, Any]:
        """The overrides as key -> parsed value, without Hydra's ``+``, ``++`` and ``~`` marks."""
        pairs = (override.partition("=") for override in self.overrides if "=" in override)
        return {key.lstrip("+~"): parse_value(text) for key, _, text in pairs}


class RunReader:
    """Reads runs and keeps what has not changed since, so that a live page only reads the runs that moved."""

    def __init__(self) -> None:
        self._cache: dict[Path, tuple[tuple, Run]] = {}

    def read(self, path: Path) -> Run:
        """Read the run directory ``path``; never raises for what a run lacks."""
        stamp = file_stamp(path)
        known = self._cache.get(path)
        run = known[1] if known and known[0] == stamp else _read(path)
        run.changed = max((entry[1] / 1e9 for entry in stamp), default=0.0)
        if run.status in ("running", "stopped"):
            run.status = "running" if time.time() - run.changed < ALIVE_SECONDS else "stopped"
        self._cache[path] = (stamp, run)
        return run


def is_run(path: Path) -> bool:
    return any((path / mark).exists() for mark in _RUN_MARKS) and not (path / "sweep.json").exists()


def run_folders(path: Path, depth: int = 3) -> list[Path]:
    """Run directories at or below ``path``, sorted by name. Nothing below a run is looked at."""
    if is_run(path):
        return [path]
    if depth == 0 or not path.is_dir():
        return []
    children = sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))
    return [run for child in children for run in run_folders(child, depth - 1)]


def file_stamp(path: Path) -> tuple:
    """(name, mtime in ns, size) of the files that a report reads: equal stamps mean nothing has changed."""
    stamp = []
    for name in _WATCHED:
        try:
            status = os.stat(os.path.join(path, name))
        except OSError:
            continue
        stamp.append((name, status.st_mtime_ns, status.st_size))
    return tuple(stamp)


def parse_value(text: str) -> Any:
    """The value of a Hydra override for comparing and sorting: int, float, bool, None or text."""
    text = text.strip()
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    words = {"true": True, "false": False, "null": None, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings to dotted keys; lists stay whole, as text, since they are compared and never looked into."""
    if isinstance(config, dict):
        flat: dict[str, Any] = {}
        for key, value in config.items():
            flat.update(flatten(value, f"{prefix}.{key}" if prefix else str(key)))
        return flat
    if isinstance(config, list):
        return {prefix: json.dumps(config, default=str)}
    return {prefix: config} if prefix else {}


def read_json(path: Path) -> tuple[dict[str, Any], str | None]:
    """The JSON object in ``path`` ({} if there is none) and, if it can't be read, why in one line."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}, None
    except (OSError, ValueError) as error:
        return {}, f"{path.name} can't be read: {' '.join(str(error).split())}"
    return (value, None) if isinstance(value, dict) else ({}, f"{path.name} doesn't hold a JSON object")


def read_notes(folder: Path) -> str:
    """What ``notes.txt`` of a run or sweep says, without the line breaks; "" if there is none."""
    try:
        return " ".join((folder / NOTES).read_text(encoding="utf-8", errors="replace").split())[:2000]
    except OSError:
        return ""


def read_curves(path: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Each tag's steps and values from ``metrics.jsonl``; a half-written line and non-finite values are left out."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for row in _json_lines(text.splitlines()):
        step = row.get("step")
        if not isinstance(step, (int, float)):
            continue
        for tag, value in row.items():
            if tag in ("step", "epoch") or isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            if math.isfinite(value):
                steps, values = curves.setdefault(tag, ([], []))
                if steps and step <= steps[-1]:  # a continued run repeats the steps since its last checkpoint
                    _drop_from(steps, values, step)
                steps.append(step)
                values.append(value)
    return curves


def _drop_from(steps: list[float], values: list[float], step: float) -> None:
    while steps and steps[-1] >= step:
        steps.pop()
        values.pop()


def _json_lines(lines: list[str]) -> Iterable[dict[str, Any]]:
    lines = [line for line in lines if line.strip()]
    try:  # one call is several times faster than one a line, and nearly always enough
        rows = json.loads(f"[{','.join(lines)}]")
    except ValueError:
        rows = []
        for line in lines:
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue
    return [row for row in rows if isinstance(row, dict)]


def _read_yaml(path: Path) -> Any:
    import yaml

    try:
        return yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, yaml.YAMLError):
        return None


def _read_choices(path: Path) -> dict[str, str]:
    """``hydra.runtime.choices`` of ``.hydra/hydra.yaml``, by its indentation, 100 x faster than parsing it."""
    try:
        block = path.read_text(encoding="utf-8", errors="replace").partition("    choices:\n")[2]
    except OSError:
        return {}
    lines = itertools.takewhile(lambda line: line.startswith("      "), block.splitlines())
    pairs = (line.strip().partition(": ") for line in lines)
    return {key: value for key, _, value in pairs if value not in ("", "null")}


def _numbers(values: Any) -> dict[str, float]:
    values = values if isinstance(values, dict) else {}
    return {k: v for k, v in values.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _read(path: Path) -> Run:
    result, problem = read_json(path / "result.json")
    run = Run(path=path, name=str(result.get("name") or path.name), status=str(result.get("status") or "running"))
    if problem:
        run.status = "unreadable"
    run.error = problem or result.get("error")
    warnings = result.get("warnings")
    run.warnings = [str(text) for text in warnings] if isinstance(warnings, list) else []
    run.role = result.get("role") or ("alone" if path.name.startswith("student_alone") else "distilled")
    overrides = result.get("overrides")
    if not isinstance(overrides, list):
        overrides = _read_yaml(path / ".hydra" / "overrides.yaml")
    run.overrides = [str(override) for override in overrides] if isinstance(overrides, list) else []
    config = result.get("config") or _read_yaml(path / ".hydra" / "config.yaml")
    flat = flatten(config if isinstance(config, dict) else {})
    run.config = {key: value for key, value in flat.items() if not (isinstance(value, str) and "${" in value)}
    run.choices = _read_choices(path / ".hydra" / "hydra.yaml")
    run.seed = result.get("seed", run.override_values.get("seed", run.config.get("seed")))
    monitor = _mapping(result.get("monitor"))
    run.task = str(result.get("task") or "")
    run.metric, run.mode = monitor.get("metric"), monitor.get("mode")
    run.declared = Declared.of_result({**result, "monitor": monitor})
    run.metrics = _numbers(result.get("metrics"))
    run.teacher, run.baseline = _mapping(result.get("teacher")), _mapping(result.get("baseline"))
    run.student, run.cost = _mapping(result.get("student")), _mapping(result.get("cost"))
    run.host, run.versions = _mapping(result.get("host")), _mapping(result.get("versions"))
    run.validated = _mapping(_mapping(result.get("data")).get("samples")).get("val")
    run.fingerprint = result.get("fingerprint")
    if result.get("source"):  # of which the configuration says nothing
        run.config["source"] = digest(result["source"])[:6]
    if isinstance(config, dict):
        run.setting = setting_of_result({"config": config, **result})
        run.replicate = seeds_of(config)
    run.finished = str(result.get("finished") or "")
    run.notes = read_notes(path)
    run.curves = read_curves(path / "metrics.jsonl")
    return run
