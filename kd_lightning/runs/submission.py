"""What was handed to a cluster, as files in the sweep's directory: which runs are in which job, and what they need.

::

    SWEEP_DIR/.jobs/001/            one folder a submission
      submission.json               jobs with their numbers, the runs of each group, the launcher's keys
      group-0000.json …             work files (kd_lightning.runs.work_file), one a job: runs that train side by side
      prepare-0.json …              what several of them share: teacher, its stored answers
      *.sbatch *.log                what the scheduler was given, what the jobs say

Everything about a sweep that runs elsewhere is answered from these files, the runs' own and the scheduler's queue, by
any process on any machine that sees the directory. Light: no torch here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kd_lightning.errors import UserError
from kd_lightning.runs.atomic import write_atomically
from kd_lightning.runs.spec import RunSpec
from kd_lightning.runs.work_file import PREPARE, TRAIN, read_work

JOBS = ".jobs"
FILE = "submission.json"
FINISH = "finish"


@dataclass(frozen=True)
class Job:
    """A job, or an array of jobs, that the scheduler was given.

    Attributes:
        kind: :data:`TRAIN` (an array: its k-th task computes the k-th of ``groups``), :data:`PREPARE` or :data:`FINISH`.
        id: the scheduler's number of it.
        groups: numbers of the groups that it computes or serves.
    """

    kind: str
    id: str
    groups: tuple[int, ...] = ()

    @property
    def task_ids(self) -> dict[str, int]:
        """The group of each task of an array, by the scheduler's name of the task."""
        return {f"{self.id}_{position}": group for position, group in enumerate(self.groups)}


@dataclass
class Submission:
    """One submission of runs.

    Attributes:
        folder: where its files are.
        launcher: arguments of the executor that made it.
        groups: the runs of each group: their directories relative to the sweep's.
        jobs: in the order in which they were submitted.
        target: dotted name of the executor's class.
    """

    folder: Path
    target: str
    launcher: dict[str, Any]
    groups: list[list[str]] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)

    @property
    def directory(self) -> Path:
        """The sweep's directory."""
        return self.folder.parent.parent

    def group_file(self, number: int) -> Path:
        return self.folder / f"group-{number:04d}.json"

    def save(self) -> None:
        content = {"format": 1, **asdict(self), "folder": None}
        write_atomically(self.folder / FILE, json.dumps(content, indent=1))

    def jobs_of(self, kind: str) -> list[Job]:
        return [job for job in self.jobs if job.kind == kind]

    def task_of_group(self) -> dict[int, str]:
        """The scheduler's name of the task that computes each group."""
        return {group: task for job in self.jobs_of(TRAIN) for task, group in job.task_ids.items()}

    def log_of(self, group: int) -> Path:
        """What the job of a group writes, named by the scheduler's name of it where there is one."""
        return self.folder / f"{TRAIN}-{self.task_of_group().get(group, f'{group:04d}')}.log"

    def name_of(self, spec: RunSpec) -> str:
        """How a run is called in :attr:`groups`."""
        try:
            return spec.run_dir.resolve().relative_to(self.directory).as_posix()
        except ValueError:
            return str(spec.run_dir)

    def prepared_by(self, group: int) -> Job | None:
        return next((job for job in self.jobs_of(PREPARE) if group in job.groups), None)


def new_submission(directory: Path, target: str, launcher: Mapping[str, Any]) -> Submission:
    """The next submission of a sweep; nothing is written yet."""
    numbers = [int(path.name) for path in (directory / JOBS).glob("[0-9]*") if path.name.isdigit()]
    return Submission(directory / JOBS / f"{max(numbers, default=0) + 1:03d}", target, dict(launcher))


def read_submissions(directory: Path) -> list[Submission]:
    """All submissions of a sweep, oldest first; one that was cut short before it was written is left out.

    Raises:
        UserError: a file is damaged.
    """
    found = []
    for path in sorted((directory / JOBS).glob(f"[0-9]*/{FILE}"), key=lambda path: int(path.parent.name)):
        try:
            content = json.loads(path.read_bytes())
            if content.pop("format") != 1:
                raise ValueError("made by another version")
            jobs = [Job(job["kind"], str(job["id"]), tuple(job["groups"])) for job in content["jobs"]]
            found.append(Submission(**{**content, "folder": path.parent, "jobs": jobs}))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} cannot be read ({error}): remove its folder, and start the sweep again") from error
    return found


def submitted_specs(submissions: Sequence[Submission]) -> Iterator[RunSpec]:
    """Every run that was submitted, once, as it was submitted last."""
    newest = {
        run: (submission, n) for submission in submissions for n, runs in enumerate(submission.groups) for run in runs
    }
    files = dict.fromkeys(submission.group_file(number) for submission, number in newest.values())
    seen = {}
    for file in files:
        for spec in read_work(file).specs:
            seen[spec.run_dir] = spec
    yield from seen.values()
