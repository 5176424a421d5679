"""Layers of a student that learn otherwise than the rest: frozen, or with settings of their own in the optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from kd_lightning.errors import UserError
from kd_lightning.taps import no_such_layer

FROZEN = "frozen"
Layers = Mapping[str, Mapping[str, Any]]


def freeze_layers(student: nn.Module, layers: Layers) -> list[nn.Module]:
    """Take the frozen layers' parameters out of training; returns them, to be kept in eval mode (BatchNorm, dropout).

    Args:
        student: the model.
        layers: by name as ``named_modules()`` has it: ``{"frozen": True}``, or settings of the optimizer such as ``lr``.

    Raises:
        UserError: no such layer, or settings beside ``frozen: true``.
    """
    modules = dict(student.named_modules())
    frozen = []
    for name, settings in layers.items():
        where = f"optimizer.layers.{name}"
        if name not in modules or not name:
            raise UserError(f"{where}: {no_such_layer(name, list(modules))}")
        if not isinstance(settings, Mapping) or not settings:
            raise UserError(f"{where} must be a mapping, {{lr: 0.001}} or {{frozen: true}}, got {settings!r}")
        if settings.get(FROZEN):
            if len(settings) > 1:
                raise UserError(f"{where}: a frozen layer has no other settings, got {', '.join(settings)}")
            modules[name].requires_grad_(False).eval()
            frozen.append(modules[name])
    return frozen


def check_settings(layers: Layers, optimizer: Optimizer) -> None:
    """Stop at a setting that the optimizer does not have: torch would keep it in the group and never look at it.

    Raises:
        UserError: naming layer and setting.
    """
    for layer, settings in layers.items():
        for key in settings:
            if key != FROZEN and key not in optimizer.defaults:
                known = ", ".join(optimizer.defaults)
                raise UserError(f"optimizer.layers.{layer}.{key}: {type(optimizer).__name__} has {known}")


def parameter_groups(student: nn.Module, layers: Layers, parameters: Sequence[nn.Parameter]) -> list[Any]:
    """What an optimizer is made of: the parameters as they are, or groups of them where layers have their own settings.

    Args:
        student: the model.
        layers: see :func:`freeze_layers`; of nested layers the inner one counts.
        parameters: those that learn, the student's and others'.
    """
    own = {name: {k: v for k, v in settings.items() if k != FROZEN} for name, settings in layers.items()}
    own = {name: settings for name, settings in own.items() if settings}
    if not own:
        return list(parameters)
    layer_of: dict[int, str] = {}
    for name, parameter in student.named_parameters():
        above = [layer for layer in own if name.startswith(f"{layer}.")]
        if above:
            layer_of[id(parameter)] = max(above, key=len)
    groups: list[dict[str, Any]] = [{"params": [p for p in parameters if id(p) not in layer_of]}]
    for layer, settings in own.items():
        groups.append({"params": [p for p in parameters if layer_of.get(id(p)) == layer], **settings})
    return [group for group in groups if group["params"]]
