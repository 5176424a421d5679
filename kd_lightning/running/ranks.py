"""One run in several processes (``trainer.devices=4``): this one trains nothing, it starts them and waits.

::

    kd-train ─► holds the directories ─► data, dry pass, teacher, its stored answers ─► starts the processes ─► results
                                                                   │
                         python -m kd_lightning.running.worker FILE, RANK 0 … W-1 ─► train side by side; 0 writes

Whichever falls takes the others with it: they would wait for it for ever. A signal is handed on to all of them.
On several nodes the same command is started on each, with ``NODE_RANK``, ``MASTER_ADDR`` and ``MASTER_PORT`` in its
environment (Slurm's ``SLURM_NODEID`` will do for the first) and one ``run_dir``; those that are not the first only join.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kd_lightning.config.processes import devices_of, nodes_of, processes_of
from kd_lightning.data.loader.threaded_loader import ThreadedLoader
from kd_lightning.errors import RunInterrupted, UserError
from kd_lightning.running.missing_result import failed_result
from kd_lightning.running.present_state import stored_result
from kd_lightning.runs.interrupt import graceful
from kd_lightning.runs.result_file import Result
from kd_lightning.runs.spec import RunSpec
from kd_lightning.runs.work_file import RANK, Work, write_work

log = logging.getLogger(__name__)

DONE, ERROR, MET = "done.jsonl", "rank-{}.error", "met"
"""In the folder of the work file: a line for each run that ended, why a process failed, and that all have met."""
GRACE = 5.0
"""Seconds in which the others may end by themselves after one has failed: often all of them meet the same fault."""
STOP_WITHIN = 120.0
"""Seconds for the step that is under way, and for saving, after a signal; before all processes have met there is neither."""


def trained_by_ranks(specs: Sequence[RunSpec], datamodule: Any, progress: bool) -> Iterator[Result]:
    """Train runs one after the other, each by all processes; what they share is ready, their directories are held.

    Yields:
        each run's result. If a process falls, the run that it was training fails, and the next one is begun anew.

    Raises:
        UserError: the training data cannot be divided among processes.
        RunInterrupted: a signal asked to stop; the state is kept.
    """
    require_shards(datamodule)
    left = list(specs)
    while left:
        team = Team(left, progress)
        for result in team.results():
            left = [spec for spec in left if spec.name != result["name"]]
            yield result
        if team.interrupted:
            raise RunInterrupted("stopped: the processes have kept the state")
        if left:
            fallen = left.pop(0)
            error = UserError(f"{team.cause()}; the last checkpoint is kept: the same command goes on from it")
            log.error("%s: %s", fallen.name, error)
            yield failed_result(fallen, error)


def join_ranks(specs: Sequence[RunSpec]) -> Iterator[Result]:
    """The processes of a node that is not the first: they train along; results are the first node's."""
    host, port = os.environ.get("MASTER_ADDR", ""), int(os.environ.get("MASTER_PORT") or 0)
    log.info("node %d waits for %s:%d", node_rank(), host, port)
    while not _answers(host, port):
        time.sleep(0.2)
    team = Team(specs, progress=False)
    yield from team.results()
    if team.interrupted:
        raise RunInterrupted("stopped: the first node has kept the state")


def require_meeting_place(spec: RunSpec) -> None:
    """Stop before anything is made where the nodes of a run would wait for each other for ever.

    Raises:
        UserError: the run takes several nodes, and the environment does not say where they meet.
    """
    known = os.environ.get("MASTER_ADDR") and os.environ.get("MASTER_PORT")
    numbered = os.environ.get("NODE_RANK") or os.environ.get("SLURM_NODEID")
    if nodes_of(spec.config["trainer"]) > 1 and not (known and numbered):
        raise UserError(
            f"trainer.num_nodes={nodes_of(spec.config['trainer'])}: set MASTER_ADDR (the first node's address), MASTER_PORT and "
            "NODE_RANK (0, 1, …) on each node and start the same command there, or use launcher=slurm"
        )


def joins(spec: RunSpec) -> bool:
    """Whether this node trains along with the first one, which holds the run's directory and writes its files."""
    return nodes_of(spec.config["trainer"]) > 1 and node_rank() > 0


def node_rank() -> int:
    """Number of this node among those that train a run together."""
    return int(os.environ.get("NODE_RANK") or os.environ.get("SLURM_NODEID") or 0)


