"""Students that ship: ``zoo:digits_mlp`` stands where a finished run's directory does.

Each is a folder of ``kd_lightning/zoo/`` with the run's ``result.json`` and the student's weights, ``student.safetensors``.
"""

from __future__ import annotations

from pathlib import Path

from kd_lightning.config.suggestions import did_you_mean
from kd_lightning.errors import UserError

PREFIX = "zoo:"
FOLDER = Path(__file__).resolve().parents[1] / "zoo"
WEIGHTS = "student.safetensors"


def zoo_names() -> list[str]:
    """What there is."""
    return sorted(path.parent.name for path in FOLDER.glob("*/result.json"))


def zoo_directory(name: str) -> Path:
    """The folder of ``zoo:NAME``.

    Raises:
        UserError: there is none of that name.
    """
    short = name.removeprefix(PREFIX)
    if short not in zoo_names():
        raise UserError(f"{PREFIX}{short}: no such student in the zoo{did_you_mean(short, zoo_names())}")
    return FOLDER / short
