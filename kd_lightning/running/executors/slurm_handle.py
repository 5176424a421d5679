"""The runs of a group, seen from the command that waits for their jobs."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from kd_lightning.running.executors.slurm_commands import Watch, scancel
from kd_lightning.running.missing_result import failed_result
from kd_lightning.running.present_state import stored_result
from kd_lightning.runs.interrupt import told_to_leave
from kd_lightning.runs.result_file import ENDS, Result
from kd_lightning.runs.spec import RunSpec

log = logging.getLogger(__name__)

PAUSE = 1.0
"""Seconds between two looks at the runs' files."""
SEEN_WITHIN = 60.0
"""Seconds after which a file that another machine has written is seen here at the latest (NFS remembers its absence)."""


class SlurmHandle:
    """A group of runs in Slurm's hands: results come from files, the end of a job from the queue.

    Args:
        specs: the runs.
        tasks: the task that computes each, by run directory.
        prepares: jobs that they wait for.
        watch: looks at the queue.
    """

    def __init__(
        self, specs: Sequence[RunSpec], tasks: Mapping[Path, str], prepares: Sequence[str], watch: Watch
    ) -> None:
        self.specs, self.tasks, self.prepares = list(specs), dict(tasks), list(prepares)
        self._watch = watch
        self._before = {spec.run_dir: _stamp(spec) for spec in specs}

    def results(self) -> Iterator[Result]:
        """Each run's result as soon as its file is there. A run of a job that was cancelled has none: it is interrupted."""
        left = {spec.run_dir: spec for spec in self.specs}
        over: dict[str, float] = {}  # tasks, and since when we know
        while left:
            for spec in list(left.values()):
                result = stored_result(spec)
                if result is not None and (result["status"] in ENDS or self._failed_now(spec, result)):
                    del left[spec.run_dir]
                    log.info("%s: %s", spec.name, result["status"])
                    yield result
            ended = self._watch.ended(sorted({self.tasks[path] for path in left}))
            for path, spec in list(left.items()):
                state = ended.get(self.tasks[path])
                if state is None:
                    continue
                since = over.setdefault(self.tasks[path], time.monotonic())
                if state in ("CANCELLED", "PREEMPTED"):
                    del left[path]
                elif state != "COMPLETED" or time.monotonic() - since > SEEN_WITHIN:
                    del left[path]
                    said = f"its job {self.tasks[path]} ended ({state or 'no longer in the queue'}) without a result"
                    yield failed_result(spec, RuntimeError(said))
            if left:
                time.sleep(PAUSE)

    def cancel(self) -> None:
        """Cancel the jobs; what they have reached is kept. A command that is told to leave leaves its jobs alone."""
        if not told_to_leave():
            scancel(list(dict.fromkeys([*self.prepares, *self.tasks.values()])))

    def _failed_now(self, spec: RunSpec, result: Result) -> bool:
        """Whether a run has failed since this handle was made, and is not started again by its job."""
        again = int((spec.config.get("failures") or {}).get("retries") or 0)
        return result["status"] in ("failed", "diverged") and not again and _stamp(spec) != self._before[spec.run_dir]


def _stamp(spec: RunSpec) -> int | None:
    try:
        return spec.result_path.stat().st_mtime_ns
    except OSError:
        return None
