"""What ``kd-predict`` was given: pictures, folders of them, tables and arrays, as samples that are read when needed."""

from __future__ import annotations

import csv
import itertools
import math
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_lightning.data.images.decode import ImageError, shown
from kd_lightning.data.images.image_files import EXTENSIONS
from kd_lightning.data.images.picture_files import PictureFiles
from kd_lightning.errors import UserError
from kd_lightning.running.open_run import OpenRun, Preprocessing
from kd_lightning.running.predict_columns import LINES, TABLES, Sample, reader_of_columns

LOOKED_AT = 256
"""Samples of an array that are looked at before it is read: enough to see in what range its numbers are."""
_PYTHON = "make inputs as your data set does, and use kd.open_run(run_dir).predict(inputs) in Python"


class GivenInputs:
    """All samples of some files and folders, in the order in which they were given; a folder's pictures sorted.

    Args:
        run: the finished run.
        paths: pictures, folders, tables, ``.npy``.

    Attributes:
        total: how many samples; None where nobody has counted.
        notes: what a user should know once they are read.

    Raises:
        UserError: a path is not there, a folder has no pictures, the run takes no such inputs.
    """

    def __init__(self, run: OpenRun, paths: Sequence[str]) -> None:
        self.run = run
        found = [(path, kind) for given in paths for path, kind in found_files(given)]
        self._found = found
        self._of_arrays: list[str] = []
        self._named = reader_of_columns(run)
        pictures = [path for path, kind in found if kind == "picture"]
        self.total = len(found) if len(pictures) == len(found) else None
        self._pictures = self._reader(pictures) if pictures else None
        tables = [path for path, kind in found if kind != "picture"]
        if tables and self._named is None:
            self._check_numbers(tables[0], table=any(kind == "table" for _, kind in found))

    @property
    def notes(self) -> list[str]:
        said = [*self._of_arrays, *(self._named.notes if self._named is not None else [])]
        if self._pictures is not None and self._pictures.resized:
            size = self.run.example_shape[-1]
            said.append(
                f"pictures of another size were resized to {size} x {size}, their middle cut out: the run's data were all "
                "of that size"
            )
        return said

    def __iter__(self) -> Iterator[Sample]:
        picture = itertools.count()
        for path, kind in self._found:
            if kind == "picture" and self._pictures is not None:
                yield Sample(shown(path), partial(_picture, self.run, self._pictures, next(picture)))
            elif kind == "table" and self._named is not None:
                yield from self._named(path)
            elif kind == "table":
                yield from _rows(path, self.run.example_shape[0])
            else:
                yield from self.array(path)

    def array(self, path: str) -> Iterator[Sample]:
        """An array's samples, named by their number from 0."""
        shape = self.run.example_shape
        try:
            values = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            yield _problem(path, f"is no array that can be read: {' '.join(str(error).split())}")
            return
        if values.shape == shape:
            values = values[None]
        if values.shape[1:] != shape or values.dtype.kind not in "biuf":
            told = " x ".join(map(str, values.shape))
            wanted = " x ".join(map(str, ("N", *shape)))
            yield _problem(path, f"holds {told} {values.dtype}, the run's inputs are {wanted} numbers")
            return
        self._of_arrays += _not_normalised(path, values[:LOOKED_AT], self.run.preprocessing)
        for row in range(len(values)):
            yield Sample(f"{shown(path)}:{row}", partial(_array_row, values, row))

    def together(self, inputs: Sequence[Tensor]) -> Any:
        """Samples' inputs as one batch for :meth:`OpenRun.predict`: texts padded, others stacked."""
        made = torch.stack(list(inputs)) if self._named is None else self._named.together(inputs)
        return made

    def _reader(self, pictures: Sequence[str]) -> PictureFiles:
        """What reads pictures as the run's evaluation did; a UserError where that is not known."""
        where, preprocessing, shape = self.run.spec.run_dir, self.run.preprocessing, self.run.example_shape
        known, scale = preprocessing.mean is not None and preprocessing.reading is not None, preprocessing.scale
        if not known or scale is None or preprocessing.reading is None:
            raise UserError(
                f"{shown(pictures[0])}: {where} does not say how pictures become its inputs (its result.json has no "
                f"reading, mean and std): {_PYTHON}"
            )
        if len(shape) != 3 or shape[0] not in (1, 3) or shape[1] != shape[2]:
            form = " x ".join(map(str, shape))
            raise UserError(f"{shown(pictures[0])}: the inputs of {where} are {form}, no square pictures: {_PYTHON}")
        return PictureFiles(pictures, shape[0], shape[-1], scale, preprocessing.reading)

    def _check_numbers(self, path: str, table: bool) -> None:
        """Raise a UserError if the run's inputs are not what a file of numbers holds."""
        shape, where = self.run.example_shape, self.run.spec.run_dir
        if table and len(shape) != 1:
            form = " x ".join(map(str, shape))
            raise UserError(f"{shown(path)}: the inputs of {where} are {form}, a table's rows are vectors: {_PYTHON}")
        if len(shape) == 1 and self.run.preprocessing.mean is not None:
            raise UserError(f"{shown(path)}: the data of {where} normalise their rows: {_PYTHON}")


