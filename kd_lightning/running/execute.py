"""From wanted runs to finished ones: skip what is there, group what can share, have it computed, say what is left."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from kd_lightning.errors import DirectoryTaken, RunInterrupted, UserError
from kd_lightning.joints import Executor, Handle
from kd_lightning.running.baselines import link_baselines
from kd_lightning.running.executors.local import LocalExecutor
from kd_lightning.running.first_try import try_groups
from kd_lightning.running.grouping import grouped
from kd_lightning.running.missing_result import failed_result, without_result
from kd_lightning.running.present_state import ended_result, keep, refuse_other_run, stored_result
from kd_lightning.running.run_group import tell_failure
from kd_lightning.runs.interrupt import stoppable
from kd_lightning.runs.result_file import NOT_STARTED, Result
from kd_lightning.runs.spec import ALONE, RunSpec

log = logging.getLogger(__name__)

FAILED = ("failed", "diverged")


def execute(
    specs: Sequence[RunSpec],
    executor: Executor | None = None,
    tell: Callable[[Result], None] | None = None,
) -> list[Result]:
    """Compute the runs that have no result yet.

    Args:
        specs: the wanted runs; those of role "alone" serve the others as baseline.
        executor: where they are computed; None: in this process, in lockstep where they can.
        tell: told of each new result as soon as it is there.

    Returns:
        One result a spec, in order; a run that failed has status "failed" and never keeps others from running.
        After an interruption the runs that were not finished are "interrupted".

    Raises:
        UserError: one mistake of the user's (data, teacher, directory) stops every run that was left to do.
    """
    executor = executor if executor is not None else LocalExecutor()
    results: dict[Path, Result] = {}
    todo = []
    for spec in {spec.run_dir: spec for spec in specs}.values():  # a value that was swept twice is one run
        done = ended_result(spec)
        if done is None:
            todo.append(spec)
        else:
            keep(spec, done)
            results[spec.run_dir] = done
    for spec in sorted(todo, key=lambda spec: len(spec.run_dir.parts)):  # a run before the student alone within it
        refuse_other_run(spec)
    link_baselines(specs, results)
    wanted = specs[0].config.get("failures") or {}
    retries, stop = int(wanted.get("retries") or 0), bool(wanted.get("stop"))
    for attempt in range(retries + 1):
        went_on = _attempt(specs, todo, executor, results, tell, stop and attempt == retries)
        todo = [spec for spec in todo if results.get(spec.run_dir, {}).get("status") == "failed"]
        if not todo or not went_on:
            break
        if attempt < retries:
            log.warning("%s: start again (%d of %d)", ", ".join(s.name for s in todo), attempt + 1, retries)
    return [results.get(s.run_dir) or ended_result(s) or _interrupted(s) for s in specs]


def _interrupted(spec: RunSpec) -> Result:
    return without_result(spec, "interrupted", None if spec.run_dir.exists() else NOT_STARTED)


def _attempt(
    specs: Sequence[RunSpec],
    todo: Sequence[RunSpec],
    executor: Executor,
    results: dict[Path, Result],
    tell: Callable[[Result], None] | None,
    stop: bool,
) -> bool:
    """Have ``todo`` computed and fill in ``results``; False if it was stopped before its end."""
    # what serves others comes last: where none of those can run, nobody waits for it
    groups = grouped(todo, executor.fuse)
    asked_for = sum(len(group) for group in groups if not _serves(group))
    refused: list[tuple[list[RunSpec], UserError]] = []  # before anything was written: to be raised, or told
    if isinstance(executor, LocalExecutor) and len(groups) > 1:  # elsewhere it is the place that tells
        groups = _without_refused(groups, refused)
        if any(not _serves(group) for group in groups):
            results |= _failures(refused)
    groups.sort(key=_serves)
    handles = executor.submit(groups)
    try:
        with stoppable():
            for group, handle in zip(groups, handles, strict=True):
                if _serves(group) and refused and sum(len(others) for others, _ in refused) == asked_for:
                    break
                for spec, result in _group_results(group, handle, refused):
                    results |= _failures(refused)
                    results[spec.run_dir] = result
                    related = [s for s in specs if spec.run_dir in (s.run_dir, s.baseline and s.baseline.run_dir)]
                    link_baselines(related, results)
                    if tell is not None:
                        tell(result)
                    if stop and result["status"] in FAILED:
                        raise RunInterrupted(f"stopped, as {spec.name} {result['status']} (failures.stop)")
    except (RunInterrupted, KeyboardInterrupt) as error:
        for handle in handles:
            handle.cancel()
        log.warning("%s", error if isinstance(error, RunInterrupted) else "stopped")
        results |= _failures(refused)
        if stop:  # within a group: who failed has told so in its directory
            ended = {spec.run_dir: stored_result(spec) for spec in todo if spec.run_dir not in results}
            results |= {path: found for path, found in ended.items() if found and found["status"] in FAILED}
        return False
    if refused and sum(len(group) for group, _ in refused) >= asked_for and not any(s.run_dir in results for s in todo):
        for handle in handles:
            handle.cancel()
        raise refused[0][1]
    results |= _failures(refused)
    return True


def _without_refused(
    groups: Sequence[Sequence[RunSpec]], refused: list[tuple[list[RunSpec], UserError]]
) -> list[list[RunSpec]]:
    """The groups without the runs that cannot go, which are added to ``refused``."""
    problems = try_groups(groups)
    for group in groups:
        refused += [([spec], problems[spec.run_dir]) for spec in group if spec.run_dir in problems]
    left = [[spec for spec in group if spec.run_dir not in problems] for group in groups]
    return [group for group in left if group]


def _serves(group: Sequence[RunSpec]) -> bool:
    """Whether these runs are there for others to be compared with."""
    return all(spec.role == ALONE for spec in group)


def _group_results(
    specs: Sequence[RunSpec], handle: Handle, refused: list[tuple[list[RunSpec], UserError]]
) -> Iterator[tuple[RunSpec, Result]]:
    """Each run with its result. What goes wrong is these runs' failure; what was refused as a whole, ``refused``."""
    left = {(spec.name, spec.fingerprint): spec for spec in specs}
    try:
        for result in handle.results():
            yield left.pop((result["name"], result["fingerprint"])), result
    except RunInterrupted:
        raise
    except UserError as error:
        refused.append((list(left.values()), error))
    except Exception as error:
        tell_failure(list(left.values()), error)
        for spec in left.values():
            yield spec, failed_result(spec, error)


def _failures(refused: list[tuple[list[RunSpec], UserError]]) -> dict[Path, Result]:
    """Tell and write what was held back, as others go on; the list is empty then."""
    results = {}
    for group, error in refused:
        tell_failure(group, error)
        for spec in group:  # a directory of another's is not written into
            taken = isinstance(error, DirectoryTaken)
            result = without_result(spec, "failed", str(error)) if taken else failed_result(spec, error)
            results[spec.run_dir] = result
    refused.clear()
    return results
