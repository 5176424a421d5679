"""The runs of a group, seen from the command that waits for their jobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from kd_lightning.running.executors.from_files import DONE, INTERRUPTED, FromFiles
from kd_lightning.running.executors.slurm_commands import Watch, scancel
from kd_lightning.runs.interrupt import told_to_leave
from kd_lightning.runs.result_file import Result
from kd_lightning.runs.spec import RunSpec

_HOW = {"COMPLETED": DONE, "CANCELLED": INTERRUPTED, "PREEMPTED": INTERRUPTED}


class SlurmHandle:
    """A group of runs in Slurm's hands: results come from files, the end of a job from the queue.

    Args:
        specs: the runs.
        tasks: the task that computes each, by run directory.
        around: jobs that come before and after those.
        watch: looks at the queue.
    """

    def __init__(
        self, specs: Sequence[RunSpec], tasks: Mapping[Path, str], around: Sequence[str], watch: Watch
    ) -> None:
        self.tasks, self.around = dict(tasks), list(around)
        self._files = FromFiles(specs)
        self._watch = watch

    def results(self) -> Iterator[Result]:
        return self._files.results(self._ended)

    def cancel(self) -> None:
        """Cancel the jobs; what they have reached is kept. A command that is told to leave leaves its jobs alone."""
        if not told_to_leave():
            scancel(list(dict.fromkeys([*self.around, *self.tasks.values()])))

    def _ended(self, runs: Sequence[Path]) -> dict[Path, str]:
        over = self._watch.ended(sorted({self.tasks[run] for run in runs}))
        how = {task: _HOW.get(state, f"job {task} {state or 'left the queue'}") for task, state in over.items()}
        return {run: how[self.tasks[run]] for run in runs if self.tasks[run] in how}
