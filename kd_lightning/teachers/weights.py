"""Digests of a module's weights, buffers and code: what its answers depend on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.config.source import source_fingerprint
from kd_lightning.tensor_bytes import bytes_of

_PYTORCHS_OWN = frozenset({*vars(nn.Module()), "train"})
_DEPTH = 4  # how far objects within attributes are looked into


def state_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """All parameters and buffers by name, tied ones and non-persistent buffers included."""
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def tensor_digests(module: nn.Module) -> dict[str, str]:
    """A digest of each weight and buffer: shape, dtype and bytes, whatever the device and memory format."""
    digests = {}
    for name, tensor in state_tensors(module):
        digest = hashlib.sha256(f"{tuple(tensor.shape)} {tensor.dtype} ".encode())
        digest.update(bytes_of(tensor).data)
        digests[name] = digest.hexdigest()
    return digests


def combined(digests: Mapping[str, str]) -> str:
    """One hex digest of named digests."""
    return hashlib.sha256("\n".join(f"{n} {d}" for n, d in sorted(digests.items())).encode()).hexdigest()


def architecture_digest(module: nn.Module) -> str:
    """Hex digest of all but the tensors: the modules' texts, their Python attributes, the source of the user's classes.

    A slope that is a plain number, or an activation that is a function, is neither weight nor buffer nor in ``repr``.
    """
    described = [re.sub(r"0x[0-9a-f]+", "", repr(module))]  # memory addresses differ from process to process
    for name, part in module.named_modules():
        for attribute, value in sorted(vars(part).items()):
            if attribute not in _PYTORCHS_OWN:
                described.append(f"{name}.{attribute}={_plain(value)}")
    classes = {cls for part in module.modules() for cls in type(part).__mro__}
    described += [f"{file} {digest}" for file, digest in source_fingerprint(sorted(classes, key=str)).items()]
    return hashlib.sha256("\n".join(described).encode()).hexdigest()[:16]


def _plain(value: Any, depth: int = _DEPTH) -> str:
    """A value as a text that is the same in every process."""
    if isinstance(value, (bool, int, float, str, bytes, type(None), torch.dtype, torch.Size, torch.device)):
        return repr(value)
    if isinstance(value, Tensor):
        digest = hashlib.sha256(bytes_of(value).data)
        return f"{tuple(value.shape)} {value.dtype} {digest.hexdigest()[:16]}"
    code = getattr(value, "__code__", None)
    if code is not None:
        return f"{value.__qualname__} {hashlib.sha256(code.co_code).hexdigest()[:16]} {_plain(_constants(code))}"
    name = str(getattr(value, "__qualname__", type(value).__qualname__))
    if depth == 0 or isinstance(value, (nn.Module, type)):
        return name
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_plain(item, depth - 1)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_plain(item, depth - 1) for item in value) + "]"
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(_plain(item, depth - 1) for item in value)) + "}"
    return f"{name} {_plain(getattr(value, '__dict__', None), depth - 1)}"


def _constants(code: Any) -> list[Any]:
    return [item for item in (*code.co_consts, *code.co_names) if isinstance(item, (bool, int, float, str))]
