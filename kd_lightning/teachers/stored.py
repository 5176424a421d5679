"""The store of trained teachers: one directory a fingerprint, of configuration, data and the user's code."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from kd_lightning.runs.code_change import accepting, changed_code, is_same
from kd_lightning.runs.result_file import Result, read_result, write_where_possible
from kd_lightning.runs.spec import RunSpec

log = logging.getLogger(__name__)


def stored_teacher(spec: RunSpec, called: str) -> tuple[Result, Path] | None:
    """The result and directory of a teacher that need not be trained again; None where there is none.

    One that was made before a file of the user's was edited is taken where ``accept_code`` says so, or said so before.

    Args:
        spec: of the teacher's training.
        called: the teacher's name, for messages.
    """
    result = read_result(spec.result_path)
    if result is not None and result["status"] == "finished" and spec.best_checkpoint.is_file():
        log.info("teacher %s found in %s: not trained again", called, spec.run_dir)
        return result, spec.run_dir
    for other, run_dir in _of_other_code(spec):
        if is_same(other, spec):
            if not is_same(other, _not_accepting(spec)):
                write_where_possible(run_dir / "result.json", accepting(other, spec))
            files = ", ".join(changed_code(other, spec))
            log.info("teacher %s found in %s, made before %s changed: kept", called, run_dir, files)
            return other, run_dir
    return None


def tell_other_code(spec: RunSpec) -> None:
    """Say which edited file makes a teacher be trained again, where that is why."""
    for other, run_dir in _of_other_code(spec):
        files = ", ".join(changed_code(other, spec))
        log.warning(
            "%s changed since the teacher in %s was trained: it is trained again; accept_code=true keeps it",
            files, run_dir,
        )  # fmt: skip
        return


def _of_other_code(spec: RunSpec) -> Iterator[tuple[Result, Path]]:
    """Stored teachers of the same configuration and other code, those first that are accepted, then the newest."""
    found = []
    for path in spec.run_dir.parent.glob("*/result.json"):
        result = read_result(path, strict=False)
        if result and changed_code(result, spec) and (path.parent / "checkpoints" / "best.ckpt").is_file():
            found.append(
                (is_same(result, _not_accepting(spec)), str(result.get("finished") or ""), path.parent, result)
            )
    for *_, run_dir, result in sorted(found, key=lambda entry: entry[:2], reverse=True):
        if result["status"] == "finished":
            yield result, run_dir


def _not_accepting(spec: RunSpec) -> RunSpec:
    return replace(spec, config={**spec.config, "accept_code": False})
