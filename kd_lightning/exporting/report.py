"""What an export leaves beside the student's files: ``export.json``, its table, ``preprocessing.json``."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd_lightning.exporting.compare import BATCHES
from kd_lightning.exporting.named_inputs import NAMES, takes_names
from kd_lightning.exporting.tokenizers import with_tokenizer
from kd_lightning.metrics.declared import Declared
from kd_lightning.metrics.metric import Metric
from kd_lightning.metrics.show import NONE, show, unit, with_unit
from kd_lightning.running.open_run import OpenRun
from kd_lightning.runs.provenance import host, versions
from kd_lightning.terminal.table import Closing, size

REPORT = "export.json"
PACKAGES = ("onnx", "onnxscript", "onnxruntime", "safetensors")


_FIGURES = {"format", "inputs", "bytes", "metrics", "largest_difference", "equal_decisions", "latency_ms"}
"""What is known of each file."""


def report_content(
    result: Mapping[str, Any], samples: int, checkpoint: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """``export.json``.

    Args:
        result: of the run.
        samples: of the test split.
        checkpoint: its figures (:meth:`kd_lightning.exporting.compare.Compared.figures`).
        files: by name: format, size, figures.
    """
    return {
        "run": result["name"],
        "fingerprint": result["fingerprint"],
        "monitor": result["monitor"],
        "declared": result.get("declared"),
        "test_samples": samples,
        "checkpoint": {name: checkpoint[name] for name in ("metrics", "latency_ms")},
        "files": dict(files),
        "versions": {**versions(), **_installed()},
        "host": host(),
    }


def loss_of_metric(
    result: Mapping[str, Any], checkpoint: Mapping[str, Any], figures: Mapping[str, Any]
) -> float | None:
    """How much worse a file's test metric is than the checkpoint's, > 0 for worse; None where it has none."""
    metric = Declared.of_result(result).monitored
    before, now = (found["metrics"].get(metric.name) for found in (checkpoint, figures))
    return None if before is None or now is None else metric.sign * (before - now)


def earlier_files(directory: Path, fingerprint: str) -> dict[str, Any]:
    """What ``export.json`` says of this run's files, those that are still there; empty without one."""
    try:
        report = json.loads((directory / REPORT).read_text())
        files = report["files"] if report["fingerprint"] == fingerprint else {}
        return {
            name: figures
            for name, figures in files.items()
            if figures.keys() >= _FIGURES and _bytes(directory / name) == figures["bytes"]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none, or not one of ours
        return {}


def _bytes(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def comparison_table(report: Mapping[str, Any]) -> Closing:
    """The checkpoint and every file, side by side."""
    metric = Declared.of_result(report).monitored
    header = ["", "inputs", metric.heading, "lost", "equal decisions", "largest difference", "size"]
    header += [f"batch {samples}" for samples in BATCHES]
    checkpoint = report["checkpoint"]
    first = with_unit(metric, checkpoint["metrics"].get(metric.name))
    rows = [["checkpoint", NONE, first, NONE, NONE, NONE, NONE, *_latencies(checkpoint)]]
    for name, figures in report["files"].items():
        equal = figures["equal_decisions"]
        rows.append(
            [
                name,
                figures["inputs"],
                with_unit(metric, figures["metrics"].get(metric.name)),
                _lost(metric, figures.get("lost")),
                NONE if equal is None else f"{100 * equal:.2f} %",
                f"{figures['largest_difference']:.1e}",
                size(figures["bytes"]),
                *_latencies(figures),
            ]
        )
    return Closing(header, rows, title=f"{report['run']}, {report['test_samples']:,} test samples")


def _lost(metric: Metric, value: float | None) -> str:
    return NONE if value is None else f"{show(metric, value + 0.0, more=1)}{unit(metric, difference=True)}"


def preprocessing(run: OpenRun, report: Mapping[str, Any]) -> dict[str, Any]:
    """``preprocessing.json``: what stands between an image and the student, and what its outputs are called."""
    known = run.preprocessing
    return {
        **(_of_texts(run) if takes_names(run) else _of_one_tensor(run)),
        "scale": known.scale,
        "mean": known.mean,
        "std": known.std,
        "reading": with_tokenizer(run),
        "task": run.task,
        "class_names": run.class_names,
        **run.problem.describe_exported(),
        "inputs": {name: figures["inputs"] for name, figures in report["files"].items()},
    }


def _of_one_tensor(run: OpenRun) -> dict[str, Any]:
    return {
        "shape": list(run.example_shape),
        "dtype": str(run.example_inputs().dtype).removeprefix("torch."),
        "formula": "(pixels / scale - mean) / std",
    }


def _of_texts(run: OpenRun) -> dict[str, Any]:
    named = {name: {"shape": ["N", "L"], "dtype": "int64"} for name in NAMES}
    return {"shape": None, "dtype": None, "formula": None, "inputs_by_name": named}


def _latencies(figures: Mapping[str, Any]) -> list[str]:
    times = [figures["latency_ms"].get(str(samples)) for samples in BATCHES]
    return [NONE if time is None else f"{time:.3f} ms" for time in times]


def _installed() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
