"""The run or sweep that was started last, for who does not want to type its name: ``run_dir=latest``."""

from __future__ import annotations

import os
from pathlib import Path

from kd_lightning.errors import UserError

LATEST = "latest"
_MARKS = {"run": ".hydra/config.yaml", "sweep": "sweep.json"}
_DEPTH = 3  # outputs/<name>/<sweep>/<run>
_NAMED = 3


def latest(kind: str, output_dir: str | os.PathLike[str] | None = None) -> Path:
    """The directory of the newest "run" (a sweep's runs are runs too) or "sweep".

    Args:
        kind: "run" or "sweep".
        output_dir: where to look; None: ``KD_OUTPUT_DIR`` or ``outputs``.

    Raises:
        UserError: there is none.
    """
    root = Path(output_dir or os.environ.get("KD_OUTPUT_DIR") or "outputs")
    mark = _MARKS[kind]
    found = [path for depth in range(1, _DEPTH + 1) for path in root.glob("/".join(["*"] * depth + [mark]))]
    if not found:
        raise UserError(f"{kind}_dir={LATEST}: there is no {kind} in {root} yet; give its directory")
    newest = max(found, key=lambda path: path.stat().st_mtime_ns)
    return newest.parents[mark.count("/")]


def no_result(directory: Path) -> str:
    """What is said of a directory without a ``result.json``; of a sweep's, which runs are in it."""
    runs = sorted(path.parent for path in directory.glob("*/result.json"))
    if not runs:
        return f"{directory}: holds no result.json; give the directory of a finished run"
    more = f" (and {len(runs) - _NAMED} more)" if len(runs) > _NAMED else ""
    return f"{directory}: is no run, it holds {len(runs)}: give one of them, {', '.join(map(str, runs[:_NAMED]))}{more}"
