"""kd-train and kd-evaluate in processes of their own, which can be killed.

Each is a real process that runs the command's own entry point; it is forked from one that has the seconds of importing
torch behind it, so that a test can afford many of them, and a kill at a random moment hits work and not imports.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PRELOAD = (
    "processes",
    "sklearn.datasets",
    "torchvision",
    "tensorboard.plugins.hparams.plugin_data_pb2",
    "torch.utils.tensorboard",
    "kd_lightning.sweeps.launch",
    "kd_lightning.sweeps.from_hydra",
    "kd_lightning.running.evaluate",
    "kd_lightning.exporting.export_run",
    "kd_lightning.report.pages.page",
    "kd_lightning.report.pages.sweep_summary",
    "kd_lightning.data.digits",
    "kd_lightning.models.mlp",
    "kd_lightning.models.small_cnn",
    "kd_lightning.tasks.classification",
    "kd_lightning.losses.soft_target",
    "kd_lightning.cli.train",
    "kd_lightning.cli.evaluate",
    "kd_lightning.cli.export",
)

SMALL = (
    "data.num_threads=1",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=3",
    "teacher=mlp",
    "teacher.model.hidden=[48]",
    "teacher.train.max_epochs=2",
    "student.hidden=[16]",
    "pictures.every_n_epochs=0",
)
"""Overrides of a run that takes about a second."""


@dataclass(frozen=True)
class Ended:
    """A process that is over: its exit code (negative: the signal that killed it), what it printed, its seconds."""

    code: int
    text: str
    seconds: float


class Command:
    """A running command."""

    def __init__(self, program: str, arguments: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(PRELOAD))
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the fork server: a thread pool would not survive a fork
        cwd.mkdir(parents=True, exist_ok=True)
        self.output = cwd / f".output-{time.monotonic_ns()}"
        self.output.touch()
        self._process = context.Process(
            target=_become, args=(program, list(arguments), str(cwd), str(self.output), dict(environment))
        )
        self._process.start()
        self._since = time.monotonic()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.exitcode is None

    @property
    def text(self) -> str:
        """What it has printed so far, both streams."""
        return self.output.read_text(errors="replace")

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal, if the process still runs."""
        if self.running:
            os.kill(self.pid, number)

    def wait_for(self, condition: Callable[[], Any], timeout: float = 60) -> None:
        """Return as soon as the condition holds; an AssertionError if the process ends before, or time runs out."""
        until = time.monotonic() + timeout
        while not condition():
            assert self.running, f"ended with {self._process.exitcode} before it came to that:\n{self.text}"
            assert time.monotonic() < until, f"not within {timeout} s:\n{self.text}"
            time.sleep(0.005)

    def wait(self, timeout: float = 120) -> Ended:
        """Wait for its end; kills it and raises AssertionError after ``timeout`` seconds."""
        self._process.join(timeout)
        if self.running:
            self.kill()
            self._process.join()
            raise AssertionError(f"still running after {timeout} s:\n{self.text}")
        return Ended(self._process.exitcode, self.text, time.monotonic() - self._since)


def start(cwd: Path, *arguments: str, program: str = "train", **environment: str) -> Command:
    """Start ``kd-<program> arguments…`` in the directory ``cwd``."""
    return Command(program, arguments, cwd, environment)


def run(cwd: Path, *arguments: str, program: str = "train", timeout: float = 120, **environment: str) -> Ended:
    """Run ``kd-<program> arguments…`` to its end."""
    return start(cwd, *arguments, program=program, **environment).wait(timeout)


def results(directory: Path) -> dict[str, dict[str, Any]]:
    """``result.json`` of all runs below a directory, by run name."""
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(directory.glob("*/result.json"))}


def weights(run_dir: Path, which: str = "best") -> dict[str, bytes]:
    """The weights of a checkpoint, by name, as bytes."""
    import torch

    state = torch.load(run_dir / "checkpoints" / f"{which}.ckpt", weights_only=True)["state_dict"]
    return {name: value.contiguous().numpy().tobytes() for name, value in state.items()}


def lines(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl``."""
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def _become(program: str, arguments: list[str], cwd: str, output: str, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    os.chdir(cwd)
    handle = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", 0, closefd=False), write_through=True)
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", 0, closefd=False), write_through=True)
    sys.argv = [f"kd-{program}", *arguments]
    main = importlib.import_module(f"kd_lightning.cli.{program}").main
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
