"""The model card: README.md as Hugging Face's hub reads it, metadata in YAML before the text."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import yaml

from kd_lightning.exporting.named_inputs import takes_names
from kd_lightning.exporting.over_seeds import over_seeds
from kd_lightning.metrics.declared import Declared
from kd_lightning.running.open_run import OpenRun
from kd_lightning.tasks.classification import ClassificationTask
from kd_lightning.terminal.table import Closing, result_table

_PIPELINE = "image-classification"
"""The hub's word for what the student does, where it is this; for other students none is claimed."""


def model_card(run: OpenRun, result: Mapping[str, Any], report: Mapping[str, Any], comparison: Closing) -> str:
    """The card's text.

    Args:
        run: opened.
        result: its ``result.json``.
        report: ``export.json``.
        comparison: of the exported files.
    """
    metadata = yaml.safe_dump(_metadata(run, result, report), sort_keys=False, allow_unicode=True)
    parts = [
        f"---\n{metadata}---\n\n# {run.spec.name}",
        f"{_what(run, result)}",
        f"## Figures\n\n{result_table(result).markdown()}\n{over_seeds(run.spec.run_dir) or ''}",
        f"## Files\n\n{comparison.markdown()}\n{_OF_TEXTS if takes_names(run) else _INPUTS}",
        f"## How it was made\n\n{_made(run, result, report)}",
        "## Licence\n\nNot stated: it depends on the data and the teacher. Add `license:` to the metadata above.",
    ]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


_INPUTS = (
    "Every file was opened again and compared with the checkpoint on the test split. `preprocessing.json` says what they "
    "take: files with `uint8` inputs take raw pixels, the others `(pixels / scale - mean) / std` where these are known. "
    "The first dimension is the batch, of any size."
)


_OF_TEXTS = (
    "Every file was opened again and compared with the checkpoint on the test split. They take `input_ids` and `attention_mask`, "
    "int64 of shape (N, L), batch and length of any size; `preprocessing.json` says how a text becomes token numbers."
)


def _metadata(run: OpenRun, result: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, Any]:
    metric = Declared.of_result(result).monitored
    classifies_images = (
        not takes_names(run) and len(run.example_shape) == 3 and result.get("task") == ClassificationTask.name
    )
    formats = sorted({str(figures["format"]).rpartition(".")[2] for figures in report["files"].values()})
    task = {"type": _PIPELINE} if classifies_images else {"type": "other", "name": str(result.get("task"))}
    value = report["checkpoint"]["metrics"].get(metric.name)
    index = {
        "name": run.spec.name,
        "results": [
            {
                "task": task,
                "dataset": {"type": _data(run), "name": _data(run), "split": "test"},
                "metrics": [{"type": metric.heading, "value": value}],
            }
        ],
    }
    return {
        "library_name": "pytorch",
        **({"pipeline_tag": _PIPELINE} if classifies_images else {}),
        "tags": ["knowledge-distillation", "kd-lightning", *formats],
        "model-index": [index],
    }


def _data(run: OpenRun) -> str:
    return str(run.spec.config["data"].get("_target_")).rpartition(".")[2]


def _what(run: OpenRun, result: Mapping[str, Any]) -> str:
    """In a sentence: which model, and whose student."""
    model = str(run.spec.config["student"].get("_target_"))
    teacher = result.get("teacher")
    taught = f", distilled from {teacher.get('name')}" if teacher and run.spec.role == "distilled" else ""
    parameters = (result.get("student") or {}).get("parameters")
    count = f" of {parameters:,} parameters" if parameters is not None else ""
    return f"`{model}`{count}{taught}, trained on {_data(run)}."


def _made(run: OpenRun, result: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    samples = (result.get("data") or {}).get("samples") or {}
    counts = ", ".join(f"{name} {count:,}" for name, count in samples.items() if count is not None)
    terms = ", ".join((run.spec.config["method"].get("terms") or {}).keys()) or "labels alone"
    teacher = result.get("teacher")
    lines = {
        "command": f"`{shlex.join(['kd-train', *run.spec.overrides])}`",
        "data": f"{_data(run)} ({counts})" if counts else _data(run),
        "loss terms": terms,
        "teacher": f"{teacher.get('name')}, fingerprint `{teacher.get('fingerprint')}`" if teacher else "none",
        "seed": result.get("seed"),
        "run": f"fingerprint `{run.spec.fingerprint}`",
        "trained with": ", ".join(f"{name} {version}" for name, version in (result.get("versions") or {}).items()),
        "exported with": ", ".join(f"{name} {version}" for name, version in report["versions"].items()),
    }
    return "\n".join(f"- {name}: {value}" for name, value in lines.items())
