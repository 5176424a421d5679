"""Groups of runs as Slurm jobs: what they share is made first, by a job of its own, and each job trains some side by side.

::

    prepare (teacher, its stored answers) ──afterok──► train: an array, some runs a task ──afterany──► finish (report)

Three kinds of calls of ``sbatch`` and files in the sweep's directory, nothing else: no database of Slurm's, no daemon of
ours. What a job computes is what ``kd-train`` would compute here, to the last bit.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kd_lightning.errors import NothingRun, Submitted, UserError
from kd_lightning.joints import Handle
from kd_lightning.running.executors.dividing import Lot, divided
from kd_lightning.running.executors.slurm_commands import Watch, queue_in_time, sbatch, scancel
from kd_lightning.running.executors.slurm_handle import SlurmHandle
from kd_lightning.running.executors.slurm_script import Resources, Script
from kd_lightning.runs.spec import RunSpec
from kd_lightning.runs.submission import FINISH, PREPARE, TRAIN, Job, Submission, new_submission, read_submissions
from kd_lightning.runs.work_file import Work, write_work

log = logging.getLogger(__name__)

ARRAY = 1000
"""Tasks of an array: Slurm's own limit is 1001 where a site has not changed it."""


class SlurmExecutor:
    """Submits runs to Slurm. ``conf/launcher/slurm.yaml`` explains the arguments.

    Args:
        directory: the sweep's, or the single run's, where the jobs' files go.
    """

    fuse = True

    def __init__(
        self,
        runs_per_job: int | None = None,
        jobs_at_once: int | None = None,
        wait: bool = True,
        dry_run: bool = False,
        partition: str | None = None,
        account: str | None = None,
        qos: str | None = None,
        gpus: int = 1,
        gpu_type: str | None = None,
        cpus: int | None = None,
        memory: str | None = None,
        time: str | None = None,
        constraint: str | None = None,
        options: list[str] | None = None,
        setup: list[str] | None = None,
        warn_seconds: int = 90,
        kills: int = 2,
        cpu_partition: str | None = None,
        directory: str | None = None,
    ) -> None:
        self.arguments = {key: value for key, value in locals().items() if key not in ("self", "directory", "dry_run")}
        self.runs_per_job, self.jobs_at_once = runs_per_job, jobs_at_once
        self.wait, self.dry_run = wait, dry_run
        self.warn_seconds, self.kills = warn_seconds, kills
        self.resources = Resources(
            partition, account, qos, gpus, gpu_type, cpus, memory, time, constraint, options or (), setup or ()
        )
        self.light = replace(
            self.resources, partition=cpu_partition or partition, gpus=0, gpu_type=None, cpus=1, time=None
        )
        self.directory = Path(directory or ".").resolve()

    def submit(self, groups: Iterable[Sequence[RunSpec]], after: Sequence[Handle] = ()) -> list[SlurmHandle]:
        """Write the work files and submit the jobs; runs that an earlier submission still has in the queue stay there.

        Raises:
            UserError: Slurm isn't there, or refuses.
            Submitted: ``wait`` is false, and all is submitted.
            NothingRun: ``dry_run``: what would be submitted was printed.
        """
        groups = [list(group) for group in groups]
        if not groups:
            return []
        for spec in (spec for group in groups for spec in group):
            devices = spec.config["trainer"].get("devices")
            if isinstance(devices, (list, tuple)) or "," in str(devices):
                raise UserError(f"trainer.devices={devices}: Slurm says which devices a job has: give their number")
        submission = new_submission(
            self.directory, "kd_lightning.running.executors.slurm.SlurmExecutor", self.arguments
        )
        names = {spec.run_dir: submission.name_of(spec) for group in groups for spec in group}
        tasks = self._queued()  # by the run's name
        fresh = [[spec for spec in group if names[spec.run_dir] not in tasks] for group in groups]
        lots = divided([group for group in fresh if group], self.runs_per_job)
        there = len(names) - sum(map(len, fresh))
        if there:
            log.info("%d of %d runs are in the queue already", there, len(names))
        if self.dry_run:
            self._say(submission, lots)
            raise NothingRun
        if lots:
            before = [task for handle in after if isinstance(handle, SlurmHandle) for task in handle.tasks.values()]
            self._submit(submission, lots, before)
            of_group = submission.task_of_group()
            tasks |= {run: of_group[number] for number, runs in enumerate(submission.groups) for run in runs}
        status = f"kd-sweep status {shlex.quote(str(self.directory))}"
        if not self.wait:
            log.info("the jobs go on without this command: %s", status)
            raise Submitted
        log.info("waiting for the jobs, which go on if this command ends: %s", status)
        watch = Watch()
        around = [job.id for job in submission.jobs if job.kind != TRAIN]
        return [
            SlurmHandle(group, {spec.run_dir: tasks[names[spec.run_dir]] for spec in group}, around, watch)
            for group in groups
        ]

    def _queued(self) -> dict[str, str]:
        """Tasks of earlier submissions that wait or run, by the run's name."""
        submissions = read_submissions(self.directory)
        known = queue_in_time() if submissions else {}
        if known is None:
            raise UserError(
                "launcher=slurm: squeue does not answer, and runs may be in the queue already: try again later"
            )
        return {
            run: task
            for submission in submissions
            for number, task in submission.task_of_group().items()
            if task in known and not known[task].is_over
            for run in submission.groups[number]
        }

    # -- submitting ----------------------------------------------------------------------------------------------
    def _submit(self, submission: Submission, lots: Sequence[Lot], before: Sequence[str]) -> None:
        """Hand in everything, or nothing if Slurm refuses a part of it."""
        submission.folder.mkdir(parents=True)
        try:
            for script, kind, groups in self._scripts(submission, lots, before, write_work):
                path = submission.folder / f"{kind}-{len(submission.jobs)}.sbatch"
                path.write_text(script.text(), encoding="utf-8")
                submission.jobs.append(Job(kind, sbatch(path), tuple(groups)))
                submission.save()  # at once, so that nothing that was submitted is forgotten
        except UserError:
            scancel([job.id for job in submission.jobs])
            shutil.rmtree(submission.folder)
            with contextlib.suppress(OSError):  # others are there
                submission.folder.parent.rmdir()
            raise
        trained = ", ".join(job.id for job in submission.jobs_of(TRAIN))
        log.info("submitted: %s, %s", _counted(submission.groups), trained)

    def _scripts(
        self, submission: Submission, lots: Sequence[Lot], before: Sequence[str], write: Callable[[Path, Work], None]
    ) -> Iterator[tuple[Script, str, Sequence[int]]]:
        """Each script, its kind and its groups, in their order; one is made when those before it have their numbers."""
        first = [f"afterany:{':'.join(dict.fromkeys(before))}"] if before else []
        for number, lot in enumerate(lots):
            groups = range(len(submission.groups), len(submission.groups) + len(lot.jobs))
            for group, specs in zip(groups, lot.jobs, strict=True):
                write(submission.group_file(group), Work(TRAIN, tuple(specs), Path.cwd()))
                submission.groups.append([submission.name_of(spec) for spec in specs])
            needs = first
            if len(groups) > 1:
                file = submission.folder / f"prepare-{number}.json"
                serves = tuple(submission.group_file(group) for group in groups)
                write(file, Work(PREPARE, tuple(lot.shared), Path.cwd(), serves))
                yield self._script(submission, PREPARE, str(file), after=",".join(first)), PREPARE, groups
                needs = [f"afterok:{submission.jobs[-1].id}"]
            files = f"{submission.folder}/group-{{}}.json"
            for start in range(0, len(groups), ARRAY):
                part = groups[start : start + ARRAY]
                array = {"tasks": len(part), "first": part[0], "at_once": self.jobs_at_once}
                place = {"nodes": lot.processes[0], "resources": self._resources(lot)}
                yield self._script(submission, TRAIN, files, after=",".join(needs), **place, **array), TRAIN, part
        if (self.directory / "sweep.json").exists():
            trained = ":".join(job.id for job in submission.jobs_of(TRAIN))
            ending = {"module": "kd_lightning.sweeps.finish", "resources": self.light, "after": f"afterany:{trained}"}
            yield self._script(submission, FINISH, str(self.directory), **ending), FINISH, ()

    def _resources(self, lot: Lot) -> Resources:
        """Those of a training job: a GPU for each of the processes that train a run on a node."""
        gpus, accelerator = self.resources.gpus, lot.jobs[0][0].config["trainer"].get("accelerator")
        return (
            replace(self.resources, gpus=max(gpus, lot.processes[1]))
            if gpus and accelerator != "cpu"
            else self.resources
        )

    def _say(self, submission: Submission, lots: Sequence[Lot]) -> None:
        """Print what would be submitted, with ``<name>`` in place of the numbers that Slurm would give."""
        specs = [spec for lot in lots for spec in lot.jobs]
        for script, kind, groups in self._scripts(submission, lots, [], lambda path, work: None):
            submission.jobs.append(Job(kind, f"<{kind}-{len(submission.jobs)}>", tuple(groups)))
            print(f"# {submission.jobs[-1].id}\n{script.text()}")
            for group in groups if kind == TRAIN else ():
                print(f"# group {group}: {len(specs[group])} run{'s' * (len(specs[group]) > 1)}")
                for spec in specs[group]:
                    print(f"#   {spec.name}: {' '.join(map(shlex.quote, spec.overrides))}")
        print(f"# {_counted(specs)}; nothing was submitted")

    # -- the scripts ---------------------------------------------------------------------------------------------
    def _script(self, submission: Submission, kind: str, argument: str, **more: Any) -> Script:
        name = re.sub(r"[^\w.-]", "_", f"kd-{kind}-{self.directory.name}")
        log_file = submission.folder / (f"{kind}-%A_%a.log" if kind == TRAIN else f"{kind}-%j.log")
        given = {"module": "kd_lightning.running.worker", "resources": self.resources, **more}
        return Script(
            name,
            argument=argument,
            log=log_file,
            cwd=Path.cwd(),
            warn_seconds=self.warn_seconds,
            kills=self.kills,
            **given,
        )


def _counted(jobs: Sequence[Sequence[Any]]) -> str:
    return f"{sum(map(len, jobs))} runs as {len(jobs)} job{'s' * (len(jobs) > 1)}"
