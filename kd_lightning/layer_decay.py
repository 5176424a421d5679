"""Layer-wise learning-rate decay (Clark et al. 2020, ICLR, arXiv:2003.10555, section 3.1): the nearer to the input, the slower."""

from __future__ import annotations

from collections import Counter

from torch import nn

_LISTS = (nn.Sequential, nn.ModuleList)


def rate_factors(student: nn.Module, decay: float) -> dict[int, float]:
    """``decay ** (layers behind it)`` for each parameter, by ``id``: 1 for the last layer's, less for those before.

    Args:
        student: its layers, see :func:`layers_in_order`; what belongs to none (positions, class tokens) counts with the first.
        decay: in (0, 1].
    """
    layers = layers_in_order(student)
    factors = {}
    for name, parameter in student.named_parameters():
        number = next((i for i, layer in enumerate(layers) if name.startswith(f"{layer}.")), 0)
        factors[id(parameter)] = decay ** (len(layers) - 1 - number)
    return factors


def layers_in_order(model: nn.Module) -> list[str]:
    """Names of the layers with parameters as the model defines them, first to last; blocks of a stage are one each."""
    return _parts(model, "")


def _parts(module: nn.Module, prefix: str) -> list[str]:
    found = []
    repeats = _repeats(module)
    for name, child in module.named_children():
        if next(child.parameters(), None) is None:
            continue
        # a block is one layer, whatever it is made of; a stage is as many as it has blocks
        opened = _repeats(child) if repeats else any(_repeats(part) for part in child.modules())
        found += _parts(child, f"{prefix}{name}.") if opened else [f"{prefix}{name}"]
    return found


def _repeats(module: nn.Module) -> bool:
    """Whether it is a list in which some kind of layer comes more than once."""
    if not isinstance(module, _LISTS):
        return False
    kinds = Counter(type(child) for child in module.children() if next(child.parameters(), None) is not None)
    return max(kinds.values(), default=0) > 1
