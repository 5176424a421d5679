"""Slurm's own commands, as functions: submit a script, look at the queue, cancel. Light: no torch here."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from kd_lightning.errors import UserError

log = logging.getLogger(__name__)

OVER = frozenset(
    [
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    ]
)
"""States that a job does not leave by itself; any other is of one that waits or runs. A requeued one is PENDING."""


class Task(NamedTuple):
    """A job, or a task of an array, in the queue.

    Attributes:
        state: as ``squeue`` names it: PENDING, RUNNING, COMPLETED, …
        reason: why it waits; "None" where it does not.
        left: of its time limit, as Slurm writes it ("1:02:03").
        node: where it runs; empty while it waits.
    """

    state: str
    reason: str
    left: str
    node: str

    @property
    def is_over(self) -> bool:
        return self.state in OVER


def sbatch(script: Path) -> str:
    """Submit a script; returns the job's number.

    Raises:
        UserError: Slurm isn't there, or refuses.
    """
    done = _run(["sbatch", "--parsable", str(script)])
    if done.returncode:
        raise UserError(f"launcher=slurm: sbatch refuses {script}: {_last_line(done.stderr)}")
    return done.stdout.strip().partition(";")[0]


def queue() -> dict[str, Task] | None:
    """The user's jobs and those that ended lately, by number (``12``, of an array ``12_0``); None: it cannot be asked."""
    try:
        done = _run(["squeue", "-h", "-r", "-a", "-t", "all", "-u", str(os.getuid()), "-o", "%i|%T|%r|%L|%N"])
    except UserError:
        return None
    if done.returncode:
        return None
    rows = (line.split("|") for line in done.stdout.splitlines() if line.count("|") == 4)
    return {row[0].strip(): Task(*row[1:]) for row in rows}


def queue_in_time(tries: int = 6, pause: float = 10.0) -> dict[str, Task] | None:
    """``queue``, asked again a few times: a busy controller lets a question lapse now and then.

    Where the command itself is missing there is nobody to wait for.
    """
    for attempt in range(tries):
        found = queue()
        if found is not None or shutil.which("squeue") is None:
            return found
        if attempt + 1 < tries:
            log.info("squeue does not answer: asking again in %.0f seconds", pause)
            time.sleep(pause)
    return None


def scancel(jobs: Sequence[str]) -> None:
    """Cancel jobs, whole arrays or tasks of them; those that are over already do not matter."""
    for start in range(0, len(jobs), 500):  # a command line has an end
        done = _run(["scancel", *jobs[start : start + 500]])
        if done.returncode and "Invalid job id" not in done.stderr:
            raise UserError(f"scancel: {_last_line(done.stderr)}")


class Watch:
    """The queue, asked at most every few seconds however often somebody wants to know.

    Args:
        pause: seconds between two questions: a scheduler serves many.
    """

    def __init__(self, pause: float = 5.0) -> None:
        self.pause = pause
        self._tasks: dict[str, Task] = {}
        self._missed: dict[str, int] = {}
        self._next = 0.0

    def ended(self, tasks: Iterable[str]) -> dict[str, str]:
        """Those of ``tasks`` that are over, with their state ("" for one that the queue has forgotten).

        A task has to be seen so twice: one that is requeued is over for a moment. While the controller does not answer,
        none is.
        """
        tasks = list(tasks)
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + self.pause
            found = queue()
            if found is not None:
                self._tasks = found
                for task in tasks:
                    entry = found.get(task)
                    over = entry is None or entry.is_over
                    self._missed[task] = self._missed.get(task, 0) + 1 if over else 0
        return {t: self._tasks[t].state if t in self._tasks else "" for t in tasks if self._missed.get(t, 0) >= 2}


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except FileNotFoundError as error:
        raise UserError(
            f"launcher=slurm: {command[0]} is not on this machine: start on a login node of Slurm"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise UserError(f"launcher=slurm: {command[0]} does not answer within two minutes") from error


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "no reason given")
