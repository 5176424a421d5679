"""The report of a sweep that is still running: written anew as runs end."""

from __future__ import annotations

import logging
from pathlib import Path

from kd_lightning.report.pages.page import write_report
from kd_lightning.report.pages.sweep_summary import write_sweep_summary
from kd_lightning.report.study.reading import RunReader

log = logging.getLogger(__name__)
_reader = RunReader()  # keeps what it has read: most runs of a sweep do not change between two reports


def refresh_report(sweep_dir: Path, final: bool = False) -> None:
    """Write the sweep's report and its ``00_sweep`` run, at most every ten seconds until the ``final`` one.

    A fault in a report is told and never ends a sweep.
    """
    try:
        write_report([sweep_dir], min_interval=0 if final else 10, reader=_reader)
        write_sweep_summary(sweep_dir)
    except Exception as error:
        log.warning("the report of %s could not be written: %s: %s", sweep_dir, type(error).__name__, error)
