"""What a run's directory holds already: its finished result, or another run that must not be mixed with it."""

from __future__ import annotations

from kd_lightning.errors import DirectoryTaken, UserError
from kd_lightning.runs.checkpoint import load_checkpoint
from kd_lightning.runs.result_file import Result, read_result
from kd_lightning.runs.spec import RunSpec


def finished_result(spec: RunSpec) -> Result | None:
    """The stored result, if it is of this very configuration and complete."""
    result = stored_result(spec)
    return result if result is not None and result.get("status") == "finished" else None


def stored_result(spec: RunSpec) -> Result | None:
    """The stored result, however the run ended, if it is of this very configuration."""
    result = read_result(spec.result_path, strict=False)
    return result if result is not None and result.get("fingerprint") == spec.fingerprint else None


def holds_other_run(spec: RunSpec) -> bool:
    """Whether the run's directory holds checkpoints of a run with another configuration.

    A run that got nowhere (no checkpoint) leaves nothing to lose: its directory can be used again.
    """
    checkpoints = [path for path in (spec.last_checkpoint, spec.best_checkpoint) if path.is_file()]
    if not checkpoints:
        return False
    found = read_result(spec.result_path, strict=False)
    for path in checkpoints:
        if found is not None:
            break
        try:
            found = load_checkpoint(path, "run_dir")
        except UserError:  # damaged: the other may be whole
            continue
    return found is not None and found.get("fingerprint") != spec.fingerprint


def refuse_other_run(spec: RunSpec) -> None:
    """Raise DirectoryTaken rather than mix two runs in one directory."""
    if holds_other_run(spec):
        raise DirectoryTaken(
            f"run_dir={spec.run_dir}: holds a run with another configuration (see its .hydra/config.yaml); "
            f"choose another directory (init_from={spec.run_dir} there starts from its weights)"
        )
