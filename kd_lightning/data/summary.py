"""What a data set is: as plain values for ``result.json``, and as the line that is shown before training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kd_lightning.batch import UNLABELLED

if TYPE_CHECKING:
    from kd_lightning.data.module import DistillationDataModule
    from kd_lightning.data.samples import Samples

_LOOKED_AT = 64  # samples whose inputs are read for their statistics
_NAMED = 6


def described(data: DistillationDataModule) -> dict[str, Any]:
    """Sizes, class names, normalisation and the form of the inputs, as plain values: what a finished run is used with."""
    example = data.example_batch()
    return {
        "sizes": data.sizes(),
        "class_names": None if data.class_names is None else [str(name) for name in data.class_names],
        "mean": data.mean,
        "std": data.std,
        "scale": None if data.mean is None else data.scale,
        "reading": None if data.reading is None else dict(data.reading),
        "example": structure(example.inputs),
        "samples": {"train": data.train_samples, "labelled": data.labelled_in("train"), "val": data.val_samples},
        "notes": list(data.notes),
    }


def structure(inputs: Any) -> Any:
    """Inputs as plain values: a tensor (N, ...) becomes its ``{"shape": [...], "dtype": "float32"}`` without N."""
    if isinstance(inputs, Tensor):
        return {"shape": list(inputs.shape[1:]), "dtype": str(inputs.dtype).removeprefix("torch.")}
    if isinstance(inputs, Mapping):
        return {"fields": {str(name): structure(value) for name, value in inputs.items()}}
    if isinstance(inputs, (list, tuple)) and not all(isinstance(value, str) for value in inputs):
        return {"items": [structure(value) for value in inputs]}
    if isinstance(inputs, (list, tuple)):  # of texts, one a sample
        return {"type": "text"}
    return {"type": type(inputs).__name__}


def summary_line(data: DistillationDataModule) -> str:
    """``1,078 training samples (200 labelled), 120 for validation; 10 classes; inputs 1 x 8 x 8 float32, …``"""
    samples = data.train_views_dataset
    known = data.labelled_in("train")
    labelled = "" if known == len(samples) else f" ({known:,} labelled)"
    text = [f"{len(samples):,} training samples{labelled}, {data.val_samples:,} for validation"]
    text.append(_targets(data, samples))
    rows = torch.linspace(0, len(samples) - 1, min(_LOOKED_AT, len(samples))).long()
    inputs, _ = samples.read(rows, 0)
    text.append(f"inputs {_inputs(inputs)}")
    return "; ".join([*(part for part in text if part), *data.notes])


def _targets(data: DistillationDataModule, samples: Samples) -> str:
    targets = samples.targets
    if targets is None:
        return "no labels" if data.labelled_in("train") == 0 else ""
    if targets.is_floating_point():
        form = " x ".join(map(str, targets.shape[1:]))
        return f"targets {form or 'one'} value{'s' * bool(form)}, {_range(targets[~targets.isnan()])}"
    known = targets[targets != UNLABELLED]
    if not known.numel():
        return "no labels"
    if targets.dim() == 2 and targets.shape[1] == data.num_classes:
        return _answers(targets)
    classes = f"{data.num_classes} classes, " if data.num_classes else ""
    dense = f" of {' x '.join(map(str, targets.shape[1:]))}" if targets.dim() > 1 else ""
    missing = []
    if data.num_classes and data.num_classes <= 10_000:
        present = set(known.unique().tolist())
        missing = [number for number in range(data.num_classes) if number not in present]
    gap = f", none of class {_listed(missing)}" if missing else ""
    return f"{classes}labels{dense} {int(known.min())} to {int(known.max())}{gap}"


def _answers(targets: Tensor) -> str:
    """Of rows with a yes or no for each class (N, C)."""
    known = targets[targets != UNLABELLED]
    never = [number for number, column in enumerate(targets.T) if not bool((column > 0).any())]
    gap = f", never 1: class {_listed(never)}" if never else ""
    share = float((known > 0).float().mean())
    return f"{targets.shape[1]} classes, each {int(known.min())} or {int(known.max())}, {share:.0%} above 0{gap}"


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:_NAMED])) + (", …" if len(numbers) > _NAMED else "")


def _inputs(inputs: Any) -> str:
    if isinstance(inputs, Mapping):
        return ", ".join(f"{key}: {_inputs(value)}" for key, value in inputs.items())
    to = getattr(inputs, "pixels", None)  # bytes on their way to a device
    values = inputs if isinstance(inputs, Tensor) else to
    if not isinstance(values, Tensor):
        parts = inputs if isinstance(inputs, tuple) else ()
        return ", ".join(map(_inputs, parts)) or type(inputs).__name__
    form = " x ".join(map(str, values.shape[1:])) or "1"
    spread = f", mean {values.float().mean():.3g}, std {values.float().std():.3g}" if values.numel() > 1 else ""
    return f"{form} {str(values.dtype).removeprefix('torch.')}{spread}, {_range(values)}"


def _range(values: Tensor) -> str:
    finite = values.float()[torch.isfinite(values.float())]
    odd = values.numel() - finite.numel()
    told = f" ({odd} of {values.numel()} values are no finite numbers)" if odd else ""
    return (f"from {finite.min():.3g} to {finite.max():.3g}" if finite.numel() else "no finite value") + told
