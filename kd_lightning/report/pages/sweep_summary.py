"""A sweep's heatmap and leaderboard for TensorBoard: the run ``00_sweep``, which sorts before the sweep's own runs.

The event file is written with TensorBoard's own record format and protocol buffers; torch isn't needed. Its step is the
number of finished runs, so that the image slider shows how the sweep filled.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Sequence
from pathlib import Path

from kd_lightning.metrics import show
from kd_lightning.report.charts.scatter import fidelity_metric
from kd_lightning.report.pages.picture import THUMBNAIL, heatmap_png
from kd_lightning.report.study import remarks, summary
from kd_lightning.report.study.collect import collect
from kd_lightning.report.study.study import Study

RUN_NAME = "00_sweep"
_MARK = ".kd_lightning_sweep"


def write_sweep_summary(directory: Path | str, studies: Sequence[Study] | None = None) -> Path:
    """Write (or replace) the summary's event file in ``directory/00_sweep`` and return its path.

    Args:
        directory: the sweep's directory.
        studies: what ``collect(directory)`` gives, if it is at hand.

    Raises:
        UserError: if the directory holds no run.
    """
    directory = Path(directory)
    studies = collect(directory) if studies is None else studies
    folder = directory / RUN_NAME
    folder.mkdir(parents=True, exist_ok=True)
    old = sorted(folder.glob(f"events.out.tfevents.*{_MARK}"))
    now = time.time()
    target = folder / f"events.out.tfevents.{now:017.6f}{_MARK}"
    partial = folder / f".{target.name}"
    partial.write_bytes(_events(studies, now))
    os.replace(partial, target)
    for path in old:
        path.unlink(missing_ok=True)
    return target


def leaderboard_markdown(study: Study, limit: int = 50) -> str:
    """The leaderboard as a Markdown table, best on validation first, with the chosen configuration in bold."""
    sign = -study.declared.monitored.sign
    rows = summary.rows(study)
    cells = [row for row in rows if row["kind"] == "cell" and row["stats"]]
    if study.val_metric in study.metrics:
        cells = [row for row in cells if study.val_metric in row["stats"]]
        cells.sort(key=lambda row: sign * row["stats"][study.val_metric]["mean"])
    shown = [name for name in (study.test_metric, study.val_metric, fidelity_metric(study)) if name in study.metrics]
    head = ["configuration", *shown, "difference to the student alone", "runs"]
    lines = [summary.headline(study), "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in [row for row in rows if row["kind"] != "cell"] + cells[:limit]:
        figures = [_figure(study, name, row["stats"].get(name)) for name in shown]
        gain = row["gains"].get(study.test_metric)
        said = "" if gain is None else gain["text"] + (f" ± {gain['half']}" if gain["half"] else "")
        name = (row["label"] or "distilled").replace("|", "\\|")
        label = f"**{name}** (chosen)" if row["chosen"] else name
        lines.append("| " + " | ".join([label, *figures, said, row["runs"]]) + " |")
    return "\n".join(
        [
            *lines,
            "",
            *(f"- **{warning}**" for warning in remarks.warnings(study)),
            *(f"- {note}" for note in remarks.notes(study)),
        ]
    )


def _figure(study: Study, metric: str, stats: dict | None) -> str:
    if stats is None:
        return ""
    return stats["text"] + (f" ± {stats['spread']}" if stats["spread"] else "") + show.unit(study.reads(metric))


def _events(studies: Sequence[Study], now: float) -> bytes:
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.summary.writer.record_writer import RecordWriter

    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    writer.write(event_pb2.Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
    for study in studies:
        values = [*_pictures(study, len(studies) > 1), _text(study, len(studies) > 1)]
        step = study.counts["finished"]
        event = event_pb2.Event(wall_time=now, step=step, summary=summary_pb2.Summary(value=values))
        writer.write(event.SerializeToString())
    return buffer.getvalue()


def _tag(name: str, study: Study, several: bool) -> str:
    return f"0_sweep/{name}" + (f"/{study.data}" if several else "")


def _pictures(study: Study, several: bool) -> list:
    from PIL import Image
    from tensorboard.compat.proto import summary_pb2

    values = []
    for metric in dict.fromkeys((study.val_metric, study.test_metric, fidelity_metric(study))):
        if metric not in study.metrics or not study.cells:
            continue
        png = heatmap_png(study, metric, size=THUMBNAIL)
        width, height = Image.open(io.BytesIO(png)).size
        image = summary_pb2.Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
        tag = _tag("heatmap_" + metric.replace("/", "_"), study, several)
        values.append(summary_pb2.Summary.Value(tag=tag, image=image))
    return values


def _text(study: Study, several: bool):
    from tensorboard.compat.proto import summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
    from tensorboard.plugins.text.metadata import create_summary_metadata

    tensor = tensor_pb2.TensorProto(
        dtype=types_pb2.DT_STRING,
        string_val=[leaderboard_markdown(study).encode()],
        tensor_shape=tensor_shape_pb2.TensorShapeProto(dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=1)]),
    )
    tag = _tag("leaderboard", study, several)
    metadata = create_summary_metadata(display_name="", description="")
    return summary_pb2.Summary.Value(tag=tag, metadata=metadata, tensor=tensor)
