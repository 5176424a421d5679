"""A student that ends in its teacher's classifier (SimKD: Chen et al. 2022, CVPR, arXiv:2203.14001).

::

    student:  … ─► layer ─► projector ─► mean, flatten, … ─► the teacher's last linear layer, frozen ─► logits
                            (learned)    (the student's own)

The student's features are brought to the teacher's by a small projector, and the teacher's classifier, which nobody
trains again, reads them. Projector and classifier belong to the student: they are stored and exported with it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.calling import ask
from kd_lightning.errors import UserError
from kd_lightning.losses.heads import classifier_of
from kd_lightning.taps import Taps, no_such_layer


def projector(inner: int, outer: int, factor: float = 2.0, maps: bool = True, size: int | None = None) -> nn.Sequential:
    """From the student's channels to the teacher's: 1x1, 3x3 and 1x1 convolutions with BatchNorm and ReLU.

    Vectors get two linear layers with a ReLU between them.

    Args:
        inner: channels (or length) of the student's feature.
        outer: channels of the teacher's, the classifier's inputs.
        factor: the hidden width is ``outer / factor``.
        maps: whether the features are maps (N, C, H, W).
        size: largest height and width of maps: larger ones are averaged first; None: as they are.
    """
    width = max(1, int(outer // factor))
    if not maps:
        return nn.Sequential(nn.Linear(inner, width), nn.ReLU(), nn.Linear(width, outer))
    layers: list[nn.Module] = [] if size is None else [nn.AdaptiveAvgPool2d(size)]
    for before, after, kernel in ((inner, width, 1), (width, width, 3), (width, outer, 1)):
        convolution = nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False)
        layers += [convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def with_teacher_classifier(
    student: nn.Module,
    layer: str,
    factor: float = 2.0,
    size: int | None = None,
    *,
    teacher: nn.Module | None = None,
    example: Any = None,
    weights: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """The student, changed in place: a projector after ``layer``, and the teacher's classifier for its own.

    Between ``layer`` and the classifier nothing may depend on the number of channels (a mean, dropout, activations).
    ``layer`` gives the projected feature from then on, for taps too.

    Args:
        student: a model with a linear layer at its end.
        layer: the name of the layer whose output is projected: the map before the mean, or a vector.
        factor, size: of the :func:`projector`.
        teacher: whose last linear layer is copied; with ``example``.
        example: inputs of two samples, to read shapes off.
        weights: in place of teacher and example: the finished student's, whose shapes say everything.

    Raises:
        UserError: no such layer, no teacher that is a network, or features that are neither maps nor vectors.
    """
    modules = dict(student.named_modules())
    if layer not in modules or not layer:
        raise UserError(f"method.wrap.layer: {no_such_layer(layer, list(modules))}")
    own = classifier_of(student, "student")
    if own is modules[layer]:
        raise UserError(f"method.wrap.layer: {layer} is the student's classifier itself: give a layer before it")
    name = next(key for key, module in modules.items() if module is own)
    if weights is None:
        if teacher is None:
            raise UserError("method: takes the teacher's classifier, and needs a teacher that is one network")
        classifier = copy.deepcopy(classifier_of(teacher, "teacher")).to(own.weight.device)
        inner, maps = _shape(student, layer, example)
    else:
        shape = _stored(weights, f"{name}.weight").shape
        classifier = nn.Linear(shape[1], shape[0], bias=f"{name}.bias" in weights)
        first = _stored(weights, f"{layer}.1.{int(size is not None)}.weight", f"{layer}.1.0.weight")
        inner, maps = first.shape[1], first.ndim == 4
    added = projector(inner, classifier.in_features, factor, maps, size if maps else None).to(own.weight.device)
    _put(student, layer, nn.Sequential(modules[layer], added))
    _put(student, name, classifier.requires_grad_(False))
    if weights is None:
        _try(student, layer, example, classifier.in_features)
    return student


def _try(student: nn.Module, layer: str, example: Any, channels: int) -> None:
    training = student.training
    try:
        with torch.no_grad():
            ask(student.eval(), example)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"method.wrap.layer: what follows {layer} does not take the {channels} channels of the teacher: give the last "
            f"layer before the student's classifier ({' '.join(str(error).split())[:120]})"
        ) from error
    finally:
        student.train(training)


def _shape(student: nn.Module, layer: str, example: Any) -> tuple[int, bool]:
    """The channels that a layer gives, and whether they are maps."""
    taps, training = Taps(student, {"feature": layer}), student.training
    try:
        with torch.no_grad():
            feature = taps(student.eval(), example).features["feature"]
    finally:
        taps.remove()
        student.train(training)
    if feature.ndim not in (2, 4):
        raise UserError(
            f"method.wrap.layer: {layer} gives {tuple(feature.shape)}: it must give maps (N, C, H, W) or vectors (N, D)"
        )
    return feature.shape[1], feature.ndim == 4


def _stored(weights: Mapping[str, Tensor], *names: str) -> Tensor:
    for name in names:
        if name in weights:
            return weights[name]
    raise UserError(f"the student's weights hold no {names[0]}: they are of another method")


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
