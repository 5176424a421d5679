"""Groups of runs as tasks of a Ray cluster: what they share is made first, by a task of its own.

The command stays, as the tasks' owner: Ray ends them with it. Started again, it goes on where they were. A task whose
worker or node is lost is started again by Ray, and goes on where it was.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kd_lightning.errors import NothingRun, UserError
from kd_lightning.joints import Handle
from kd_lightning.running.executors.dividing import Lot, divided
from kd_lightning.running.executors.from_files import DONE, INTERRUPTED, FromFiles
from kd_lightning.running.worker import work
from kd_lightning.runs.interrupt import AGAIN, FRUITLESS, STOPPED
from kd_lightning.runs.result_file import Result
from kd_lightning.runs.spec import RunSpec
from kd_lightning.runs.submission import PREPARE, TRAIN, new_submission
from kd_lightning.runs.work_file import Work, write_work

log = logging.getLogger(__name__)

LOOPBACK = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_OVERRIDE_NODE_IP_ADDRESS": "127.0.0.1",
    "RAY_grpc_server_address": "127.0.0.1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""With these a Ray that is started here listens to this machine only; it would listen on every address otherwise."""


class RayExecutor:
    """Computes runs on a Ray cluster. ``conf/launcher/ray.yaml`` explains the arguments.

    Args:
        directory: the sweep's, or the single run's, where the files of the jobs go: on a file system of all nodes.
    """

    fuse = True

    def __init__(
        self,
        runs_per_job: int | None = None,
        address: str = "auto",
        gpus: float = 1,
        cpus: float = 1,
        memory: float | None = None,
        restarts: int = 3,
        dry_run: bool = False,
        directory: str | None = None,
    ) -> None:
        self.arguments = {key: value for key, value in locals().items() if key not in ("self", "directory", "dry_run")}
        self.runs_per_job, self.address, self.dry_run = runs_per_job, address, dry_run
        self.options: dict[str, Any] = {"num_gpus": gpus, "num_cpus": cpus, "max_retries": restarts}
        if memory is not None:
            self.options["memory"] = int(memory * 2**30)
        self.directory = Path(directory or ".").resolve()

    def submit(self, groups: Iterable[Sequence[RunSpec]], after: Sequence[Handle] = ()) -> list[RayHandle]:
        """Write the work files and hand them to Ray.

        Raises:
            UserError: Ray isn't installed, or no cluster is there.
            NothingRun: ``dry_run``: the groups were printed.
        """
        groups = [list(group) for group in groups]
        if not groups:
            return []
        lots = divided(groups, self.runs_per_job)
        if self.dry_run:
            self._say(lots)
            raise NothingRun
        ray = self._connected()
        submission = new_submission(
            self.directory, "kd_lightning.running.executors.ray_cluster.RayExecutor", self.arguments
        )
        submission.folder.mkdir(parents=True)
        task = ray.remote(**self.options)(do_work)
        before = [ref for handle in after if isinstance(handle, RayHandle) for ref in handle.tasks.values()]
        refs: dict[Path, Any] = {}
        for number, lot in enumerate(lots):
            first = len(submission.groups)
            for position, specs in enumerate(lot.jobs):
                write_work(submission.group_file(first + position), Work(TRAIN, tuple(specs), Path.cwd()))
                submission.groups.append([submission.name_of(spec) for spec in specs])
            submission.save()
            files = [submission.group_file(first + position) for position in range(len(lot.jobs))]
            needs = list(before)
            if len(files) > 1:
                file = submission.folder / f"{PREPARE}-{number}.json"
                write_work(file, Work(PREPARE, tuple(lot.shared), Path.cwd(), tuple(files)))
                needs = [task.options(name=f"kd {PREPARE}").remote(str(file), str(file.with_suffix(".log")), *before)]
            for position, (file, specs) in enumerate(zip(files, lot.jobs, strict=True)):
                log_file = submission.log_of(first + position)
                ref = task.options(name=f"kd {TRAIN} {first + position}").remote(str(file), str(log_file), *needs)
                refs |= dict.fromkeys((spec.run_dir for spec in specs), ref)
        log.info("%d runs given to Ray as %d tasks", sum(map(len, groups)), len(submission.groups))
        return [RayHandle(group, {spec.run_dir: refs[spec.run_dir] for spec in group}) for group in groups]

    def _connected(self) -> Any:
        address = os.environ.get("RAY_ADDRESS", "") if self.address == "auto" else self.address
        here: dict[str, Any] = {}
        if address.startswith(("local", "127.")):  # Ray would put the machine's outer address in place of 127.0.0.1
            for name, value in LOOPBACK.items():  # some of them are read when it is imported
                os.environ.setdefault(name, value)
            here = {"_node_ip_address": "127.0.0.1"} | ({"include_dashboard": False} if address == "local" else {})
        try:
            import ray
        except ImportError as error:
            raise UserError('launcher=ray: Ray is not installed: pip install "kd-lightning[ray]"') from error
        if ray.is_initialized():
            return ray
        host, _, port = address.rpartition(":")
        try:
            if host and port.isdigit():  # Ray itself tries for minutes
                socket.create_connection((host, int(port)), timeout=10).close()
            ray.init(address=self.address, log_to_driver=False, logging_level=logging.WARNING, **here)
        except (OSError, ValueError, RuntimeError) as error:
            line = " ".join(str(error).split())[:200]
            raise UserError(
                f"launcher.address={self.address}: no Ray cluster ({line}): start one (ray start --head), give its "
                "address, or launcher.address=local for this machine alone"
            ) from error
        return ray

    def _say(self, lots: Sequence[Lot]) -> None:
        jobs = [specs for lot in lots for specs in lot.jobs]
        for number, specs in enumerate(jobs):
            print(f"task {number}: {self.options}")
            for spec in specs:
                print(f"  {spec.name}: {' '.join(spec.overrides)}")
        print(f"{sum(map(len, jobs))} runs as {len(jobs)} tasks; nothing was started")


