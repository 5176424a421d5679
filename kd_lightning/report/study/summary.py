"""What a study says in figures: headline, cards, leaderboard rows.

Every figure on the page is made here (or in the charts) and only placed by the page's script.
"""

from __future__ import annotations

from typing import Any

from kd_lightning.metrics import show
from kd_lightning.metrics.metric import Metric
from kd_lightning.report.charts.theme import ACCENT, ALONE, TEACHER, colours
from kd_lightning.report.study.factors import Factor, format_value
from kd_lightning.report.study.grid import plan
from kd_lightning.report.study.statistics import Gain, Spread, gap_closed
from kd_lightning.report.study.study import Cell, Study


def headline(study: Study) -> str:
    """One line: how much is done, of what."""
    done, total = study.counts["finished"], len(study.runs)
    seeds = max((cell.expected for cell in study.cells), default=0)
    parts = [f"{len(factor.values)} {_plural(factor)}" for factor in study.factors]
    parts += [f"{seeds} seed{'s' if seeds != 1 else ''}"] if seeds else []
    # runs that trained together each took the group's time
    seconds = sum((run.cost.get("seconds") or 0) / (run.cost.get("fused") or 1) for run in study.runs)
    pruned = study.counts["pruned"]
    stopped = f"{pruned} stopped early" if pruned else ""
    said = [
        f"{done}/{total} runs finished",
        stopped,
        " \u00d7 ".join(parts),
        study.data,
        f"{_duration(seconds)} of training",
    ]
    peak = max((run.cost.get("peak_memory_bytes") or 0 for run in study.runs), default=0)
    said += [f"at most {peak / 1e9:.1f} GB of memory"] if peak else []
    return " · ".join(part for part in said if part)


def cards(study: Study, metric: str) -> list[dict[str, str]]:
    """The four figures that matter: chosen configuration, gain, gap closed, compression."""
    chosen = study.chosen
    summary = chosen.spread(metric) if chosen else None
    if chosen is None or summary is None:
        first = {
            "label": f"{study.title_of(metric)} of the chosen configuration",
            "value": "\u2013",
            "note": "without validation none is chosen" if study.metrics else "no run has finished yet",
        }
        return [
            first,
            *(
                {"label": label, "value": "\u2013", "note": ""}
                for label in ("against the student alone", "gap closed", "compression")
            ),
        ]
    seeds = f"{summary.n} seed{'s' if summary.n != 1 else ''}"
    return [
        {
            "label": f"{study.title_of(metric)} of the configuration chosen by validation",
            "value": spread_text(study.reads(metric), summary) + show.unit(study.reads(metric)),
            "note": ", ".join(part for part in (chosen.label, seeds) if part),
        },
        _gain_card(study, chosen, metric, summary),
        _gap_card(study, chosen, metric, summary),
        _compression_card(study, chosen),
    ]


def _gain_card(study: Study, chosen: Cell, metric: str, summary: Spread) -> dict[str, str]:
    card = {"label": "against the student alone", "value": show.NONE, "note": "no student alone among these runs"}
    gain, read = study.gain(chosen, metric), study.reads(metric)
    if gain is None:
        return card
    value = show.better_by(read, gain.mean, summary.mean)
    tone = "bad" if gain.mean < 0 and read.higher_is_better is not None else ""
    return {**card, "value": value, "tone": tone, "note": interval_text(read, gain, summary.mean)}


def _gap_card(study: Study, chosen: Cell, metric: str, summary: Spread) -> dict[str, str]:
    card = {"label": "teacher gap closed", "value": "\u2013", "note": ""}
    alone, teacher = chosen.alone(metric), study.teacher_spread(metric, chosen)
    if alone is None or teacher is None:
        return {**card, "note": f"needs {metric} of the teacher and of the student alone"}
    figures = [show.show(study.reads(metric), value.mean, summary.mean) for value in (alone, summary, teacher)]
    note = "alone {} → distilled {} → teacher {}".format(*figures)
    share = gap_closed(summary.mean, alone.mean, teacher.mean, study.reads(metric).sign > 0)
    if share is None:
        return {**card, "note": f"{note}: the teacher isn't ahead of the student alone"}
    return {**card, "value": show.minus(f"{100 * share:.0f} %"), "note": note}


def _compression_card(study: Study, chosen: Cell) -> dict[str, str]:
    card = {"label": "compression", "value": "\u2013", "note": ""}
    teachers = study.teachers([chosen])
    student = next(iter(chosen.runs.values())).student
    large, small = (teachers[0] if teachers else {}).get("parameters"), student.get("parameters")
    if not large or not small:
        return {**card, "note": "needs the sizes of teacher and student"}
    times = large / small
    note = f"{large:,} → {small:,} parameters"
    slow, fast = teachers[0].get("latency_ms"), student.get("latency_ms")
    if slow and fast:
        note += f"; {slow:.3g} → {fast:.3g} ms"
    return {**card, "value": f"{times:.0f}\u00d7" if times >= 10 else f"{times:.1f}\u00d7", "note": note}


