"""The report as one HTML file that needs nothing else: no network, no server, no other file."""

from __future__ import annotations

import base64
import csv
import gzip
import html
import io
import os
import tempfile
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from kd_lightning.errors import UserError
from kd_lightning.report.pages.payload import payload, to_json
from kd_lightning.report.pages.picture import heatmap_png
from kd_lightning.report.study import summary
from kd_lightning.report.study.collect import collect
from kd_lightning.report.study.factors import format_value
from kd_lightning.report.study.reading import RunReader
from kd_lightning.report.study.study import Study

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("charts.js", "table.js", "report.js")


def write_report(
    directories: Sequence[Path | str] | Path | str,
    output: Path | str | None = None,
    *,
    metric: str | None = None,
    min_interval: float = 0.0,
    reader: RunReader | None = None,
) -> Path:
    """Write the report of sweep or run directories, with ``leaderboard.csv`` and ``heatmap.png`` beside it.

    Each file is replaced in one step, so that a reader never sees half of one.

    Args:
        directories: one or several sweep directories, run directories, or folders of either.
        output: the HTML file; by default ``report.html`` in the directory, or in the current one for several.
        metric: the figure selected when the page opens, ``test/<monitored metric>`` by default.
        min_interval: seconds; a report younger than this is left as it is (for calls after each run of a sweep).
        reader: keeps the runs already read, for calls that repeat.

    Raises:
        UserError: if a directory doesn't exist or holds no run, or the page cannot be written.
    """
    if isinstance(directories, (str, Path)):
        directories = [directories]
    folders = [Path(directory) for directory in directories]
    target = Path(output) if output else (folders[0] if len(folders) == 1 else Path()) / "report.html"
    if min_interval > 0 and target.exists() and time.time() - target.stat().st_mtime < min_interval:
        return target
    studies = collect(folders, reader)
    stem = "" if target.name == "report.html" else f"{target.stem}-"
    files = {target.name: render(studies, metric).encode()}
    files[f"{stem}leaderboard.csv"] = leaderboard_csv(studies).encode()
    for number, study in enumerate(studies):
        if study.cells:
            suffix = f"-{study.data or number}" if number else ""
            files[f"{stem}heatmap{suffix}.png"] = heatmap_png(study, metric if metric in study.metrics else None)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            _replace(target.with_name(name), content)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"{target}: cannot be written ({reason}): kd-report --output FILE writes it elsewhere"
        ) from error
    return target


def render(studies: Sequence[Study], metric: str | None = None) -> str:
    """The whole page as text."""
    first = studies[0]
    cards = summary.cards(first, first.test_metric)
    said = "; ".join(f"{card['label']}: {card['value']} ({card['note']})" for card in cards)
    parts = {
        "title": html.escape(first.title),
        "summary": html.escape(f"{summary.headline(first)}. {said}"),
        "style": _asset("report.css"),
        "body": _asset("body.html"),
        "plotly": packed_plotly(),
        "scripts": "\n".join(_asset(name) for name in SCRIPTS),
        "data": to_json(payload(studies, metric)),
    }
    page = _asset("page.html")
    for name, text in parts.items():
        before, mark, after = page.partition("{{" + name + "}}")
        if not mark:
            raise RuntimeError(f"assets/page.html has no place for {name}")
        page = before + text + after
    return page


@lru_cache(maxsize=1)
def plotly_script() -> str:
    """plotly.js as the installed plotly brings it, safe inside a script element."""
    import plotly

    script = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    return script.read_text(encoding="utf-8").replace("</script", "<\\/script")


@lru_cache(maxsize=1)
def packed_plotly() -> str:
    """The same, gzipped and as base64: 2 MB instead of 4.8, which the page unpacks when it opens."""
    return base64.b64encode(gzip.compress(plotly_script().encode(), 9, mtime=0)).decode()


def leaderboard_csv(studies: Sequence[Study]) -> str:
    """The leaderboard as CSV: raw figures at full precision, best on validation first, references on top."""
    keys = list(dict.fromkeys(factor.key for study in studies for factor in study.factors))
    names = list(dict.fromkeys(name for study in studies for name in study.metrics))
    head = ["data", "kind", "configuration", "chosen", *keys, "runs"]
    head += [f"{name} {part}" for name in names for part in ("mean", "std", "n")]
    head += ["better than alone by", "95 % low", "95 % high"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    for study in studies:
        sign = -study.declared.monitored.sign
        found = summary.rows(study)
        worst = float("inf")
        found.sort(key=lambda r: (r["kind"] == "cell", sign * _mean(r, study.val_metric) if r["stats"] else worst))
        for row in found:
            values = dict(zip((factor.key for factor in study.factors), row["values"], strict=False))
            gain = row["gains"].get(study.test_metric, {})
            line = [study.data, row["kind"], row["label"], "yes" if row["chosen"] else ""]
            line += [format_value(values[key]) if key in values else "" for key in keys] + [row["runs"]]
            line += [row["stats"].get(name, {}).get(part) for name in names for part in ("mean", "std", "n")]
            writer.writerow([*line, gain.get("mean"), gain.get("low"), gain.get("high")])
    return out.getvalue()


def _mean(row: dict, metric: str) -> float:
    return row["stats"].get(metric, {}).get("mean", 0.0)


@lru_cache(maxsize=16)
def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _replace(path: Path, content: bytes) -> None:
    """Write ``content`` beside ``path`` and move it there in one step."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(name, 0o644)  # mkstemp's 0600 would hide the report from colleagues
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
