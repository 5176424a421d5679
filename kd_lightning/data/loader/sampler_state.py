"""Generators that a user's sampler keeps to itself: found, saved with the loader's state, put back on resume."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import torch

_DEPTH = 3  # a batch sampler holds a sampler, which may hold another


def save_generators(sampler: Any) -> str:
    """The states of all generators in a sampler's attributes, as JSON; empty if there is none."""
    states = {path: _state(generator) for path, generator in _generators(sampler, "", _DEPTH).items()}
    return json.dumps(states, sort_keys=True) if states else ""


def load_generators(sampler: Any, saved: str) -> None:
    """Put the generators where they were. One that is not there any more is left out: the order will tell."""
    states = json.loads(saved) if saved else {}
    for path, generator in _generators(sampler, "", _DEPTH).items():
        if path in states:
            _restore(generator, states[path])


def _generators(holder: Any, path: str, depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in getattr(holder, "__dict__", {}).items():
        here = f"{path}.{name}"
        if isinstance(value, (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)):
            found[here] = value
        elif depth and ("sampler" in name or isinstance(value, torch.utils.data.Sampler)):
            found |= _generators(value, here, depth - 1)
    return found


def _state(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state().numpy().tobytes().hex()
    if isinstance(generator, random.Random):
        version, words, gauss = generator.getstate()
        return [version, list(words), gauss]
    state = _bits(generator).state
    return {"text": json.dumps(state, default=lambda array: {"array": array.tolist(), "dtype": str(array.dtype)})}


def _restore(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(torch.frombuffer(bytearray.fromhex(state), dtype=torch.uint8))
    elif isinstance(generator, random.Random):
        generator.setstate((state[0], tuple(state[1]), state[2]))
    else:
        _bits(generator).state = json.loads(state["text"], object_hook=_array)


def _bits(generator: Any) -> Any:
    return generator.bit_generator if isinstance(generator, np.random.Generator) else generator._bit_generator


def _array(value: dict) -> Any:
    return np.array(value["array"], value["dtype"]) if value.keys() == {"array", "dtype"} else value
