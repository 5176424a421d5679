"""What :func:`~kd_lightning.api.distill.distill` returns: a finished run, read from its directory."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from kd_lightning.exporting.export_run import Exported, export
from kd_lightning.exporting.formats import DEFAULT
from kd_lightning.running.open_run import OpenRun, open_run
from kd_lightning.runs.result_file import read_result
from kd_lightning.terminal.table import Closing, result_table


class Distilled:
    """A finished run.

    Args:
        run_dir: its directory.
        objects: what was given for it, kept so that the run can be opened and exported for as long as this is.

    Attributes:
        run_dir: where its files are: those of ``kd-train``.
        result: the content of its ``result.json``.
    """

    def __init__(self, run_dir: Path | str, objects: Sequence[Any] = ()) -> None:
        self.run_dir = Path(run_dir)
        self.result: dict[str, Any] = dict(read_result(self.run_dir / "result.json") or {})
        self._objects = list(objects)
        self._opened: OpenRun | None = None

    @property
    def opened(self) -> OpenRun:
        """The run, opened: student, sizes, class names, preprocessing."""
        if self._opened is None:
            self._opened = open_run(self.run_dir)
        return self._opened

    @property
    def student(self) -> nn.Module:
        """The distilled student with its best weights, on the CPU, in eval mode; a module that was given stays as it was."""
        return self.opened.student

    @property
    def metrics(self) -> Mapping[str, float]:
        """``test/acc``, ``best/val_acc``, ``test/agreement``, …"""
        return dict(self.result.get("metrics") or {})

    @property
    def teacher(self) -> Mapping[str, Any] | None:
        """What is known of the teacher: ``test/acc``, ``parameters``, …; None: there was none."""
        return self.result.get("teacher")

    @property
    def baseline(self) -> Mapping[str, Any] | None:
        """The same student without the teacher, same seed and batches: ``test/acc``, …; None: not asked for."""
        return self.result.get("baseline")

    @property
    def table(self) -> str:
        """Teacher, student alone and distilled student, one row each, as plain text."""
        return self._table().plain()

    def predict(self, inputs: Any, batch_size: int = 64) -> Tensor:
        """See :meth:`kd_lightning.running.open_run.OpenRun.predict`."""
        return self.opened.predict(inputs, batch_size)

    def export(self, formats: str | Sequence[str] = DEFAULT, **options: Any) -> Exported:
        """Write the student for other programs, see :func:`kd_lightning.exporting.export_run.export`."""
        return export(self.run_dir, [formats] if isinstance(formats, str) else formats, **options)

    def _table(self) -> Closing:
        return result_table(self.result)

    def __repr__(self) -> str:
        return f"{self.table}\nfiles  {self.run_dir}"

    def _repr_html_(self) -> str:
        table = self._table()
        head = "".join(f"<th>{html.escape(name)}</th>" for name in table.header)
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
        )
        notes = "".join(f"<div>{html.escape(note)}</div>" for note in table.notes)
        where = f"<div>files <code>{html.escape(str(self.run_dir))}</code></div>"
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{notes}{where}"
