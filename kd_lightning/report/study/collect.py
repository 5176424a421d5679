"""Sweep directories as studies, read from disk only: runs grouped by task and data, then by configuration.

```
directories ─► runs ─► studies (one per task, metric and data set) ─► cells (one per configuration) ─► figures, page
```
A cell holds the runs that differ in nothing but their seeds. The student alone is found per seed among the runs of role
"alone"; only where a sweep has none, the single reference that a run names in its ``result.json`` takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kd_lightning.errors import UserError
from kd_lightning.metrics.declared import Declared
from kd_lightning.report.study.factors import MISSING, Factor, find_factors, format_value, value_of
from kd_lightning.report.study.reading import Run, RunReader, is_run, read_json, run_folders
from kd_lightning.report.study.study import Cell, Objective, Study


def collect(directories: Sequence[Path | str] | Path | str, reader: RunReader | None = None) -> list[Study]:
    """Read sweep directories (or run directories, or folders of either) into studies, the largest first.

    Raises:
        UserError: if a directory doesn't exist or none of them holds a run.
    """
    if isinstance(directories, (str, Path)):
        directories = [directories]
    reader = reader or RunReader()
    folders = [Path(directory) for directory in directories]
    runs: list[Run] = []
    declared: list[str] = []
    commands: list[str] = []
    objectives: list[Objective] = []
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"no directory {folder}: give the directory of a sweep or of a run")
        found = [reader.read(path) for path in run_folders(folder)]
        for plan in _plans(folder, found):
            found = _with_expected(found, plan)
            declared += [str(key) for key in plan.get("swept") or []]
            commands += [str(plan["command"])] if plan.get("command") else []
            objectives = objectives or _objectives(plan)
        runs += found
    if not runs:
        where = ", ".join(str(folder) for folder in folders)
        raise UserError(f"no run in {where}: expected result.json or metrics.jsonl in it or up to three levels below")
    runs += _named_references(runs, reader)
    teachers = [run for run in runs if run.role == "teacher"]
    groups = _group([run for run in runs if run.role != "teacher"] or teachers)
    studies = [_study(key, group, declared, commands, folders, teachers) for key, group in groups.items()]
    for study in studies:
        study.objectives = tuple(objectives)
    return sorted(studies, key=lambda study: -len(study.runs))


def _named_references(runs: Sequence[Run], reader: RunReader) -> list[Run]:
    """Students alone that results name and that lie elsewhere, as for a single run."""
    known = {run.path.resolve() for run in runs}
    found: dict[Path, Run] = {}
    for run in runs:
        path = Path(str(run.baseline.get("run_dir") or ""))
        place = path.resolve()
        if path.name and place not in known and place not in found and is_run(path):
            reference = reader.read(path)
            found[place] = replace(reference, role="alone")
    return list(found.values())


def _plans(folder: Path, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The ``sweep.json`` of the folder and of the folders that hold its runs (not for a single run's report)."""
    if is_run(folder):
        return []
    places = dict.fromkeys([folder, *(run.path.parent for run in runs)])
    plans = [{**read_json(place / "sweep.json")[0], "folder": place} for place in places]
    return [plan for plan in plans if len(plan) > 1]


def _objectives(plan: Mapping[str, Any]) -> list[Objective]:
    entries = [entry for entry in plan.get("objectives") or [] if isinstance(entry, dict) and entry.get("path")]
    return [Objective(str(entry["path"]), bool(entry.get("maximize"))) for entry in entries]


def _with_expected(runs: list[Run], plan: dict[str, Any]) -> list[Run]:
    """Add what the sweep expects and nobody has started; mark results that an earlier configuration left behind."""
    by_name = {run.path.name: i for i, run in enumerate(runs) if run.path.parent == plan["folder"]}
    runs = list(runs)
    expected = [entry for entry in plan.get("runs") or [] if isinstance(entry, dict) and entry.get("name")]
    missing = []
    for entry in expected:
        place = by_name.get(entry["name"])
        known = {"setting": str(entry.get("setting") or ""), "replicate": _seeds(entry.get("seeds"))}
        if place is None:
            path = plan["folder"] / str(entry["name"])
            run = Run(path=path, name=path.name, status="missing", role=entry.get("role") or "distilled")
            run.overrides = [str(override) for override in entry.get("overrides") or []]
            run.seed = run.override_values.get("seed")
            run.fingerprint = entry.get("fingerprint")
            missing.append(replace(run, **known))
        elif runs[place].is_finished and entry.get("fingerprint") not in (None, runs[place].fingerprint):
            reason = "its result.json is of another configuration than sweep.json asks for; start the sweep again"
            runs[place] = replace(runs[place], status="outdated", error=reason)
        elif not runs[place].fingerprint and known["setting"]:  # it has no result yet: numbers as they were written
            runs[place] = replace(runs[place], **known)
    return runs + missing


def _seeds(seeds: Any) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((str(k), str(v)) for k, v in seeds.items())) if isinstance(seeds, dict) else ()


def _group(runs: Sequence[Run]) -> dict[tuple, list[Run]]:
    """Runs by (task, metric, mode, data); those too early to know join the one with the same data, or the first."""
    groups: dict[tuple, list[Run]] = {}
    undecided = []
    for run in runs:
        if run.metric:
            groups.setdefault((run.task, run.metric, run.mode or "max", _data_name(run)), []).append(run)
        else:
            undecided.append(run)
    for run in undecided:
        fits = [key for key in groups if key[3] == _data_name(run)] or list(groups)
        groups.setdefault(fits[0] if fits else ("", "", "max", _data_name(run)), []).append(run)
    return groups


