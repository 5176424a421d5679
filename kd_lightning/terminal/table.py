"""The tables that end a run or a sweep: drawn on a terminal, plain lines elsewhere, Markdown for TensorBoard."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from kd_lightning.config.replicates import seeds_of_result, setting_of_result
from kd_lightning.metrics.declared import Declared
from kd_lightning.metrics.metric import Metric
from kd_lightning.metrics.show import NONE, ON_TEST, best_on_test, better_by, mean_and_std, with_unit
from kd_lightning.runs.result_file import ENDS, NOT_STARTED, standing

MOST_ROWS = 24
"""Configurations in a sweep's table; the report has them all."""

STYLES = {
    "finished": "green",
    "pruned": "cyan",
    "interrupted": "yellow",
    NOT_STARTED: "yellow",
    "failed": "red",
    "diverged": "red",
}
NOTE_STYLES = {"worse by": "red", **{f" {status}:": style for status, style in STYLES.items()}}


@dataclass
class Closing:
    """A table with notes below it, in three forms: rich, ``str()`` and :meth:`markdown`."""

    header: list[str]
    rows: list[list[str]]
    title: str = ""
    notes: list[str] = field(default_factory=list)
    command: str = ""
    emphasis: int | None = None
    """The row that matters."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        if not options.is_terminal:
            yield Text(self.plain(options.max_width))
            return
        table = Table(title=self.title or None, title_justify="left", title_style="bold", header_style="dim")
        for i, name in enumerate(self.header):
            table.add_column(name, justify="right" if i else "left", no_wrap=True)
        for i, row in enumerate(self.rows):
            table.add_row(*map(Text, row), style="bold" if i == self.emphasis else None)
        yield table
        for note in self.notes:
            yield Text(note, style=next((style for word, style in NOTE_STYLES.items() if word in note), "dim"))
        if self.command:
            yield Text(self._command(options.max_width))

    def __str__(self) -> str:
        return self.plain()

    def plain(self, width: int = 120) -> str:
        """Aligned lines without any control character."""
        widths = [max(len(row[i]) for row in [self.header, *self.rows]) for i in range(len(self.header))]
        lines = [self.title] if self.title else []
        for row in [self.header, *self.rows]:
            cells = [cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
            lines.append("  ".join(cells).rstrip())
        lines += self.notes
        if self.command:
            lines.append(self._command(width))
        return "\n".join(lines)

    def markdown(self) -> str:
        """A Markdown table and its notes."""
        lines = [f"**{self.title}**\n"] if self.title else []
        lines += [
            "| " + " | ".join(self.header) + " |",
            "|" + "|".join("---:" if i else "---" for i in range(len(self.header))) + "|",
        ]
        for i, row in enumerate(self.rows):
            cells = [f"**{cell}**" if i == self.emphasis else cell for cell in row]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        return "\n".join([*lines, *(f"\n{note}" for note in self.notes)]) + "\n"

    def _command(self, width: int) -> str:
        """The command in lines that a shell takes as one, so that it can be copied."""
        lines = ["run again with: "]
        for word in self.command.split(" "):
            if len(lines[-1]) + len(word) + 3 > width and lines[-1].strip():
                lines[-1] += "\\"
                lines.append("    ")
            lines[-1] += word + " "
        return "\n".join(line.rstrip(" ") if line.endswith(" ") else line for line in lines)


def result_table(result: Mapping[str, Any]) -> Closing:
    """Teacher, student alone and distilled student of one run, as far as its ``result.json`` knows them."""
    declared = Declared.of_result(result)
    metric, own = declared.monitored, result.get("metrics") or {}
    baseline = result.get("baseline")
    fidelity = _fidelity(declared, [own, baseline or {}])
    shown = [metric, *([declared[fidelity]] if fidelity else [])]
    role = result.get("role", "distilled")
    rows = []
    teacher = result.get("teacher")
    if teacher and role != "teacher":
        rows.append(_row("teacher", shown, teacher, teacher))
    if baseline and role == "distilled":
        rows.append(_row("student alone", shown, baseline, baseline.get("student") or result.get("student")))
    names = {"distilled": "distilled student", "alone": "student alone", "teacher": "teacher"}
    rows.append(_row(names.get(role, role), shown, own, result.get("student")))
    header = ["", *(measured.heading for measured in shown), "parameters", "size", "latency"]
    notes = _notes(result, metric)
    return Closing(header, rows, title=f"{result['name']}, test split", notes=notes, emphasis=len(rows) - 1)


def result_markdown(result: Mapping[str, Any]) -> str:
    """:func:`result_table` as Markdown, and why a run that did not finish ended."""
    text = result_table(result).markdown()
    return text if result["status"] == "finished" else f"{text}\n{result['status']}: {result.get('error') or NONE}\n"


def sweep_table(results: Sequence[Mapping[str, Any]], rerun: str = "", skipped: Collection[str] = ()) -> Closing:
    """Teacher, student alone, a sweep's configurations (the best by validation first, in bold), and what failed.

    n counts seeds, each once. As in the report, a configuration of which seeds are missing is never the first: one lucky
    seed must not win.

    Args:
        results: one for each run.
        rerun: the command that runs again what did not finish; shown only if there is such a run.
        skipped: names of runs that had finished before.
    """
    known = {str(r["monitor"]["metric"]): Declared.of_result(r) for r in results if r["monitor"]["metric"]}
    first = next(iter(known.values()), Declared((), ""))
    fidelity = _fidelity(first, [result.get("metrics") or {} for result in results])
    distilled = [result for result in results if result.get("role") != "alone"] or list(results)
    references = [result for result in results if result not in distilled]

    def row(name: str, members: Sequence[Mapping[str, Any]]) -> list[str]:
        finished = [member for member in members if member["status"] == "finished"]
        declared = known.get(str((finished or members)[0]["monitor"]["metric"]), first)
        metric = declared.monitored
        count = f"{len(finished)}/{len(members)}" if len(finished) < len(members) else str(len(members))
        cells = [mean_and_std(metric, _values(finished, f"{part}{metric.name}")) for part in ("best/val_", "test/")]
        return [
            name,
            count,
            *cells,
            *([mean_and_std(declared[fidelity], _values(finished, fidelity))] if fidelity else []),
        ]

    rows = _teacher_rows(distilled, first.monitored, fidelity is not None)
    rows += [row(name, members) for name, members in _configurations(references).items()]
    emphasis = len(rows)
    cells = _configurations(distilled)
    ranked = sorted(cells, key=lambda name: _rank(cells[name], first.monitored, cells.values()))
    rows += [row(name, cells[name]) for name in ranked[:MOST_ROWS]]
    what = first.monitored.heading if len(known) == 1 else "metric"
    counts = {status: sum(standing(result) == status for result in results) for status in STYLES}
    told = [f"{count} {status}" for status, count in counts.items() if count]
    if skipped:
        told.append(f"{len(skipped)} of them already before")
    notes = [f"\u2026 and {len(ranked) - MOST_ROWS} more in the report"] if len(ranked) > MOST_ROWS else []
    notes.append(", ".join(told) or "no runs")
    if len(cells) > 1 and max(len(members) for members in cells.values()) == 1:
        notes.append("one seed each: a difference may be luck (seed=0,1,2)")
    for name, cell in {**_configurations(references), **{name: cells[name] for name in ranked[:MOST_ROWS]}}.items():
        if values := _values(cell, f"{ON_TEST}{first.monitor}"):
            notes.append(f"{name}: {best_on_test(first.monitored, values)}")
    for result in results:
        if standing(result) not in (*ENDS, NOT_STARTED):
            notes.append(f"{result['name']} {result['status']}: {result.get('error') or 'continues where it stopped'}")
    if waiting := [str(result["name"]) for result in results if standing(result) == NOT_STARTED]:
        more = f" and {len(waiting) - MOST_ROWS} more" if len(waiting) > MOST_ROWS else ""
        notes.append(f"{NOT_STARTED}: {', '.join(waiting[:MOST_ROWS])}{more}")
    unfinished = any(result["status"] not in ENDS for result in results)
    return Closing(
        ["configuration", "n", f"best val {what}", f"test {what}", *([first[fidelity].heading] if fidelity else [])],
        rows,
        notes=notes,
        command=rerun if unfinished else "",
        emphasis=emphasis if _values(distilled, f"best/val_{first.monitor}") else None,
    )


def _configurations(results: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The runs by configuration, under its readable name; one for each seed, the finished one where there is one."""
    cells: dict[str, list[Mapping[str, Any]]] = {}
    for result in sorted(results, key=lambda result: result["status"] == "finished"):
        cells.setdefault(setting_of_result(result), []).append(result)
    names = {setting: str(cell[0].get("setting_name") or cell[0]["name"]) for setting, cell in cells.items()}
    counts = Counter(names.values())
    names = {setting: name if counts[name] == 1 else f"{name} {setting[:6]}" for setting, name in names.items()}
    return {names[key]: list({seeds_of_result(run): run for run in cell}.values()) for key, cell in cells.items()}