def spread_text(metric: Metric, summary: Spread) -> str:
    mean = show.show(metric, summary.mean)
    return mean if summary.std is None else f"{mean} ± {show.show(metric, summary.std, summary.mean)}"


def interval_text(metric: Metric, gain: Gain, size: float) -> str:
    """The interval in words, or why there is none."""
    if gain.low is None or gain.high is None:
        if gain.pairing == "none":
            return "no interval: no seed in common with the student alone"
        return "no interval: one seed" if gain.n == 1 else f"no interval: all {gain.n} seeds differ by the same"
    ends = [show.signed(metric, end, size) for end in (gain.low, gain.high)]
    against = "paired by seed" if gain.pairing == "seed" else "against one reference run"
    return f"95 % CI [{ends[0]}, {ends[1]}], {against}, n\u00a0=\u00a0{gain.n}"


def rows(study: Study) -> list[dict[str, Any]]:
    """The leaderboard: teacher, student alone and every configuration, with figures (raw) and texts by metric."""
    found = [_teacher_row(study, teacher, i) for i, teacher in enumerate(study.teachers())]
    found += [_cell_row(study, cell, "alone", ALONE) for cell in study.alone]
    shades = line_colours(study)
    return found + [_cell_row(study, cell, "cell", shades.get(cell.id, ACCENT)) for cell in study.cells]


def line_colours(study: Study) -> dict[str, str]:
    """Each cell's colour in the chart of the metric against a key, where the second key's value decides it."""
    layout = plan(study)
    if layout is None or layout.y is None:
        return {}
    place = study.factors.index(layout.y)
    shades = dict(zip(layout.y.values, colours(len(layout.y.values), layout.y.is_numeric), strict=True))
    return {cell.id: shades[cell.params[place]] for cell in study.cells}


def _cell_row(study: Study, cell: Cell, kind: str, colour: str) -> dict[str, Any]:
    row: dict[str, Any] = {"id": cell.id, "kind": kind, "colour": colour, "stats": {}, "gains": {}}
    row["label"] = cell.label if kind == "cell" else f"student alone {cell.label}".strip()
    row["params"] = [format_value(value) for value in cell.params] if kind == "cell" else ["" for _ in study.factors]
    row["values"] = list(cell.params) if kind == "cell" else []
    row["runs"] = f"{len(cell.runs)}/{max(cell.expected, len(cell.runs))}"
    row["chosen"] = cell is study.chosen
    row["notes"] = " ".join(dict.fromkeys(run.notes for run in cell.runs.values() if run.notes))
    row["tags"] = sorted({word for word in row["notes"].split() if word.startswith("#") and len(word) > 1})
    for metric in study.metrics:
        summary = cell.spread(metric)
        if summary is not None:
            row["stats"][metric] = _stats(study.reads(metric), summary)
        gain, read = (study.gain(cell, metric) if kind == "cell" else None), study.reads(metric)
        if gain is not None and summary is not None:
            half = None if gain.low is None else show.show(read, gain.high - gain.mean, summary.mean, 1)
            row["gains"][metric] = {
                "mean": gain.mean,
                "low": gain.low,
                "high": gain.high,
                "sure": gain.sure,
                "text": show.signed(read, gain.mean, summary.mean, 1),
                "half": half,
            }
    return row


def _teacher_row(study: Study, teacher: dict[str, Any], number: int) -> dict[str, Any]:
    stats = {}
    for metric in study.metrics:
        value = teacher.get(metric.replace("best/val_", "val/"))
        if isinstance(value, (int, float)):
            stats[metric] = _stats(study.reads(metric), Spread(value, None, 1))
    label = "teacher" if not teacher.get("name") else f"teacher {teacher['name']}"
    row = {
        "id": f"t{number}",
        "kind": "teacher",
        "label": label,
        "colour": TEACHER,
        "runs": "1/1",
        "chosen": False,
        "notes": "",
        "tags": [],
    }
    return {**row, "params": ["" for _ in study.factors], "values": [], "stats": stats, "gains": {}}


def _stats(metric: Metric, summary: Spread) -> dict[str, Any]:
    text = show.show(metric, summary.mean, more=1)
    std = "" if summary.std is None else show.show(metric, summary.std, summary.mean, 1)
    return {"mean": summary.mean, "std": summary.std, "n": summary.n, "text": text, "spread": std}


def _plural(factor: Factor) -> str:
    if factor.short == "T":
        return "temperatures"
    if factor.label.startswith("weight of "):
        return f"{factor.short} weights"
    return f"{factor.short}s" if not factor.is_numeric and not factor.short.endswith("s") else f"{factor.short} values"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