def found_files(given: str) -> list[tuple[str, str]]:
    """Files and their kind; a folder's pictures."""
    path = Path(given)
    if path.is_dir():
        pictures = [
            os.path.join(folder, name)
            for folder, folders, names in os.walk(path)
            for name in names
            if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
        ]
        if not pictures:
            raise UserError(f"{shown(given)}: no pictures in this folder or below it ({', '.join(EXTENSIONS[:3])}, …)")
        return [(picture, "picture") for picture in sorted(pictures)]
    if not path.exists():
        raise UserError(f"{shown(given)}: there is no such file or folder")
    name = path.name.lower()
    return [(given, "table" if name.endswith((*TABLES, LINES)) else "array" if name.endswith(".npy") else "picture")]


def _picture(run: OpenRun, pictures: PictureFiles, index: int) -> Tensor:
    try:
        return run.preprocessing(pictures.read(index))
    except ImageError as error:
        raise UserError(str(error).rsplit("; ", 1)[0]) from error  # what to do about it is said for training


def _rows(path: str, columns: int) -> Iterator[Sample]:
    """A table's rows, named by their line; a first row without any number is a header."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            cells = next(reader, [])
            if any(_number(cell) is not None for cell in cells):
                yield _row(path, 1, cells, columns)
            for cells in reader:
                if cells:
                    yield _row(path, reader.line_num, cells, columns)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        yield _problem(path, f"is no table that can be read: {' '.join(str(error).split())}")


def _row(path: str, line: int, cells: Sequence[str], columns: int) -> Sample:
    name = f"{shown(path)}:{line}"
    values = [_number(cell) for cell in cells]
    if len(cells) != columns:
        return _problem(name, f"has {len(cells)} columns, the run's inputs have {columns}")
    wrong = next((cell for cell, value in zip(cells, values, strict=True) if value is None), None)
    if wrong is not None:
        return _problem(name, f"has {wrong!r}, which is no finite number")
    return Sample(name, partial(torch.tensor, values, dtype=torch.float32))


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _not_normalised(path: str, values: np.ndarray, preprocessing: Preprocessing) -> list[str]:
    """A line where numbers that are taken as normalised pixels look like raw ones: never below 0, and up to 1 or far above white."""
    mean, std = preprocessing.mean, preprocessing.std
    if values.dtype == np.uint8 or not values.size or mean is None or std is None or min(mean) <= 0.05:
        return []
    low, high = float(values.min()), float(values.max())
    black, white = ((end - mean[0]) / std[0] for end in (0, 1))
    if low < 0 or high <= 0 or 1 < high < 1.5 * white:
        return []
    return [
        f"{shown(path)}: numbers from {low:g} to {high:g} were taken as normalised inputs, which go from about {black:.2g} to {white:.2g}; "
        "raw pixels are given as bytes (uint8), which are normalised here"
    ]


def _array_row(values: np.ndarray, row: int) -> Tensor:
    sample = np.array(values[row])  # out of the file, in memory that torch may write to
    return torch.from_numpy(sample.astype(sample.dtype.newbyteorder("=")))


def _problem(name: str, told: str) -> Sample:
    def read() -> Tensor:
        raise UserError(f"{shown(name)} {told}")

    return Sample(shown(name), read)