def _rank(
    members: Sequence[Mapping[str, Any]], metric: Metric, cells: Collection[Sequence[Mapping[str, Any]]]
) -> tuple:
    """What sorts a configuration: complete ones first, then the mean in validation."""
    done = [sum(member["status"] == "finished" for member in cell) for cell in (members, *cells)]
    values = _values(members, f"best/val_{metric.name}")
    return (done[0] < max(done), -metric.sign * statistics.fmean(values) if values else math.inf)


def _teacher_rows(results: Sequence[Mapping[str, Any]], metric: Metric, fidelity: bool) -> list[list[str]]:
    """One for each teacher of these runs."""
    teachers = [result["teacher"] for result in results if result.get("teacher")]
    by_name = {str(teacher.get("fingerprint") or teacher.get("name")): teacher for teacher in teachers}
    return [
        [
            f"teacher {teacher.get('name', '')}".strip(),
            "1",
            with_unit(metric, teacher.get(f"val/{metric.name}")),
            with_unit(metric, teacher.get(f"test/{metric.name}")),
            *([NONE] if fidelity else []),
        ]
        for teacher in by_name.values()
    ]


def size(count: int | None) -> str:
    """Bytes in decimal units."""
    if count is None:
        return NONE
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"


def _fidelity(declared: Declared, figures: Sequence[Mapping[str, Any]]) -> str | None:
    """The first declared test figure that compares student and teacher and that some run has, beside the monitored one."""
    own = f"test/{declared.monitor}"
    names = dict.fromkeys(name for metrics in figures for name in metrics if name.startswith("test/") and name != own)
    return next(iter(declared.fidelity(names)), None)


