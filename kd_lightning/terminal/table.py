"""The tables that end a run or a sweep: drawn on a terminal, plain lines elsewhere, Markdown for TensorBoard."""

from __future__ import annotations

import math
import re
import shlex
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

NONE = "\u2013"
"""Shown where there is no figure."""

PERCENT = frozenset(["acc", "accuracy", "agreement", "ece"])
"""Metrics that are fractions and shown in percent."""

MOST_ROWS = 24
"""Configurations in a sweep's table; the report has them all."""

STYLES = {"finished": "green", "interrupted": "yellow", "failed": "red", "diverged": "red"}
_SEED = re.compile(r"_?s_*\d+$")


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
            yield Text(note, style=next((style for word, style in STYLES.items() if f" {word}:" in note), "dim"))
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
    metric = result["monitor"]["metric"]
    own = result.get("metrics") or {}
    role = result.get("role", "distilled")
    rows = []
    teacher, baseline = result.get("teacher"), result.get("baseline")
    if teacher and role != "teacher":
        rows.append(_row("teacher", metric, teacher, teacher))
    if baseline and role == "distilled":
        rows.append(_row("student alone", metric, baseline, baseline.get("student") or result.get("student")))
    names = {"distilled": "distilled student", "alone": "student alone", "teacher": "teacher"}
    rows.append(_row(names.get(role, role), metric, own, result.get("student")))
    header = ["", metric_name(metric), "agreement", "parameters", "size", "latency"]
    return Closing(header, rows, title=f"{result['name']}, test split", notes=_notes(result), emphasis=len(rows) - 1)


def result_markdown(result: Mapping[str, Any]) -> str:
    """:func:`result_table` as Markdown, and why a run that did not finish ended."""
    text = result_table(result).markdown()
    return text if result["status"] == "finished" else f"{text}\n{result['status']}: {result.get('error') or NONE}\n"


def sweep_table(results: Sequence[Mapping[str, Any]], rerun: str = "", skipped: Collection[str] = ()) -> Closing:
    """A sweep's configurations, the best by validation first, and what failed.

    Args:
        results: one for each run.
        rerun: the command that runs again what did not finish; shown only if there is such a run.
        skipped: names of runs that had finished before.
    """
    cells: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        cells.setdefault(_SEED.sub("", str(result["name"])) or "all seeds", []).append(result)
    rows = []
    for name, members in cells.items():
        finished = [member for member in members if member["status"] == "finished"]
        first = (finished or members)[0]
        metric, sign = first["monitor"]["metric"], 1 if first["monitor"]["mode"] == "max" else -1
        val = _values(finished, f"best/val_{metric}")
        row = [name, f"{len(finished)}/{len(members)}" if len(finished) < len(members) else str(len(members))]
        row += [spread(metric, val), spread(metric, _values(finished, f"test/{metric}"))]
        row.append(spread("agreement", _values(finished, "test/agreement")))
        rows.append((-sign * statistics.fmean(val) if val else math.inf, row))
    rows.sort(key=lambda pair: pair[0])
    metrics = {result["monitor"]["metric"] for result in results}
    what = metric_name(metrics.pop()) if len(metrics) == 1 else "metric"
    counts = {status: sum(result["status"] == status for result in results) for status in STYLES}
    told = [f"{count} {status}" for status, count in counts.items() if count]
    if skipped:
        told.append(f"{len(skipped)} of them already before")
    notes = [f"\u2026 and {len(rows) - MOST_ROWS} more in the report"] if len(rows) > MOST_ROWS else []
    notes.append(", ".join(told) or "no runs")
    for result in results:
        if result["status"] != "finished":
            notes.append(f"{result['name']} {result['status']}: {result.get('error') or 'continues where it stopped'}")
    unfinished = any(result["status"] != "finished" for result in results)
    return Closing(
        ["configuration", "n", f"best val {what}", f"test {what}", "agreement"],
        [row for _, row in rows[:MOST_ROWS]],
        notes=notes,
        command=rerun if unfinished else "",
        emphasis=0 if rows and rows[0][0] < math.inf else None,
    )


def rerun_command(result: Mapping[str, Any], run_dir: str) -> str:
    """The command that runs one run again in its own directory."""
    return shlex.join(["kd-train", *result.get("overrides", []), f"run_dir={run_dir}"])


def metric_name(metric: str) -> str:
    """As a column is headed."""
    return {"acc": "accuracy"}.get(metric, metric)


def format_metric(metric: str, value: float | None) -> str:
    """Fractions in percent, other numbers with four digits."""
    if value is None or not math.isfinite(value):
        return NONE
    if metric.rpartition("/")[2].removeprefix("val_").removeprefix("teacher_") in PERCENT:
        return f"{100 * value:.1f} %"
    return f"{value:.4g}"


def spread(metric: str, values: Sequence[float]) -> str:
    """Mean ± sample standard deviation; the value alone where there is one."""
    if len(values) < 2:
        return format_metric(metric, values[0] if values else None)
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    if metric in PERCENT:
        return f"{100 * mean:.1f} \u00b1 {100 * deviation:.1f} %"
    return f"{mean:.4g} \u00b1 {deviation:.2g}"


def size(count: int | None) -> str:
    """Bytes in decimal units."""
    if count is None:
        return NONE
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"


def _row(name: str, metric: str, figures: Mapping[str, Any], model: Mapping[str, Any] | None) -> list[str]:
    model = model or {}
    parameters, latency = model.get("parameters"), model.get("latency_ms")
    return [
        name,
        format_metric(metric, figures.get(f"test/{metric}")),
        format_metric("agreement", figures.get("test/agreement")),
        NONE if parameters is None else f"{parameters:,}",
        size(model.get("bytes")),
        NONE if latency is None else f"{latency:.2f} ms" if latency < 10 else f"{latency:.0f} ms",
    ]


def _notes(result: Mapping[str, Any]) -> list[str]:
    """What distilling gained here, and against which odds; the best epoch was chosen by validation."""
    metric, sign = result["monitor"]["metric"], 1 if result["monitor"]["mode"] == "max" else -1
    own = (result.get("metrics") or {}).get(f"test/{metric}")
    teacher, alone = ((result.get(part) or {}).get(f"test/{metric}") for part in ("teacher", "baseline"))
    notes = []
    if own is not None and alone is not None:
        gain = own - alone
        amount = f"{100 * gain:+.1f} points" if metric in PERCENT else f"{gain:+.4g} {metric}"
        note = f"distilled against alone: {amount} (one seed)"
        if teacher is not None and sign * (teacher - alone) > 0:
            note += f", {100 * (own - alone) / (teacher - alone):.0f} % of the teacher's lead"
        notes.append(note)
    return notes


def _values(results: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    found = [(result.get("metrics") or {}).get(key) for result in results]
    return [float(value) for value in found if value is not None]
