"""What a run's sweep says of its configuration: one seed's figures are one draw, and a card shall not hide it."""

from __future__ import annotations

from pathlib import Path

from kd_lightning.metrics.show import better_by, mean_and_std
from kd_lightning.report.study.collect import collect
from kd_lightning.report.study.study import Cell, Study
from kd_lightning.report.study.summary import interval_text


def over_seeds(run_dir: Path) -> str | None:
    """The test metric over all seeds of a run's configuration, and the gain over the student alone with its interval.

    Args:
        run_dir: of a finished run, in the directory of its sweep.

    Returns:
        A sentence; None where the run is of no sweep, or its configuration has one seed.
    """
    place = run_dir.resolve()
    if not (place.parent / "sweep.json").is_file():
        return None
    for study in collect(place.parent):
        for cell in (*study.cells, *study.alone):
            if any(run.path.resolve() == place for run in cell.runs.values()):
                return _sentence(study, cell)
    return None


def _sentence(study: Study, cell: Cell) -> str | None:
    values = list(cell.values(study.test_metric).values())
    if len(values) < 2:
        return None
    metric, gain = study.declared.monitored, study.gain(cell, study.test_metric)
    mean = sum(values) / len(values)
    said = (
        f"This is one of {len(values)} runs that differ in their seeds only; over all of them the test {metric.heading} "
        f"is {mean_and_std(metric, values)}"
    )
    if gain is None:
        return f"{said}."
    interval = interval_text(metric, gain, mean)
    return f"{said}, {better_by(metric, gain.mean, mean)} than the student alone ({interval})."
