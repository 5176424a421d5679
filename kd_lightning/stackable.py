"""Which members' students can run as one: those of which nothing differs but the values of weights and buffers.

A stack runs the code of its first student with everybody's weights. So whatever else that code may look at has to be
known to be equal; what cannot be compared counts as different.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from kd_lightning.member import Member

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


def why_not(member: Member) -> str | None:
    """Why a member's student cannot run together with any other, or None."""
    if member.compiled:
        return "its student is compiled (compile)"
    if member.method.wants_views:
        return "its method compares views of a sample"
    if member.optimization.separate is not None:
        return "its optimizer takes several gradients a step"
    if found := member.method.differentiating:
        return f"method.terms.{found[0]} differentiates the student's output by its features"
    if sum(map(_hooks, member.student.modules())) > len(member.taps.layers):
        return "hooks are set on its student's layers"
    for name, module in member.student.named_modules():
        for key, value in _settings(module).items():
            if _holds_tensor(value):
                return f"its student keeps a tensor that is no parameter and no buffer ({name}.{key})".replace(
                    "(.", "("
                )
    return None


def difference(one: Member, other: Member) -> str | None:
    """What tells two members' students apart, beside the values of weights and buffers; None: nothing."""
    if (one.precision, one.channels_last) != (other.precision, other.channels_last):
        return f"its precision or memory format is not that of {one.name}"
    if one.taps.layers != other.taps.layers:
        return f"it taps other layers than {one.name}"
    mine, theirs = dict(one.student.named_modules()), dict(other.student.named_modules())
    if [(name, type(module)) for name, module in mine.items()] != [
        (name, type(module)) for name, module in theirs.items()
    ]:
        return f"its student has other layers than that of {one.name}"
    for name, module in mine.items():
        if module.training != theirs[name].training or not _equal(_settings(module), _settings(theirs[name])):
            return f"its student{name and f', layer {name},'} is set otherwise than that of {one.name}"
    if _forms(one.student) != _forms(other.student):
        return f"its student has weights of other shapes or types, or others that learn, than that of {one.name}"
    return None


def _hooks(module: nn.Module) -> int:
    forward, backward = (
        (module._forward_hooks, module._forward_pre_hooks),
        (module._backward_hooks, module._backward_pre_hooks),
    )
    return sum(map(len, (*forward, *backward)))


def _settings(module: nn.Module) -> dict[str, Any]:
    """A module's attributes that are no parameters, buffers or modules, and not every module's."""
    return {key: value for key, value in vars(module).items() if key not in _OF_EVERY_MODULE}


def _forms(student: nn.Module) -> list[tuple[Any, ...]]:
    named = [*student.named_parameters(), *student.named_buffers()]
    return [(name, value.shape, value.dtype, value.device, value.requires_grad) for name, value in named]


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(map(_holds_tensor, value))
    return isinstance(value, Tensor)


def _equal(one: Any, other: Any) -> bool:
    """Whether two values are known to be equal."""
    try:
        return type(one) is type(other) and bool(one == other)
    except Exception:  # what has no truth: an array of several
        return False
