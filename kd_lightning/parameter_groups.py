"""Parameters that learn otherwise than the rest: layers that are frozen, slower or have settings of their own; vectors
without weight decay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import nn
from torch.optim import Optimizer

from kd_lightning.errors import UserError
from kd_lightning.layer_decay import rate_factors
from kd_lightning.taps import no_such_layer

FROZEN = "frozen"
FACTOR = "factor of layer_decay"
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


def check_settings(layers: Layers, optimizer: Optimizer, decay_vectors: bool = True) -> None:
    """Stop at a setting that the optimizer does not have: torch would keep it in the group and never look at it.

    Raises:
        UserError: naming layer and setting.
    """
    if not decay_vectors and "weight_decay" not in optimizer.defaults:
        raise UserError(f"optimizer.decay_vectors: {type(optimizer).__name__} has no weight decay: leave it out")
    for layer, settings in layers.items():
        for key in settings:
            if key != FROZEN and key not in optimizer.defaults:
                known = ", ".join(optimizer.defaults)
                raise UserError(f"optimizer.layers.{layer}.{key}: {type(optimizer).__name__} has {known}")


class Grouping(NamedTuple):
    """Which parameters have settings of their own.

    Attributes:
        layers: see :func:`freeze_layers`; of nested layers the inner one counts, before the other two.
        layer_decay: factor in (0, 1] of the learning rate from layer to layer, backwards
            (:func:`kd_lightning.layer_decay.rate_factors`); None: 1.
        decay_vectors: False: no weight decay for biases and norms (parameters of fewer than two dimensions).
    """

    layers: Layers = {}
    layer_decay: float | None = None
    decay_vectors: bool = True

    def groups(self, student: nn.Module, parameters: Sequence[nn.Parameter]) -> list[Any]:
        """What an optimizer is made of: the parameters as they are, or groups of them, the fastest first.

        Args:
            student: the model.
            parameters: those that learn, the student's and others'.
        """
        own = {name: {k: v for k, v in settings.items() if k != FROZEN} for name, settings in self.layers.items()}
        own = {name: settings for name, settings in own.items() if settings}
        factors = {} if self.layer_decay in (None, 1) else rate_factors(student, float(self.layer_decay or 1))
        if not own and not factors and self.decay_vectors:
            return list(parameters)
        layer_of: dict[int, str] = {}
        for name, parameter in student.named_parameters():
            above = [layer for layer in own if name.startswith(f"{layer}.")]
            if above:
                layer_of[id(parameter)] = max(above, key=len)
        groups: dict[tuple[float, str, bool], dict[str, Any]] = {}
        for parameter in parameters:
            layer = layer_of.get(id(parameter), "")
            settings = own.get(layer, {})
            factor = 1.0 if "lr" in settings else factors.get(id(parameter), 1.0)
            bare = not self.decay_vectors and parameter.dim() < 2 and "weight_decay" not in settings
            group = groups.setdefault((-factor, layer, bare), {"params": [], **settings})
            group["params"].append(parameter)
            group.update({"weight_decay": 0.0} if bare else {}, **({FACTOR: factor} if factors else {}))
        order = ["", *own]
        return [groups[key] for key in sorted(groups, key=lambda key: (key[0], order.index(key[1]), key[2]))]


def scale_rates(optimizer: Optimizer) -> None:
    """Multiply each group's learning rate, once, by the factor that :meth:`Grouping.groups` gave it.

    Raises:
        UserError: the optimizer has no learning rate.
    """
    for group in optimizer.param_groups:
        factor = group.pop(FACTOR, None)
        if factor is not None and "lr" not in group:
            raise UserError(f"optimizer.layer_decay: {type(optimizer).__name__} has no learning rate: leave it out")
        if factor is not None:
            group["lr"] *= factor
