"""The runs of a sweep on the devices of this machine: one process a device, each with some runs side by side.

::

    groups ─► what they share (data, teacher, its stored answers) is made here, once
           ─► jobs of nearly equal size ─► device 0: job, job …      results come from the runs' files
                                           device 1: job, job …

A process is told its device by ``CUDA_VISIBLE_DEVICES``. Without a GPU the processes share the processor.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from kd_lightning.config.processes import devices_of
from kd_lightning.errors import RunInterrupted, UserError
from kd_lightning.running.executors.dividing import AT_MOST, Lot, divided
from kd_lightning.running.executors.from_files import DONE, INTERRUPTED, FromFiles
from kd_lightning.running.prepare import prepare
from kd_lightning.runs.interrupt import AGAIN, FRUITLESS, STOPPED
from kd_lightning.runs.result_file import Result
from kd_lightning.runs.spec import RunSpec
from kd_lightning.runs.work_file import TRAIN, Work, write_work

log = logging.getLogger(__name__)

STOP_WITHIN = 120.0
"""Seconds for a step that is under way, and for saving, after a signal."""


def number_of_devices(wanted: int | str) -> int:
    """How many devices ``launcher.devices`` means.

    Raises:
        UserError: it is no number of devices, or more than this machine has.
    """
    import torch

    here = torch.cuda.device_count()
    if wanted == "all":
        return max(1, here)
    if isinstance(wanted, bool) or not str(wanted).isdigit() or int(wanted) < 1:
        raise UserError(f"launcher.devices={wanted}: give a number of devices, or all")
    if 0 < here < int(wanted):
        raise UserError(f"launcher.devices={wanted}: this machine has {here} (launcher.devices=all)")
    return int(wanted)


class DevicesHandle:
    """A group whose runs are computed by processes of this machine.

    Args:
        specs: the runs.
        pool: the processes.
    """

    def __init__(self, specs: Sequence[RunSpec], pool: Pool) -> None:
        self._files = FromFiles(specs)
        self._pool = pool

    def results(self) -> Iterator[Result]:
        self._pool.begin()
        yield from self._files.results(self._pool.ended)
        if self._pool.stopped:
            raise RunInterrupted("stopped: the processes have kept the state")

    def cancel(self) -> None:
        """Stop what runs, after its step; the state is kept."""
        self._pool.stop()


def on_devices(groups: Iterable[Sequence[RunSpec]], devices: int) -> list[DevicesHandle]:
    """One handle a group; the first one that is asked for results starts the processes."""
    groups = [list(group) for group in groups]
    pool = Pool(groups, devices)
    return [DevicesHandle(group, pool) for group in groups]


class Pool:
    """One process a device at a time, until all jobs are done.

    Args:
        groups: of runs that can train in lockstep.
        devices: how many of this machine's are used.
    """

    def __init__(self, groups: Sequence[Sequence[RunSpec]], devices: int) -> None:
        self._each = devices_of(groups[0][0].config["trainer"].get("devices")) if groups else 1
        self._places = _places(devices, self._each)
        total = sum(map(len, groups))
        self._lots: list[Lot] = divided(groups, max(1, min(AT_MOST, math.ceil(total / len(self._places)))))
        self._waiting: list[list[RunSpec]] = []
        self._running: dict[str, tuple[list[RunSpec], subprocess.Popen[bytes]]] = {}  # by place
        self._how: dict[Path, str] = {}  # runs whose job has ended, and how
        self._folder: Path | None = None
        self._started = 0
        self.stopped = False

    def begin(self) -> None:
        """Make what the runs share, and start the first processes; a second call changes nothing."""
        if self._folder is not None:
            return
        self._folder = Path(tempfile.mkdtemp(prefix="kd-devices-"))
        for lot in self._lots:
            try:
                if len(lot.jobs) > 1:
                    prepare(lot.shared)
            except UserError as error:  # each of its runs meets it again, and says so in its own directory
                log.debug("%s", error)
            self._waiting += lot.jobs
        self._fill()

    def ended(self, runs: Sequence[Path]) -> dict[Path, str]:
        """Of these runs, those whose job has ended, and how; jobs that wait take the places that are free."""
        for place, (specs, process) in list(self._running.items()):
            code = process.poll()
            if code is not None:
                del self._running[place]
                self._how |= dict.fromkeys((spec.run_dir for spec in specs), self._meaning(code))
        self._fill()
        if not self._running and not self._waiting and self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        return {path: self._how[path] for path in runs if path in self._how}

    def stop(self) -> None:
        """Ask the processes to save and end; those that do not are ended."""
        self.stopped = True
        for specs in self._waiting:
            self._how |= dict.fromkeys((spec.run_dir for spec in specs), INTERRUPTED)
        self._waiting.clear()
        processes = [process for _, process in self._running.values()]
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        until = time.monotonic() + STOP_WITHIN
        for process in processes:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _fill(self) -> None:
        for place in self._places:
            if self._waiting and place not in self._running:
                specs = self._waiting.pop(0)
                self._running[place] = (specs, self._start(specs, place))

    def _start(self, specs: Sequence[RunSpec], place: str) -> subprocess.Popen[bytes]:
        assert self._folder is not None
        work = self._folder / f"work-{self._started}.json"
        self._started += 1
        write_work(work, Work(TRAIN, tuple(specs), Path.cwd()))
        environment = {**os.environ, "KD_ENDS_WITH_PARENT": "1"}
        if _visible():
            environment["CUDA_VISIBLE_DEVICES"] = place
        names = f"{specs[0].name} …" if len(specs) > 1 else specs[0].name
        log.info("%d runs (%s) on device %s", len(specs), names, place)
        command = [sys.executable, "-m", "kd_lightning.running.worker", str(work)]
        # a session of its own: Ctrl-C reaches it through us, once
        return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, start_new_session=True)

    def _meaning(self, code: int) -> str:
        if code in (AGAIN, FRUITLESS, STOPPED) or self.stopped:
            return INTERRUPTED
        if code < 0:
            return f"its process was killed by {signal.Signals(-code).name}"
        return DONE


def _visible() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given:
        return given.split(",")
    return [str(number) for number in range(torch.cuda.device_count())]


def _places(devices: int, each: int) -> list[str]:
    """What each process is given: one device, or as many as ``trainer.devices`` wants for one run."""
    names = _visible()[:devices] or [str(number) for number in range(devices)]
    places = [",".join(names[start : start + each]) for start in range(0, len(names) - each + 1, each)]
    if not places:
        raise UserError(f"trainer.devices={each} for each run, and launcher.devices={devices} for all of them")
    return places
