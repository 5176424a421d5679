"""How each run of a sweep stands, from its files and the scheduler's queue alone: any process may ask, at any time.

Light, as it has to answer for ten thousand runs on a login node: no torch, and of each run only the files that are needed.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from kd_lightning.errors import UserError
from kd_lightning.running.executors.slurm_commands import Task, queue
from kd_lightning.runs.directory import LOG_FILE
from kd_lightning.runs.result_file import ENDS
from kd_lightning.runs.submission import Submission, read_submissions
from kd_lightning.sweeps.sweep_file import read_sweep_file

FINISHED, PRUNED, RUNNING, PENDING = "finished", "pruned", "running", "pending"
FAILED, STOPPED = "failed", "stopped"
"""A pruned run was ended by its search. A stopped run is none of the others: nobody computes it, and it goes on when the sweep is started again."""

ALIVE_SECONDS = 600.0
"""A run that no scheduler knows counts as running while its files have changed within that time."""

_BEGUN = re.compile(r"^\[([\d-]+ [\d:]+),\d+\]\S* data: ", re.MULTILINE)
_CONTINUED = re.compile(r" (\S+) continues after step \d+, in epoch (\d+)")
_EPOCHS = re.compile(r"^trainer:\n(?:  .*\n)*?  max_epochs: (\d+)", re.MULTILINE)


@dataclass
class Standing:
    """How a run stands.

    Attributes:
        name: of the run.
        state: :data:`FINISHED`, :data:`PRUNED`, :data:`RUNNING`, :data:`PENDING`, :data:`FAILED` or :data:`STOPPED`.
        epoch: epochs that are done.
        epochs: that it trains, where that is known.
        best: its best value of the monitored validation metric so far.
        seconds_left: of its training, estimated; None: nothing is known yet.
        note: why it failed, what it waits for, where it runs: one line.
        seconds: that its training took, if it is finished.
    """

    name: str
    state: str
    epoch: int = 0
    epochs: int | None = None
    best: float | None = None
    seconds_left: float | None = None
    note: str = ""
    seconds: float | None = None


@dataclass
class Sweep:
    """How a sweep stands.

    Attributes:
        directory: of the sweep.
        runs: all that it expects, in its order.
        metric: the monitored metric's name, where a result says it.
        jobs: tasks of its training jobs that run and that wait.
        queue_known: whether the scheduler answered, if runs were given to one.
        seconds_left: of all, estimated; None: nothing is known yet.
    """

    directory: Path
    runs: list[Standing]
    metric: str
    jobs: tuple[int, int]
    queue_known: bool
    seconds_left: float | None

    def counts(self) -> dict[str, int]:
        """Runs by state, those states that occur."""
        states = [run.state for run in self.runs]
        return {s: states.count(s) for s in (FINISHED, PRUNED, RUNNING, PENDING, FAILED, STOPPED) if s in states}


@dataclass
class _Place:
    """Where a run was sent last."""

    submission: Submission
    group: int
    task: str | None
    entry: Task | None

    @property
    def log(self) -> Path:
        return self.submission.log_of(self.group)


def standing_of(directory: Path) -> Sweep:
    """How a sweep stands now.

    Raises:
        UserError: there is no sweep.
    """
    expected = {run["name"]: run for run in read_sweep_file(directory)["runs"]}
    submissions = read_submissions(directory)
    names = dict.fromkeys([*expected, *(run for sub in submissions for runs in sub.groups for run in runs)])
    if not names:
        raise UserError(f"{directory}: there is no sweep, and nothing was submitted from there")
    on_slurm = any(submission.jobs for submission in submissions)
    tasks = queue() if on_slurm else {}
    places = _places(submissions, tasks or {})
    metric, mode = "", "max"
    rows = []
    for name in names:
        result = _result(directory / name, (expected.get(name) or {}).get("fingerprint"))
        if result.get("monitor", {}).get("metric"):
            metric, mode = result["monitor"]["metric"], result["monitor"].get("mode", "max")
        rows.append(_standing(directory / name, name, result, places.get(name), tasks))
    for row in rows:
        if row.state == RUNNING:
            _look_at_training(row, directory / row.name, metric, mode)
    active = {place.task: place.entry for place in places.values() if place.entry and not place.entry.is_over}
    running = sum(entry.state == "RUNNING" for entry in active.values() if entry)
    left = _left(rows, places, running)
    return Sweep(directory, rows, metric, (running, len(active) - running), tasks is not None, left)


def _places(submissions: list[Submission], tasks: Mapping[str, Task]) -> dict[str, _Place]:
    places = {}
    for submission in submissions:
        names = submission.task_of_group()
        for group, runs in enumerate(submission.groups):
            task = names.get(group)
            place = _Place(submission, group, task, tasks.get(task) if task else None)
            places.update(dict.fromkeys(runs, place))
    return places


def _result(run_dir: Path, fingerprint: str | None) -> dict[str, Any]:
    try:
        result = json.loads((run_dir / "result.json").read_bytes())
    except (OSError, ValueError):
        return {}
    mine = isinstance(result, dict) and (fingerprint is None or result.get("fingerprint") == fingerprint)
    return result if mine else {}


def _standing(
    run_dir: Path, name: str, result: dict[str, Any], place: _Place | None, tasks: Mapping[str, Task] | None
) -> Standing:
    row = Standing(name, STOPPED)
    cost, metrics = result.get("cost") or {}, result.get("metrics") or {}
    row.best = metrics.get("best/val_" + (result.get("monitor") or {}).get("metric", ""))
    row.epoch = int(cost.get("epochs") or 0)
    status = result.get("status")
    if status in ENDS:
        row.state, row.epochs, row.seconds = str(status), row.epoch, cost.get("seconds")
        row.note = "stopped early" if status == PRUNED else ""
        return row
    entry = place.entry if place is not None else None
    if entry is not None and not entry.is_over and place is not None:
        since = _changed(place.submission.folder / "submission.json")
        begun = _changed(run_dir / LOG_FILE) >= since
        if status in ("failed", "diverged") and _changed(run_dir / "result.json") >= since:
            row.state, row.note = FAILED, _line(result.get("error"))
        elif entry.state == "PENDING":
            row.state, row.note = PENDING, f"job {place.task}: {entry.reason}"
        else:
            row.state, row.note = (
                RUNNING if begun else PENDING,
                f"job {place.task} on {entry.node}, limit in {entry.left}",
            )
        return row
    if status in ("failed", "diverged"):
        row.state, row.note = FAILED, _line(result.get("error"))
    elif tasks is None:
        row.note = "squeue does not answer"
    elif place is not None and place.task is not None:
        row.state, row.note = _of_ended_job(place, status, tasks)
    elif not status and time.time() - max(_changed(run_dir / n) for n in ("metrics.jsonl", LOG_FILE)) < ALIVE_SECONDS:
        row.state = RUNNING
    return row


def _of_ended_job(place: _Place, status: str | None, tasks: Mapping[str, Task]) -> tuple[str, str]:
    """State and note of a run without a result of its own whose job is over, or forgotten by the queue."""
    if status == "interrupted":
        return STOPPED, "interrupted"
    prepare = place.submission.prepared_by(place.group)
    if prepare is not None and not place.log.exists():
        entry = tasks.get(prepare.id)
        log = place.submission.folder / f"{prepare.kind}-{prepare.id}.log"
        if entry is None or entry.state not in ("COMPLETED", "CANCELLED"):
            return FAILED, f"job {prepare.id}, which makes its teacher: {_last_line(log)}"
    state = place.entry.state if place.entry is not None else ""
    if not place.log.exists() or state in ("CANCELLED", "PREEMPTED"):
        return STOPPED, state.lower()
    return FAILED, f"job {place.task} {state or 'is over'}: {_last_line(place.log)}"


def _look_at_training(row: Standing, run_dir: Path, metric: str, mode: str) -> None:
    """Fill in what a run that trains has reached, and about how long it still takes."""
    validated = []
    try:
        lines = (run_dir / "metrics.jsonl").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if '"val/' in line and line.endswith("}"):
            validated.append(json.loads(line))
    values = [value for entry in validated if (value := entry.get(f"val/{metric}")) is not None]
    row.best = (max if mode == "max" else min)(values, default=None)
    row.epoch = validated[-1]["epoch"] + 1 if validated else 0
    found = _EPOCHS.search(_text(run_dir / ".hydra" / "config.yaml"))
    row.epochs = int(found.group(1)) if found else None
    log = _text(run_dir / LOG_FILE)
    begun = list(_BEGUN.finditer(log))
    if not begun or row.epochs is None:
        return
    continued = [int(epoch) - 1 for name, epoch in _CONTINUED.findall(log[begun[-1].end() :]) if name == row.name]
    done = row.epoch - (continued[-1] if continued else 0)
    if done > 0:
        start = datetime.strptime(begun[-1].group(1), "%Y-%m-%d %H:%M:%S").timestamp()
        changed = _changed(run_dir / "metrics.jsonl")
        ahead = (row.epochs - row.epoch) * (changed - start) / done
        row.seconds_left = max(0.0, ahead - (time.time() - changed))


def _left(rows: list[Standing], places: Mapping[str, _Place], running: int) -> float | None:
    """Seconds until a sweep is finished, if as many jobs go on running; None: nothing is known yet."""
    lasted = [row.seconds for row in rows if row.seconds is not None]
    typical = sum(lasted) / len(lasted) if lasted else None
    of_job: dict[str, float] = {}
    for row in rows:
        if row.state not in (RUNNING, PENDING):
            continue
        left = row.seconds_left if row.seconds_left is not None else typical
        if left is None:
            return None
        place = places.get(row.name)
        job = f"{place.submission.folder}/{place.group}" if place is not None else ""  # here: side by side
        of_job[job] = max(of_job.get(job, 0.0), left)
    return sum(of_job.values()) / max(1, running) if of_job else None


def _changed(path: Path) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def _text(path: Path) -> str:
    """What a file ends in: a log may have grown long."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.stat(path).st_size - 300_000))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _last_line(path: Path) -> str:
    """The last line of a log that is the program's own, not the scheduler's."""
    lines = [line.strip() for line in _text(path).splitlines() if line.strip()]
    own = [line for line in lines if not line.startswith(("srun:", "slurmstepd:"))]
    return _line((own or lines or ["no log"])[-1])


def _line(text: Any) -> str:
    return " ".join(str(text or "").split())[:300]