def _declared(metric: str, mode: str, runs: Sequence[Run]) -> Declared:
    """What the newest result says of the task's metrics; before there is one, the first that validation wrote."""
    told = [run for run in runs if run.declared.monitor == metric and metric]
    if told:
        return max(told, key=lambda run: (len(run.declared.metrics), run.finished)).declared
    validated = (tag.removeprefix("val/") for run in runs for tag in run.curves if tag.startswith("val/"))
    return Declared((), metric or next(validated, ""), mode)


def _data_name(run: Run) -> str:
    """What tells data sets apart: the classes that make them, and a directory of images by its path."""
    config = {key: str(value) for key, value in run.config.items() if key.startswith("data.")}
    parts = [config[key] for key in sorted(config) if key.endswith("_target_") and ".augment" not in key]
    parts += [config["data.root"]] if "data.root" in config and "data.train_dir" in config else []
    return " ".join(parts)


def _data_label(runs: Sequence[Run]) -> str:
    """The data set as the user calls it: the option of the config group, or else its class."""
    for run in runs:
        named = run.override_values.get("data") or run.choices.get("data") or run.config.get("data.name")
        if named:
            return str(named)
    return next((key.rsplit(".", 1)[-1] for run in runs if (key := _data_name(run))), "")


def _study(key: tuple, runs: list[Run], declared: list[str], commands: list[str], folders, teachers) -> Study:
    task, metric, mode, _ = key
    distilled = [run for run in runs if run.role == "distilled"] or runs
    references = [run for run in runs if run.role == "alone" and run not in distilled]
    factors = find_factors(distilled, declared)
    cells, duplicates = _cells(distilled, factors, "c")
    alone_factors = [f for f in find_factors(references, declared) if f.key.split(".")[0] != "method"]
    alone, _ = _cells(references, alone_factors, "a")
    for cell in cells:
        if cell.runs:
            found = _references(next(iter(cell.runs.values())), alone, alone_factors)
            cell.references = _paired(cell.runs, found)
    title = " + ".join(dict.fromkeys(folder.resolve().name for folder in folders))
    return Study(
        title=title,
        data=_data_label(runs),
        task=task,
        declared=_declared(metric, mode, runs),
        factors=factors,
        cells=[cell for cell in cells if cell.runs],
        alone=[cell for cell in alone if cell.runs],
        started=[cell for cell in cells if cell.running and not cell.runs],
        runs=runs,
        teacher_runs=teachers,
        commands=list(dict.fromkeys(commands)),
        folders=list(folders),
        duplicates=duplicates,
    )


def _cells(runs: Sequence[Run], factors: Sequence[Factor], prefix: str) -> tuple[list[Cell], int]:
    """Runs by configuration: :func:`kd_lightning.config.replicates.setting_of` says which are repetitions of one.

    A run of which only its overrides are known belongs to the configuration with the same values of the swept keys.
    """

    def params_of(run: Run) -> tuple:
        return tuple(value_of(run, factor.key) for factor in factors)

    settings = {params_of(run): run.setting for run in runs if run.setting}
    groups: dict[Any, list[Run]] = {}
    for run in sorted(runs, key=lambda run: not run.config):
        params = params_of(run)
        groups.setdefault(run.setting or settings.get(params) or params, []).append(run)
    order = {f.key: {value: i for i, value in enumerate(f.values)} for f in factors}
    parameters = {key: params_of(members[0]) for key, members in groups.items()}

    def rank(key: Any) -> list[int]:
        return [order[f.key].get(v, -1) for f, v in zip(factors, parameters[key], strict=True)]

    cells, duplicates = [], 0
    for number, key in enumerate(sorted(groups, key=rank)):
        params, members = parameters[key], groups[key]
        finished = sorted((run for run in members if run.is_finished), key=lambda run: run.finished)
        newest = {_replicate(run): run for run in finished}
        duplicates += len(finished) - len(newest)
        pairs = [(f, v) for f, v in zip(factors, params, strict=True) if v != MISSING]
        label = " ".join(f"{f.short}={format_value(v)}" if f.is_numeric else format_value(v) for f, v in pairs)
        running = [run for run in members if run.status == "running"]
        expected = len({_replicate(run) for run in members})
        cells.append(Cell(f"{prefix}{number}", params, label, newest, expected, running))
    return cells, duplicates


def _replicate(run: Run) -> tuple:
    return run.replicate or (("seed", str(run.seed)),)


def _references(run: Run, alone: Sequence[Cell], factors: Sequence[Factor]) -> dict[tuple, Run]:
    """The student alone that agrees with ``run`` in every key in which the students alone differ (data, size, …)."""
    for cell in alone:
        if all(value_of(run, f.key) == value for f, value in zip(factors, cell.params, strict=True)):
            return cell.runs
    return {}


def _paired(runs: Mapping[tuple, Run], references: Mapping[tuple, Run]) -> dict[tuple, Run]:
    """The students alone by the replicate that each is compared with: the teacher's seed is none of theirs."""
    by_own = {_of_student(replicate): run for replicate, run in references.items()}
    paired = {replicate: by_own[_of_student(replicate)] for replicate in runs if _of_student(replicate) in by_own}
    used = {id(run) for run in paired.values()}
    return paired | {replicate: run for replicate, run in references.items() if id(run) not in used}


def _of_student(replicate: tuple) -> tuple:
    return tuple((key, value) for key, value in replicate if not key.startswith("teacher."))