def _row(name: str, shown: Sequence[Metric], figures: Mapping[str, Any], model: Mapping[str, Any] | None) -> list[str]:
    model = model or {}
    parameters, latency = model.get("parameters"), model.get("latency_ms")
    return [
        name,
        *(with_unit(metric, figures.get(f"test/{metric.name}")) for metric in shown),
        NONE if parameters is None else f"{parameters:,}",
        size(model.get("bytes")),
        NONE if latency is None else f"{latency:.2f} ms" if latency < 10 else f"{latency:.0f} ms",
    ]


def _notes(result: Mapping[str, Any], metric: Metric) -> list[str]:
    """What distilling gained here, and against which odds; the best epoch was chosen by validation."""
    own = (result.get("metrics") or {}).get(f"test/{metric.name}")
    teacher, alone = ((result.get(part) or {}).get(f"test/{metric.name}") for part in ("teacher", "baseline"))
    notes = []
    if own is not None and alone is not None:
        gain = metric.sign * (own - alone)
        note = f"distilled against alone: {better_by(metric, gain, own)} (one seed)"
        if teacher is not None and gain > 0 and metric.sign * (teacher - alone) > 0:
            note += f", {100 * (own - alone) / (teacher - alone):.0f} % of the teacher's lead"
        notes.append(note)
    figures = result.get("metrics") or {}
    if (best := figures.get(f"{ON_TEST}{metric.name}")) is not None:
        notes.append(best_on_test(metric, [best], figures.get(f"{ON_TEST}epoch")))
    return notes


def _values(results: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    found = [(result.get("metrics") or {}).get(key) for result in results]
    return [float(value) for value in found if value is not None]
