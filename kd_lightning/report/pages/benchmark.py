"""A sweep over methods and pairs as a page of Markdown, with every run's figures in a TSV beside it.

::

    python -m kd_lightning.report.pages.benchmark SWEEP_DIR docs/benchmark.md [HEAD.md]

Everything below the head is made from the ``result.json`` files alone. The head is the page's own text up to the line
``<!-- figures -->``, which is kept when the page is written again.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kd_lightning.config.keys import find
from kd_lightning.errors import UserError
from kd_lightning.metrics import show
from kd_lightning.report.pages.comparison_card import comparison_text, table
from kd_lightning.report.study.collect import collect
from kd_lightning.report.study.comparison import STEP_TIME, compare, compared_key
from kd_lightning.report.study.factors import format_value, value_of
from kd_lightning.report.study.reading import Run
from kd_lightning.report.study.study import Cell, Study

MARK = "<!-- figures -->"


def write_benchmark(sweep: Path, page: Path) -> None:
    """Write ``page`` below its head, and ``page`` with the suffix ``.tsv``.

    Raises:
        UserError: no such sweep.
    """
    studies = collect(sweep)
    head = page.read_text(encoding="utf-8").partition(MARK)[0] if page.exists() else f"# {studies[0].title}\n\n"
    parts = [part for study in studies for part in _study(study)]
    page.write_text(head + MARK + "\n\n" + "\n\n".join(parts) + "\n", encoding="utf-8")
    page.with_suffix(".tsv").write_text(tsv(studies), encoding="utf-8")


def _study(study: Study) -> list[str]:
    metric = study.test_metric if study.test_metric in study.metrics else study.val_metric
    key = compared_key(study)
    if key is None:
        return [f"{study.title}: no methods to compare."]
    others = [factor for factor in study.factors if factor is not key and not factor.key.startswith(f"{key.key}.")]
    parts = [_facts(study)]
    if others:
        overall = compare(study, metric)
        if overall is not None:
            parts += [
                "## Over all pairs",
                _table(table(study, metric, overall)),
                comparison_text(overall),
            ]
    for values in itertools.product(*(factor.values for factor in others)):
        where = {factor.key: value for factor, value in zip(others, values, strict=True)}
        cells = _cells(study, where)
        if not cells:
            continue
        named = [f"{factor.short} = {format_value(value)}" for factor, value in zip(others, values, strict=True)]
        parts += [f"## {', '.join(named) or study.data}", _pair(study, cells, metric)]
        found = compare(study, metric, where)
        if found is None:
            parts.append("Nothing is compared: no two methods have two seeds in common. The runs are in the TSV.")
        else:
            parts += [_table(table(study, metric, found)), comparison_text(found, explain=not others)]
    return parts


def _facts(study: Study) -> str:
    runs = [run for run in study.runs if run.is_finished]
    seconds = sum((run.cost.get("seconds") or 0) / (run.cost.get("fused") or 1) for run in runs)
    unfinished = len(study.runs) - len(runs)
    lines = [
        f"- Command: `{study.commands[0]}`" if study.commands else "",
        f"- {len(runs)} runs" + (f", {unfinished} without a result (not in the tables)" if unfinished else ""),
        f"- Training and validation of all of them: {seconds / 60:.1f} minutes of wall time, those of a pair side by side",
        *(f"- {line}" for line in sorted({_machine(run) for run in runs})),
    ]
    return "\n".join(line for line in lines if line)


def _machine(run: Run) -> str:
    host, versions = run.host, run.versions
    gpus = ", ".join(str(gpu) for gpu in host.get("gpus") or []) or "no GPU"
    where = f"{host.get('cpu', 'unknown processor')}, {host.get('cores', '?')} cores, threads: {host.get('threads', '?')}, {gpus}"
    return f"{where}; torch {versions.get('torch', '?')}, Lightning {versions.get('lightning', '?')}"


def _cells(study: Study, where: Mapping[str, Any]) -> list[Cell]:
    places = {i: where[factor.key] for i, factor in enumerate(study.factors) if factor.key in where}
    return [cell for cell in study.cells if all(cell.params[i] == value for i, value in places.items())]


def _pair(study: Study, cells: Sequence[Cell], metric: str) -> str:
    """Teacher and student of a setting, and a cell's command."""
    runs = [run for cell in cells for run in cell.runs.values()]
    teacher, student, read = runs[0].teacher, runs[0].student, study.reads(metric)
    figure = teacher.get(metric.replace("best/val_", "val/"))
    said = f"Teacher {teacher.get('name', '')}: {show.with_unit(read, figure)}, {_count(teacher)} parameters; "
    said += f"student: {_count(student)}. A cell of the table, for example:\n\n"
    return f"{said}```\n{command(runs[0])}\n```"


def _count(model: Mapping[str, Any]) -> str:
    """Parameters; of an estimator nobody knows them."""
    known = model.get("parameters")
    return show.NONE if known is None else f"{known:,}"


def command(run: Run) -> str:
    """The command that makes one run again, without the sweep's own words and places."""
    named = {text: find(text.partition("=")[0].lstrip("+~")) for text in run.overrides}
    words = [text for text, key in named.items() if key.decides and not key.of_start]
    return " ".join(["kd-train", *(shlex.quote(word) for word in words)])


def _table(rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def tsv(studies: list[Study]) -> str:
    """One line a run: its keys, figures and command."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter="\t", lineterminator="\n")
    keys = list(dict.fromkeys(factor.key for study in studies for factor in study.factors))
    names = list(dict.fromkeys(name for study in studies for name in study.metrics))
    writer.writerow(["data", "role", *keys, "seed", "status", *names, STEP_TIME, "seconds", "fused", "command"])
    for study in studies:
        for run in sorted(study.runs, key=lambda run: (run.role, run.name)):
            times = run.curves.get(STEP_TIME, ((), ()))[1]
            own = f"{sorted(times)[len(times) // 2]:.3f}" if times else ""
            values = [format_value(value_of(run, key)) for key in keys]
            figures = [run.metrics.get(name, "") for name in names]
            cost = [run.cost.get("seconds", ""), run.cost.get("fused", "")]
            writer.writerow([study.data, run.role, *values, run.seed, run.status, *figures, own, *cost, command(run)])
    return out.getvalue()


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m kd_lightning.report.pages.benchmark", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("sweep", type=Path, help="the directory of a sweep")
    parser.add_argument("page", type=Path, help="the Markdown file to write; its words above the mark stay")
    options = parser.parse_args(argv)
    try:
        write_benchmark(options.sweep, options.page)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
