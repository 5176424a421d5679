"""What a run's directory holds already: its finished result, or another run that must not be mixed with it."""

from __future__ import annotations

import logging

from kd_lightning.config.fingerprint import files_in
from kd_lightning.errors import DirectoryTaken, UserError
from kd_lightning.running.continuation import changed_files_read, differing
from kd_lightning.runs.checkpoint import load_checkpoint
from kd_lightning.runs.code_change import Stored, changed_code, is_same, restamped, why_other
from kd_lightning.runs.result_file import ENDS, Result, read_result, write_where_possible
from kd_lightning.runs.spec import RunSpec

log = logging.getLogger(__name__)


def finished_result(spec: RunSpec) -> Result | None:
    """The stored result, if it is of this very run and complete."""
    result = stored_result(spec)
    return result if result is not None and result.get("status") == "finished" else None


def ended_result(spec: RunSpec) -> Result | None:
    """The stored result, if nothing is left to do: the run is finished, or who judges it stopped it early."""
    result = stored_result(spec)
    return result if result is not None and result.get("status") in (ENDS if spec.judge else ("finished",)) else None


def stored_result(spec: RunSpec) -> Result | None:
    """The stored result, however the run ended, if it is of this very run.

    A finished one that other code made is taken for it where ``accept_code`` says so: see :func:`keep`.
    """
    result = read_result(spec.result_path, strict=False)
    if result is None or not is_same(result, spec):
        return None
    if result.get("fingerprint") != spec.fingerprint and result.get("status") == "finished":
        return restamped(result, spec)
    return result


def keep(spec: RunSpec, result: Result) -> None:
    """Say that a run is finished already; one that other code made is written as of the code now, once for all."""
    log.info("%s is %s already: %s", spec.name, result["status"], spec.run_dir)
    before = read_result(spec.result_path, strict=False)
    if before is not None and before.get("fingerprint") != result["fingerprint"]:
        log.info("%s was made before %s changed: kept", spec.name, ", ".join(changed_code(before, spec)))
        write_where_possible(spec.result_path, result)


def other_run_in(spec: RunSpec) -> Stored | None:
    """What the run's directory holds of a run that must not be mixed with this one: its result, or a checkpoint.

    A run that got nowhere (no checkpoint, not finished) leaves nothing to lose: its directory can be used again.
    """
    checkpoints = [path for path in (spec.last_checkpoint, spec.best_checkpoint) if path.is_file()]
    found: Stored | None = read_result(spec.result_path, strict=False)
    if not checkpoints and (found is None or found["status"] != "finished"):
        return None
    for path in checkpoints:
        if found is not None:
            break
        try:
            found = load_checkpoint(path, "run_dir")
        except UserError:  # damaged: the other may be whole
            continue
    return None if found is None or is_same(found, spec) else found


def _what_differs(other: Stored, spec: RunSpec) -> str:
    """Of two configurations with the same words: the files that were read, whose content is another now."""
    if "config" not in other or "configuration" not in other or differing(other["config"], spec.config):
        return ""
    changed = changed_files_read(other)
    return f"what its run read has changed since ({changed})" if changed and files_in(other["config"]) else ""


def _ways_on(other: Stored, spec: RunSpec) -> str:
    from_weights = f"init_from={spec.run_dir} there starts from its weights"
    if "config" in other and not differing(other["config"], spec.config):
        return f" (continue_from={spec.run_dir} there goes on where it ended, {from_weights})"
    return f" ({from_weights})"


def refuse_other_run(spec: RunSpec) -> None:
    """Raise DirectoryTaken rather than mix two runs in one directory."""
    other = other_run_in(spec)
    if other is not None:
        if changed_code(other, spec):
            raise DirectoryTaken(f"run_dir={spec.run_dir}: {why_other(other, spec)}")
        if differs := _what_differs(other, spec):
            raise DirectoryTaken(
                f"run_dir={spec.run_dir}: {differs}; choose another directory "
                f"(init_from={spec.run_dir} there starts from its weights)"
            )
        raise DirectoryTaken(f"run_dir={spec.run_dir}: {why_other(other, spec)}{_ways_on(other, spec)}")
