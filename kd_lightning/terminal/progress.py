"""One live display for runs that train in lockstep: a row each, and how far the group is.

On a terminal it is a table that is redrawn at most four times a second, and more rarely where drawing is slow, so that
it stays below half a percent of the time. Elsewhere it prints one line an epoch. A terminal that goes away ends the
display, never the training.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import pytorch_lightning as pl
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kd_lightning.metrics.metric import Metric
from kd_lightning.metrics.show import with_unit

SHORTEST_PAUSE = 0.25
"""Seconds between two drawings."""
LARGEST_SHARE = 0.005
"""Of the time that may be spent on drawing."""

WAITING, RUNNING, FINISHED = "waiting", "running", "finished"
COLOURS = {
    RUNNING: "cyan",
    FINISHED: "green",
    "stopped": "green",
    "pruned": "yellow",
    "failed": "red",
    "diverged": "red",
}
_FIRST = {RUNNING: 0, "failed": 1, "diverged": 1}


class SteadyConsole(Console):
    """Falls silent when nobody reads it any more; rich's own console ends the process, which no ``| head`` may."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


@dataclass
class _Row:
    name: str
    status: str = WAITING
    epoch: int = 0
    best: float | None = None
    value: float | None = None


class GroupProgress(pl.Callback):
    """Shows runs in training. Use it as a context manager, as a callback of the Trainer, or as both.

    As a context manager it is told everything by :meth:`update`; as a callback it also knows the position in the epoch.

    Args:
        member_names: the runs, in the order of their rows.
        epochs: that each run trains; None: taken from the Trainer, if it is a callback of one.
        console: where to draw; None: standard output.
    """

    def __init__(self, member_names: Sequence[str], epochs: int | None = None, console: Console | None = None) -> None:
        self.rows = {name: _Row(name) for name in member_names}
        self.epochs = epochs
        self.console = console or SteadyConsole()
        self._metric: Metric | None = None
        self._live: Live | None = None
        self._undo = contextlib.ExitStack()
        self._entered = False
        self._told_epoch = 0
        self._fraction = 0.0
        self._first: tuple[float, float] | None = None  # time and fraction when something was first known
        self._next = 0.0

    # -- what happens --------------------------------------------------------------------------------------------
    def update(
        self,
        name: str,
        *,
        epoch: int | None = None,
        metric: Metric | None = None,
        value: float | None = None,
        status: str | None = None,
        best: float | None = None,
        epochs: int | None = None,
    ) -> None:
        """Take note of what a run has reached.

        Args:
            name: one of the members.
            epoch: epochs done.
            metric: the one that chooses the best checkpoint.
            value: what it was in the last validation.
            status: "running", "finished", "stopped", "diverged", "failed", "interrupted" …
            best: best value of that metric so far.
            epochs: that the run trains in all.
        """
        row = self.rows.setdefault(name, _Row(name))
        if epochs is not None:
            self.epochs = epochs
        self._metric = self._metric or metric
        if value is not None:
            row.value = value
        if best is not None:
            row.best = best
        if epoch is not None:
            row.epoch = epoch
            if self.epochs:
                self._moved(min(1.0, epoch / self.epochs))
        if status is not None and status != row.status:
            row.status = status
            if not self.console.is_terminal and status in ("failed", "diverged"):
                self._print(f"{name}: {status}")
        if self.console.is_terminal:
            self.refresh()
        else:
            self._tell_epoch()

    def refresh(self, force: bool = False) -> None:
        """Draw, unless that was done a moment ago."""
        now = time.monotonic()
        if self._live is None or (now < self._next and not force):
            return
        try:
            self._live.update(self._table(), refresh=True)
        except (OSError, UnicodeError):  # the terminal is gone, or cannot show it
            self.stop()
            return
        spent = time.monotonic() - now
        self._next = now + max(SHORTEST_PAUSE, spent / LARGEST_SHARE)

    # -- as a context manager ------------------------------------------------------------------------------------
    def __enter__(self) -> GroupProgress:
        self._entered = True
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for row in self.rows.values():
            if row.status == RUNNING:
                row.status = FINISHED if kind is None else "interrupted"
        self._entered = False
        self.stop()

    def start(self) -> None:
        """Begin to draw, and send what others print and log meanwhile above the table."""
        if self._live is not None or not self.console.is_terminal:
            return
        before = (sys.stdout, sys.stderr)
        self._live = Live(self._table(), console=self.console, auto_refresh=False, vertical_overflow="crop")
        self._live.start()
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream in before:
                self._undo.callback(handler.setStream, handler.stream)
                handler.setStream(sys.stderr if handler.stream is before[1] else sys.stdout)

    def stop(self) -> None:
        """Draw for the last time and give the terminal back, cursor and all. May be called twice."""
        live, self._live = self._live, None
        self._undo.close()
        if live is None:
            return
        try:
            live.update(self._table(), refresh=False)
            live.stop()
        except (OSError, UnicodeError):
            with contextlib.suppress(OSError):
                self.console.show_cursor(True)

    # -- as a callback -------------------------------------------------------------------------------------------
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            self.console.quiet = True
            return
        if trainer.max_epochs and trainer.max_epochs > 0:
            self.epochs = trainer.max_epochs
        self.start()

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if time.monotonic() < self._next or self._live is None:
            return
        batches = trainer.num_training_batches
        if self.epochs and 0 < batches < float("inf"):
            self._moved((trainer.current_epoch + (args[-1] + 1) / batches) / self.epochs)
        self.refresh()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if not self._entered:
            self.__exit__(type(exception), exception, None)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if not self._entered:
            self.__exit__(None, None, None)

    # -- what is shown -------------------------------------------------------------------------------------------
    def _moved(self, fraction: float) -> None:
        if self._first is None:
            self._first = (time.monotonic(), fraction)
        self._fraction = max(self._fraction, fraction)

    def _seconds_left(self) -> float | None:
        if self._first is None or self._fraction <= self._first[1]:
            return None
        since, start = self._first
        return (time.monotonic() - since) * (1 - self._fraction) / (self._fraction - start)

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for i, heading in enumerate(("run", "status", "epoch", self._heading, "best", "left")):
            table.add_column(heading, justify="left" if i < 2 else "right", no_wrap=True, overflow="ellipsis")
        room = max(4, self.console.height - 4)
        rows = list(self.rows.values())
        if len(rows) > room:
            rows = sorted(rows, key=lambda row: _FIRST.get(row.status, 2))[: room - 1]
        left = _clock(self._seconds_left())
        for row in rows:
            colour = COLOURS.get(row.status, "dim")
            table.add_row(
                Text(row.name),
                Text(row.status, style=colour),
                f"{row.epoch}/{self.epochs}" if self.epochs else str(row.epoch),
                self._figure(row.value),
                self._figure(row.best),
                left if row.status == RUNNING else "",
            )
        if len(rows) < len(self.rows):
            table.add_row(Text(f"\u2026 and {len(self.rows) - len(rows)} more", style="dim"))
        return table

    def _tell_epoch(self) -> None:
        """Print a line as soon as every run that still trains has reached the next epoch."""
        epochs = [row.epoch for row in self.rows.values() if row.status in (WAITING, RUNNING)]
        if not epochs or min(epochs) <= self._told_epoch:
            return
        self._told_epoch = min(epochs)
        of = f"/{self.epochs}" if self.epochs else ""
        left = self._seconds_left()
        ending = f"  {_clock(left)} left" if left else ""
        self._print(f"epoch {self._told_epoch}{of}  {self._in_one_line()}{ending}".rstrip())

    def _in_one_line(self) -> str:
        seen = [(row, row.value) for row in self.rows.values() if row.status == RUNNING and row.value is not None]
        name = self._heading
        if self._metric is None:  # nothing is validated
            return ""
        if len(seen) <= 2:
            values = [(row.name, self._figure(value), self._figure(row.best)) for row, value in seen]
            return "  ".join(f"{run}: {name} {value} (best {best})" for run, value, best in values)
        lowest, highest = (self._figure(end(value for _, value in seen)) for end in (min, max))
        return f"{len(seen)} runs: {name} from {lowest} to {highest}"

    @property
    def _heading(self) -> str:
        return f"val {self._metric.heading}" if self._metric else "val"

    def _figure(self, value: float | None) -> str:
        return with_unit(self._metric, value) if self._metric else ""

    def _print(self, line: str) -> None:
        with contextlib.suppress(OSError):  # a closed pipe
            self.console.print(line, soft_wrap=True, highlight=False, markup=False)


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
