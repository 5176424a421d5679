"""What exports found out about their files: ``RUN_DIR/export/export.json``, of runs that were exported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kd_lightning.report.study.reading import Run, read_json


@dataclass(frozen=True)
class ExportedFile:
    """An exported file.

    Attributes:
        name: of the file.
        run: of which it is.
        bytes: its size.
        latency_ms: for one sample.
        metrics: of the test split, by short name.
    """

    name: str
    run: Run
    bytes: int
    latency_ms: float
    metrics: dict[str, float]


def exported_files(runs: Iterable[Run]) -> Iterator[ExportedFile]:
    """The files of these runs that are of them as they are now, and still there."""
    for run in runs:
        folder = Path(run.path) / "export"
        report, _ = read_json(folder / "export.json")
        if not report or report.get("fingerprint") != run.fingerprint:
            continue
        for name, figures in report.get("files", {}).items():
            if (folder / name).is_file():
                latency = float(figures["latency_ms"]["1"])
                yield ExportedFile(name, run, int(figures["bytes"]), latency, dict(figures["metrics"]))