def require_shards(datamodule: Any) -> None:
    """Stop where each process would read all of the data.

    Raises:
        UserError: the loader is not one of ours, which divide the samples among processes.
    """
    loader = datamodule.train_dataloader()
    if not isinstance(loader, ThreadedLoader):
        raise UserError(
            f"trainer.devices: the data's loader is a {type(loader).__name__}, of which each process would read every "
            "sample: return a kd_lightning.data.loader.threaded_loader.ThreadedLoader, or train in one process"
        )


class Team:
    """The processes on this node that train some runs.

    Args:
        specs: the runs, with equal trainer settings.
        progress: the first of them shows how far it is.
    """

    def __init__(self, specs: Sequence[RunSpec], progress: bool) -> None:
        self._specs = list(specs)
        trainer = specs[0].config["trainer"]
        self._here, self._world = devices_of(trainer.get("devices")), processes_of(trainer)
        self._progress = progress
        self._folder = Path()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._fallen: tuple[int, int] | None = None  # the first that fell: its number on this node, its exit code
        self._error = ""
        self.interrupted = False

    def results(self) -> Iterator[Result]:
        """Start the processes and yield each run's result; over when all have ended."""
        self._folder = Path(tempfile.mkdtemp(prefix="kd-ranks-"))
        try:
            with graceful(self._pass_on):
                self._start()
                yield from self._watch()
        finally:
            for process in self._processes:
                if process.poll() is None:
                    process.kill()
                process.wait()
                if process.stdin is not None:
                    process.stdin.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def cause(self) -> str:
        """Why a run did not come to its end."""
        if self._fallen is None:
            return "the processes ended before the run did"
        number, code = self._fallen
        who = f"process {number} of {self._world}"
        if code < 0:
            hint = " (out of memory?)" if -code == signal.SIGKILL else ""
            return f"{who} was killed by {signal.Signals(-code).name}{hint}"
        return f"{who}: {self._error}" if self._error else f"{who} ended with exit code {code}"

    def _start(self) -> None:
        work = self._folder / "work.json"
        write_work(work, Work(RANK, tuple(self._specs), Path.cwd()))
        nodes = self._world // self._here
        if nodes > 1 and node_rank() == 0:
            place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            log.info("node 0 of %d waits for the others at %s", nodes, place)
        environment = {**os.environ, "WORLD_SIZE": str(self._world), "NODE_RANK": str(node_rank() if nodes > 1 else 0)}
        if nodes == 1:
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "GLOO_SOCKET_IFNAME": "lo"}
        environment["LOCAL_WORLD_SIZE"] = str(self._here)
        # torch would say at each start that every parameter was used: good to know, and no warning
        environment |= {"TORCH_CPP_LOG_LEVEL": "ERROR"}
        environment["KD_ENDS_WITH_PARENT"] = "1"
        environment["KD_PROGRESS"] = str(int(self._progress))
        command = [sys.executable, "-m", "kd_lightning.running.worker", str(work)]
        for number in range(self._here):
            # a session of its own: Ctrl-C reaches them through us, once
            self._processes.append(
                subprocess.Popen(
                    command,
                    env={**environment, "LOCAL_RANK": str(number)},
                    stdin=subprocess.PIPE,
                    start_new_session=True,
                )
            )

    def _watch(self) -> Iterator[Result]:
        by_dir = {str(spec.run_dir): spec for spec in self._specs}
        told = 0
        until: float | None = None
        while True:
            codes = [process.poll() for process in self._processes]
            lines = _lines(self._folder / DONE)
            for line in lines[told:]:
                spec = by_dir[json.loads(line)]
                result = stored_result(spec)
                yield result if result is not None else failed_result(spec, OSError("its result could not be written"))
            told = len(lines)
            fallen = [(number, code) for number, code in enumerate(codes) if code not in (None, 0)]
            if fallen and self._fallen is None:
                self._fallen = fallen[0]
                error = self._folder / ERROR.format(fallen[0][0])
                said = error.read_text(encoding="utf-8") if error.is_file() else ""
                self._error, _, trace = said.partition("\n")
                if trace:
                    log.error("process %d of %d:\n%s", fallen[0][0], self._world, trace.rstrip())
                until = until or time.monotonic() + GRACE
            if None not in codes:
                return
            if self.interrupted and until is None:
                until = time.monotonic() + (STOP_WITHIN if (self._folder / MET).exists() else GRACE)
            if until is not None and time.monotonic() > until:
                return
            time.sleep(0.02)

    def _pass_on(self) -> None:
        self.interrupted = True
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)


def _lines(path: Path) -> list[str]:
    """The whole lines of a file that another process appends to."""
    if not path.is_file():
        return []
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def _free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=2):
            return True
    except OSError:
        return False
