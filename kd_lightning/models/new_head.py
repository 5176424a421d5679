"""Any classifier with a new last layer: a model with 1,000 classes for data with ten."""

from __future__ import annotations

from torch import nn

from kd_lightning.errors import UserError

HEADS = (nn.Linear, nn.Conv2d)


def new_head(model: nn.Module, num_classes: int, layer: str | None = None) -> nn.Module:
    """The model with a fresh last layer of ``num_classes`` outputs; all else keeps its weights.

    Args:
        model: with a classifier that is an ``nn.Linear``, or an ``nn.Conv2d`` as in SqueezeNet; changed in place.
        num_classes: outputs of the new layer, >= 1.
        layer: the classifier's name (``kd-layers`` lists them); None: the last layer of these kinds in the model.

    Raises:
        UserError: there is no such layer, or it is of another kind.
    """
    name = layer if layer is not None else _last(model)
    try:
        old = model.get_submodule(name)
    except AttributeError as error:
        raise UserError(
            f"layer={name}: {type(model).__name__} has no such layer; its last ones are {', '.join(_named(model)[-3:])}"
        ) from error
    parent, _, leaf = name.rpartition(".")
    bias = getattr(old, "bias", None) is not None
    if isinstance(old, nn.Linear):
        made: nn.Module = nn.Linear(old.in_features, num_classes, bias)
    elif isinstance(old, nn.Conv2d):
        made = nn.Conv2d(old.in_channels, num_classes, old.kernel_size, old.stride, old.padding, bias=bias)  # type: ignore[arg-type]  # the tuples that it keeps are what it takes
    else:
        raise UserError(f"layer={name}: is a {type(old).__name__}: a new head is made of nn.Linear or nn.Conv2d")
    setattr(model.get_submodule(parent), leaf, made)
    return model


def _last(model: nn.Module) -> str:
    named = _named(model)
    if not named:
        raise UserError(f"{type(model).__name__} has no nn.Linear and no nn.Conv2d: name its classifier with layer=")
    return named[-1]


def _named(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, HEADS) and name]