class RayHandle:
    """A group of runs in Ray's hands.

    Args:
        specs: the runs.
        tasks: Ray's reference to the task that computes each, by run directory.
    """

    def __init__(self, specs: Sequence[RunSpec], tasks: dict[Path, Any]) -> None:
        self.tasks = tasks
        self._files = FromFiles(specs)
        self._over: dict[Any, str] = {}

    def results(self) -> Iterator[Result]:
        return self._files.results(self._ended)

    def cancel(self) -> None:
        """Stop the tasks as Ctrl-C would: they save after the step that they are at."""
        import ray

        for task in dict.fromkeys(self.tasks.values()):
            ray.cancel(task)

    def _ended(self, runs: Sequence[Path]) -> dict[Path, str]:
        import ray

        waiting = [task for task in dict.fromkeys(self.tasks[run] for run in runs) if task not in self._over]
        ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0) if waiting else ([], [])
        for task in ready:
            self._over[task] = _how(ray, task)
        return {run: self._over[self.tasks[run]] for run in runs if self.tasks[run] in self._over}


def do_work(file: str, log_file: str, *needed: int) -> int:
    """In a process of Ray's: do what a work file says, unless what it needs could not be made; the exit code."""
    if any(needed):
        return max(needed)
    handler = logging.FileHandler(log_file, encoding="utf-8")
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s] %(message)s", handlers=[handler], force=True)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return work(Path(file))


def _how(ray: Any, task: Any) -> str:
    try:
        code = ray.get(task)
    except ray.exceptions.TaskCancelledError:
        return INTERRUPTED
    except ray.exceptions.RayError as error:
        return f"its task was lost: {' '.join(str(error).split())[:200]}"
    return INTERRUPTED if code in (AGAIN, FRUITLESS, STOPPED) else DONE
