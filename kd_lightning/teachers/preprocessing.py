"""By what the inputs of a teacher's weights were normalised, where that comes with them, beside what it is given here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from kd_lightning.runs.directory import checkpoint_in
from kd_lightning.teachers.inputs import Normalization, normalization_doubt

SAME_MEAN, SAME_STD = 0.01, 0.05  # of pixels in [0, 1]; a share of the standard deviation: rounding, another subset


class TrainedWith(NamedTuple):
    """Mean and std of each channel, of pixels in [0, 1], and who says so."""

    mean: list[float]
    std: list[float]
    said_by: str


def trained_with(origin: Mapping[str, Any], module: nn.Module, node: Mapping[str, Any]) -> TrainedWith | None:
    """What is known of a network's weights; None where nobody says it, or they were not normalised by channel.

    Args:
        origin: where the weights are from: ``run_dir`` or ``checkpoint``; neither: they came with the model.
        module: the network; timm's, and those of the hub, carry a ``pretrained_cfg``.
        node: the model's ``_target_`` and arguments; torchvision's weights say how they are used.
    """
    place = origin.get("run_dir") or origin.get("checkpoint")
    return beside(place) if place else _of_module(module) or _of_torchvision(node)


def beside(path: Path | str) -> TrainedWith | None:
    """What ``preprocessing.json`` beside an exported file, or ``result.json`` of the run of a checkpoint, says."""
    file = checkpoint_in(str(path))
    exported = _read(file.parent / "preprocessing.json")
    if exported.get("inputs", {}).get(file.suffix.lstrip("."), "normalised") != "normalised":
        return None  # it takes bytes and normalises itself
    results = [folder / "result.json" for folder in (file.parent, file.parent.parent)]
    for source, known in [
        ("its preprocessing.json", exported),
        *((str(p), _read(p).get("data") or {}) for p in results),
    ]:
        if found := _numbers(known, source):
            return found
    return None


def other_normalization(
    known: TrainedWith | None, teacher: Normalization | None, data: Normalization | None, inputs: Any, where: str
) -> str | None:
    """What to say where a teacher is given other inputs than its weights were trained with; None where nothing shows it.

    Args:
        known: of its weights.
        teacher: ``teacher.normalization``: the inputs are brought to it; None: they stay the data's.
        data: what the data say that they were normalised by; None: a batch of ``inputs`` is looked at.
        inputs: as the loader makes them.
        where: the teacher's key.
    """
    if known is None:
        return None
    own: Normalization = {"mean": known.mean, "std": known.std}
    given = teacher or data
    if given is None:
        fits = isinstance(inputs, Tensor) and inputs.dim() > 1 and inputs.shape[1] == len(known.mean)
        doubt = normalization_doubt(inputs, own, "these") if fits else None
    elif len(given["mean"]) != len(known.mean) or _alike(own, given):
        doubt = None
    else:
        doubt = f"come with {_shown(given)}"
    if doubt is None:
        return None
    values = f"{{mean: [{_list(known.mean)}], std: [{_list(known.std)}]}}".replace(" ", "")
    missing = " and data.mean, data.std, by which your data set normalised" if given is None else ""
    return (
        f"it was trained on pixels in [0, 1] normalised by {_shown(own)} ({known.said_by}), and its inputs here {doubt}: set "
        f"{where}.normalization={values}{missing}"
    )


def _alike(one: Normalization, other: Normalization) -> bool:
    means = all(abs(a - b) <= SAME_MEAN for a, b in zip(one["mean"], other["mean"], strict=True))
    return means and all(abs(a - b) <= SAME_STD * a for a, b in zip(one["std"], other["std"], strict=True))


def _shown(normalization: Normalization) -> str:
    return f"mean {_list(normalization['mean'])}, std {_list(normalization['std'])}"


def _list(values: Any) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _of_module(module: nn.Module) -> TrainedWith | None:
    found = (getattr(part, "pretrained_cfg", None) for part in module.modules())
    made = next((cfg for cfg in found if isinstance(cfg, Mapping)), {})
    return _numbers(made, "its pretrained_cfg")


def _of_torchvision(node: Mapping[str, Any]) -> TrainedWith | None:
    target, weights = str(node.get("_target_")), node.get("weights")
    by_name = target.rpartition(".")[2] == "pretrained_torchvision"
    if not (by_name or (target.startswith("torchvision.models.") and weights)):
        return None
    from torchvision import models

    try:
        known = models.get_model_weights(str(node.get("name")) if by_name else target.rpartition(".")[2])
    except ValueError:
        return None
    chosen = getattr(known, str(weights or "DEFAULT").rpartition(".")[2], None)
    transform = None if chosen is None else chosen.transforms()
    said = {"mean": getattr(transform, "mean", None), "std": getattr(transform, "std", None)}
    return _numbers(said, f"torchvision's {chosen}")


def _numbers(known: Mapping[str, Any], said_by: str) -> TrainedWith | None:
    mean, std = known.get("mean"), known.get("std")
    if not isinstance(mean, (list, tuple)) or not isinstance(std, (list, tuple)) or len(mean) != len(std) or not mean:
        return None
    return TrainedWith([float(value) for value in mean], [float(value) for value in std], said_by)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
