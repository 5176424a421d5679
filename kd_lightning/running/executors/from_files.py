"""Results of runs that are computed elsewhere, as their files appear."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from kd_lightning.running.missing_result import failed_result
from kd_lightning.running.present_state import stored_result
from kd_lightning.runs.result_file import ENDS, Result
from kd_lightning.runs.spec import RunSpec

log = logging.getLogger(__name__)

PAUSE = 1.0
"""Seconds between two looks at the runs' files."""
SEEN_WITHIN = 60.0
"""Seconds after which a file that another machine has written is seen here at the latest (NFS remembers its absence)."""

INTERRUPTED, DONE = "", "done"
"""How a job ended: it was stopped and its runs go on some day; it did what it had to. Anything else: what went wrong."""


class FromFiles:
    """The results of a group.

    Args:
        specs: the runs.
    """

    def __init__(self, specs: Sequence[RunSpec]) -> None:
        self.specs = list(specs)
        self._before = {spec.run_dir: _stamp(spec) for spec in specs}

    def results(self, ended: Callable[[Sequence[Path]], Mapping[Path, str]]) -> Iterator[Result]:
        """Each run's result as soon as its file is there. A run whose job was stopped has none.

        Args:
            ended: asked again and again, for the runs that are left by their directories, whose job has ended, and how:
                :data:`INTERRUPTED`, :data:`DONE`, or in words.
        """
        left = {spec.run_dir: spec for spec in self.specs}
        since: dict[Path, float] = {}
        while left:
            how = ended(list(left))  # before the files are looked at: what a job that is over has written is there
            for path, spec in list(left.items()):
                result = stored_result(spec)
                wanted = ENDS if spec.judge is not None else ENDS[:1]  # one that was pruned before is wanted to its end
                if result is not None and (result["status"] in wanted or self._has_failed(spec, result, path in how)):
                    del left[path]
                    log.info("%s: %s", spec.name, result["status"])
                    yield result
                elif how.get(path) == INTERRUPTED:
                    del left[path]
                elif path in how and (
                    how[path] != DONE or time.monotonic() - since.setdefault(path, time.monotonic()) > SEEN_WITHIN
                ):
                    del left[path]
                    log.error("%s: %s", spec.name, how[path])
                    yield failed_result(spec, RuntimeError(f"{how[path]}: no result was written"))
            if left:
                time.sleep(PAUSE)

    def _has_failed(self, spec: RunSpec, result: Result, over: bool) -> bool:
        """Whether a run has failed since this was made, and is not started again by its job."""
        again = int((spec.config.get("failures") or {}).get("retries") or 0)
        now = _stamp(spec) != self._before[spec.run_dir]
        return result["status"] in ("failed", "diverged") and now and (over or not again)


def _stamp(spec: RunSpec) -> int | None:
    try:
        return spec.result_path.stat().st_mtime_ns
    except OSError:
        return None
