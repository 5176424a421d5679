"""Which members' steps can be recorded once and replayed: those that do the same on other numbers each time.

A CUDA graph repeats what was launched while it was recorded. Whatever Python decides or counts from step to step would
stay as it was then, so a member is watched for a step of the loop before: who draws random numbers, or whose modules hold
something else afterwards, is not recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.member import Member

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_PLAIN = (bool, int, float, str, type(None), list, tuple, dict, set, frozenset)


def why_not(member: Member, device: torch.device) -> str | None:
    """Why a member's steps cannot be recorded, or None as far as that is known before its first step."""
    if device.type != "cuda":
        return f"CUDA graphs are for CUDA devices, this is {device.type}"
    if member.compiled:
        return "its student is compiled (compile=reduce-overhead records graphs by itself)"
    if member.optimization.separate is not None:
        return "its optimizer takes several gradients a step"
    if member.optimization.accumulate != 1:
        return "its gradient is accumulated over batches"
    if member.exchange is not None:
        return "it trains in several processes"
    if member.method.wants_clock or member.method.asks:
        return "its method looks at more than the outputs (a schedule, the clock, the samples' positions or views)"
    if found := member.method.differentiating:
        return f"method.terms.{found[0]} differentiates the student's output by its features"
    return None


def state_of(member: Member) -> dict[str, Any]:
    """What a replay would not move: random numbers, and what modules hold beside parameters and the values of buffers."""
    found: dict[str, Any] = {f"random numbers, {k}": v for k, v in member.rng.state_dict().items()}
    for name, module in member.named_modules():
        for key, value in vars(module).items():
            if key not in _OF_EVERY_MODULE:
                found[f"{name}.{key}".lstrip(".")] = _noted(value)
        for key, buffer in module.named_buffers(recurse=False):
            found[f"{name}.{key}, where it lies"] = buffer.data_ptr()
        found[f"{name}, its mode"] = module.training
    return found


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    """Names one thing that a step changed; None: nothing."""
    for name in {**before, **after}:
        one, other = before.get(name), after.get(name)
        if isinstance(one, Tensor) and isinstance(other, Tensor):
            if not torch.equal(one, other):
                return name
        elif type(one) is not type(other) or one != other:
            return name
    return None


def _noted(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.data_ptr(), value._version
    return repr(value) if isinstance(value, _PLAIN) else id(value)
