"""The runs of one group in this process: hold their directories, try, begin, train, yield each result.

::

    hold the directories ─► data ─► dry pass ─► .hydra and log ─► teacher ─► its stored outputs ─► train, part by part
       (one process)              (nothing is written before here)

Whatever is refused before anything was written leaves no trace.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kd_lightning.config.build import build_datamodule
from kd_lightning.config.processes import processes_of
from kd_lightning.errors import NoSuchLayer, RunInterrupted, UserError
from kd_lightning.joints import Teacher
from kd_lightning.running.accelerator import require_accelerator
from kd_lightning.running.auto_taps import with_taps
from kd_lightning.running.continuation import cannot_continue
from kd_lightning.running.dry_pass import try_students
from kd_lightning.running.group import Group
from kd_lightning.running.labels_needed import without_labels
from kd_lightning.running.memory import members_that_fit
from kd_lightning.running.missing_result import failed_result, without_result
from kd_lightning.running.present_state import ended_result, refuse_other_run
from kd_lightning.running.ranks import join_ranks, joins, require_meeting_place, trained_by_ranks
from kd_lightning.running.shared import teacher_layers, with_stored_answers
from kd_lightning.running.teacher_warning import warn_about_teacher
from kd_lightning.runs.directory import LOG_FILE, NOTES, LogFiles, held
from kd_lightning.runs.notes import keep_note
from kd_lightning.runs.result_file import Result
from kd_lightning.runs.spec import RunSpec
from kd_lightning.teachers.registry import obtain_teacher
from kd_lightning.teachers.suits import reads_logits

log = logging.getLogger(__name__)

Display = Callable[[Sequence[str]], Any]
"""Makes a progress display (a context manager with ``update``) for a list of run names."""


def run_group(specs: Sequence[RunSpec], display: Display | None = None) -> Iterator[Result]:
    """Compute runs that share data, task, teacher and trainer settings.

    Args:
        specs: the runs, with equal ``group_key``.
        display: shows the progress of runs that train together.

    Yields:
        each run's result as soon as it is there, in no particular order. A run that another process is training, and a
        student that cannot be built, fail by themselves.

    Raises:
        UserError: the data or the teacher cannot be had, or what the user gave lets no run go to its end.
        RunInterrupted: a signal asked to stop; every run's state is kept.
    """
    require_meeting_place(specs[0])
    if joins(specs[0]):
        yield from join_ranks(specs)
        return
    with contextlib.ExitStack() as stack:
        mine: list[RunSpec] = []
        refused: list[tuple[RunSpec, UserError]] = []
        for spec in sorted(specs, key=lambda spec: len(spec.run_dir.parts)):  # a run's before those within it
            try:
                stack.enter_context(held(spec.run_dir))
                refuse_other_run(spec)
            except UserError as error:
                refused.append((spec, error))
                continue
            done = ended_result(spec)  # by another process, in the meantime
            if done is None:
                mine.append(spec)
            else:
                yield done
        if len(refused) == len(specs):  # the first: what serves others lies within them
            raise refused[0][1]
        for spec, reason in refused:  # the directory is another's: nothing is written
            log.error("%s", reason)
            yield without_result(spec, "failed", str(reason))
        if mine:
            directories = {spec.run_dir for spec in mine}
            mine = [spec for spec in specs if spec.run_dir in directories]
            files = stack.enter_context(LogFiles([spec.run_dir / LOG_FILE for spec in mine]))
            yield from _trained(mine, files, display)


def _trained(specs: Sequence[RunSpec], files: LogFiles, display: Display | None) -> Iterator[Result]:
    config = specs[0].config
    require_accelerator(config)
    datamodule = build_datamodule(config)
    specs = with_taps(specs, datamodule)
    problems: dict[Path, UserError] = {}
    unfit: dict[Path, UserError] = {}  # runs that look at a layer which the teacher has not: the others go on without
    begun = False

    def fitting() -> list[RunSpec]:
        return [spec for spec in specs if spec.run_dir not in unfit]

    def try_and_begin(teacher: Teacher | None) -> None:
        nonlocal begun
        if not begun:
            problems.update(try_students(fitting(), datamodule, teacher) | without_labels(specs, datamodule) | unfit)
            problems.update(cannot_continue(specs))
            if nothing_is_left(specs, problems):
                raise problems[min(problems, key=lambda path: len(path.parts))]  # a run before the one within it
            begin(specs, files)
            begun = True

    def attempt(spec: RunSpec) -> None:
        if spec.config["teacher"] is None:  # a teacher that is distilled tries itself when its own teacher is there
            for problem in try_students([spec], datamodule).values():
                raise problem
        try_now()

    def try_now() -> None:
        try_and_begin(obtain(trial=True)[0])

    def obtain(trial: bool = False) -> tuple[Teacher | None, dict[str, Any] | None]:
        return obtain_teacher(
            config,
            datamodule,
            teacher_layers(fitting()),
            lambda spec: train_alone(spec, display),
            attempt=None if trial else attempt,
            begin=None if trial else try_now,
            needs_logits=reads_logits([spec.config["method"] for spec in specs]),
            trial=trial,
        )

    def obtain_for_those_that_fit() -> tuple[Teacher | None, dict[str, Any] | None]:
        while True:
            try:
                return obtain()
            except NoSuchLayer as error:
                found = {spec.run_dir: error for spec in fitting() if error.layer in teacher_layers([spec])}
                if not 0 < len(found) < len(fitting()):
                    raise
                unfit.update(found)

    teacher, teacher_info = obtain_for_those_that_fit()
    try_and_begin(teacher)
    for spec in specs:
        if spec.run_dir in problems:
            tell_failure([spec], problems[spec.run_dir])
            yield failed_result(spec, problems[spec.run_dir])
    specs = [spec for spec in specs if spec.run_dir not in problems]

    def tell_cache(text: str) -> None:
        """Show a line, and keep the last one: stored outputs are rounded, so a result says whether it is from them."""
        log.info("%s", text)
        if teacher_info is not None:
            teacher_info["cache"] = text.removeprefix("teacher cache: ")

    answering = with_stored_answers(specs, teacher, datamodule, tell_cache)
    if processes_of(config["trainer"]) > 1:
        log.info("data: %s", datamodule.summary())
        together: list[Result] = []
        for result in trained_by_ranks(specs, datamodule, display is not None):
            together.append(result)
            yield result
        datamodule.teardown("fit")
        if not config["trainer"].get("fast_dev_run"):
            warn_about_teacher(together)
        return
    size = members_that_fit(specs, datamodule) if len(specs) > 1 else 1
    parts = [specs[start : start + size] for start in range(0, len(specs), size)]
    results: list[Result] = []
    log.info("data: %s", datamodule.summary())
    for part in parts:
        shown = display([spec.name for spec in part]) if display else None
        try:
            with shown or contextlib.nullcontext():
                made = Group(part, datamodule, answering, teacher_info, shown).run()
        except RunInterrupted:
            raise
        except Exception as error:
            if len(parts) == 1:
                raise
            tell_failure(part, error)
            made = [failed_result(spec, error) for spec in part]
        results += made
        yield from made
    if not config["trainer"].get("fast_dev_run"):  # a batch or two teach nobody
        warn_about_teacher(results)
    datamodule.teardown("fit")  # says how many unreadable images were left out


def nothing_is_left(specs: Sequence[RunSpec], problems: Mapping[Path, UserError]) -> bool:
    """Whether every run has a problem; a run's own baseline, within its directory, is not wanted without it."""
    served = [spec for spec in specs if not any(path in spec.run_dir.parents for path in problems)]
    return all(spec.run_dir in problems for spec in served)


def begin(specs: Sequence[RunSpec], files: LogFiles) -> None:
    """From here on the runs leave files: their configuration, their log."""
    for spec in specs:
        for name, text in spec.files.items():
            path = spec.run_dir / name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                if name == NOTES:
                    keep_note(spec.run_dir, text)
                else:
                    path.write_text(text, encoding="utf-8")
            except OSError as error:
                raise UserError(f"run_dir={spec.run_dir}: cannot be written: {error.strerror or error}") from error
    files.open()


def train_alone(spec: RunSpec, display: Display | None = None) -> Result:
    """Train one run, for example a teacher, by itself."""
    (result,) = run_group([spec], display)
    return result


def tell_failure(specs: Sequence[RunSpec], error: Exception) -> None:
    """Say that runs failed; with a traceback where it is no mistake of the user's."""
    names = ", ".join(spec.name for spec in specs)
    log.error("%s: %s", names, error, exc_info=None if isinstance(error, UserError) else error)
