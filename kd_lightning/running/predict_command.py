"""``kd-predict``: what a run's student says of files, written row by row."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

from kd_lightning.errors import UserError
from kd_lightning.running.open_run import OpenRun
from kd_lightning.running.predict_inputs import GivenInputs, Sample
from kd_lightning.running.predict_masks import predict_masks
from kd_lightning.running.predict_rows import FORMATS, Rows
from kd_lightning.tasks.classification import ClassificationTask
from kd_lightning.tasks.regression import RegressionTask
from kd_lightning.tasks.segmentation import SegmentationTask


@dataclass(frozen=True)
class PredictOptions:
    """The command's ``key=value`` words.

    Attributes:
        format: csv or json; None: json where ``output`` ends in ``.json`` or ``.jsonl``, else csv.
        output: file to write; None: printed. Of masks: the folder that they go into.
        top: classes that are named for each input, >= 1; None: three.
        batch_size: samples that are computed at once, >= 1.
        overlay: of masks: pictures with their colours beside them.
    """

    format: str | None = None
    output: str | None = None
    top: int | None = None
    batch_size: int = 64
    overlay: bool = False

    def __post_init__(self) -> None:
        if self.format not in (None, *FORMATS):
            raise UserError(f"format must be {' or '.join(FORMATS)}, got {self.format!r}")
        for key, value in (("top", self.top), ("batch_size", self.batch_size)):
            if value is not None and value < 1:
                raise UserError(f"{key} must be >= 1, got {value}")

    @property
    def form(self) -> str:
        """csv or json."""
        json_file = self.output is not None and self.output.lower().endswith((".json", ".jsonl"))
        return self.format or ("json" if json_file else "csv")


def predict_files(run: OpenRun, inputs: Sequence[str], options: PredictOptions) -> int:
    """Write a row for each input; say on stderr which could not be read.

    Returns:
        0, or 1 where inputs were left out.

    Raises:
        UserError: there is nothing to read, or no place to write to.
    """
    if run.task == SegmentationTask.name:
        for key, value in (("format", options.format), ("top", options.top)):
            if value is not None:
                raise UserError(f"{key}={value}: is for rows; this run answers with masks, which are PNG files")
        return predict_masks(run, inputs, options.output, options.overlay, options.batch_size)
    if options.overlay:
        raise UserError("overlay=true: is for masks; this run answers with rows")
    given = GivenInputs(run, inputs)
    progress = _Progress(given.total, options.output is not None)
    skipped = 0
    with _opened(options.output) as stream, ThreadPoolExecutor(min(16, os.cpu_count() or 1), "kd-read") as pool:
        rows = Rows(
            stream,
            options.form,
            options.top or 3,
            run.task == ClassificationTask.name,
            run.class_names,
            run.value_names,
        )
        samples = iter(given)
        while batch := list(itertools.islice(samples, options.batch_size)):
            read = list(pool.map(_read, batch))
            for made in read:
                if isinstance(made, str):
                    progress.clear()
                    print(f"skipped: {made}", file=sys.stderr)
                    skipped += 1
            good = [(one.name, made) for one, made in zip(batch, read, strict=True) if isinstance(made, Tensor)]
            for names, together in _alike(good, given.together):
                rows.write(names, _with_deviations(run, together, options.batch_size))
            progress.advance(len(batch))
    progress.clear()
    for note in given.notes:
        print(f"note: {note}", file=sys.stderr)
    return 1 if skipped else 0


def _with_deviations(run: OpenRun, inputs: Any, batch_size: int) -> Tensor:
    """Values, behind them their standard deviations where the student says some."""
    values = run.predict(inputs, batch_size)
    if run.task != RegressionTask.name:
        return values
    deviations = run.deviations(inputs, batch_size)
    return values if deviations is None else torch.cat([values, deviations], 1)


def _read(sample: Sample) -> Tensor | str:
    """Its input, or what is wrong with it."""
    try:
        made = sample.read()
    except UserError as error:
        return str(error)
    finite = not made.is_floating_point() or bool(made.isfinite().all())
    return made if finite else f"{sample.name} holds values that are no finite numbers"


def _alike(
    samples: Sequence[tuple[str, Tensor]], together: Callable[[Sequence[Tensor]], Any]
) -> Iterator[tuple[list[str], Any]]:
    """Neighbours of the same type as one batch: a picture's are floats, an array's may be bytes."""
    for _, group in itertools.groupby(samples, lambda sample: sample[1].dtype):
        names, inputs = zip(*group, strict=True)
        yield list(names), together(inputs)


@contextlib.contextmanager
def _opened(output: str | None) -> Iterator[TextIO]:
    """Where rows go: stdout, or a file beside ``output`` that takes its place when it is whole."""
    if output is None:
        yield sys.stdout
        return
    path = Path(output)
    partly = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        file = open(partly, "w", encoding="utf-8", newline="")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"output={output} cannot be written: {error.strerror or error}") from error
    try:
        with file:
            yield file
        partly.replace(path)
    except BaseException:
        partly.unlink(missing_ok=True)
        raise


class _Progress:
    """``128 of 1,000`` on a terminal, where the rows do not go to it as well; elsewhere nothing."""

    def __init__(self, total: int | None, to_file: bool) -> None:
        self._of = "" if total is None else f" of {total:,}"
        self._shown = sys.stderr.isatty() and (to_file or not sys.stdout.isatty())
        self._done = 0

    def advance(self, samples: int) -> None:
        self._done += samples
        if self._shown:
            print(f"\r{self._done:,}{self._of}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Leave the line to what comes next."""
        if self._shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
