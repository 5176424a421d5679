"""How a model is given a batch's inputs, whatever their structure."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Any

from torch import Tensor, nn


def ask(model: Callable[..., Any], inputs: Any) -> Any:
    """What ``model`` returns for ``inputs``.

    Inputs by name (a mapping) become keyword arguments where the model's ``forward`` has those names, as transformers'
    models do (``input_ids``, ``attention_mask``, …); names that it does not have (a text, an identifier) are left out.
    A model without such arguments gets the mapping itself. Several inputs without names (a tuple) become positional
    arguments of a ``forward`` that takes as many.
    """
    if isinstance(inputs, Mapping):
        accepted = _accepted(_forward(model))
        if accepted is None:
            return model(inputs)
        names, needed, any_name = accepted
        if any_name and not names & inputs.keys():
            return model(**inputs)
        if names & inputs.keys() and needed <= inputs.keys():
            return model(**{name: value for name, value in inputs.items() if name in names})
        return model(inputs)
    if isinstance(inputs, tuple) and not getattr(inputs, "_fields", None):
        accepted = _accepted(_forward(model))
        if accepted is not None and len(accepted[1]) == len(inputs) > 1:
            return model(*inputs)
    return model(inputs)


def only_input(model: Callable[..., Any], names: Collection[str]) -> str | None:
    """The one of several inputs by name that a model's ``forward`` takes; None where it takes more, or the mapping."""
    accepted = _accepted(_forward(model))
    if accepted is None or accepted[2]:
        return None
    read = accepted[0] & set(names)
    return next(iter(read)) if len(read) == 1 and accepted[1] <= read else None


def inputs_hint(inputs: Any) -> str:
    """What to type where a model got several inputs, or whole numbers without an embedding; empty for other inputs."""
    if isinstance(inputs, Mapping) and len(inputs) > 1:
        names = [str(name) for name in inputs]
        return f"; its inputs are called {', '.join(names)}: data.inputs={names[0]} gives it that one alone"
    if isinstance(inputs, (list, tuple)) and len(inputs) > 1 and all(isinstance(value, Tensor) for value in inputs):
        return f"; it gets {len(inputs)} inputs: data.inputs=0 gives it the first one alone"
    whole = isinstance(inputs, Tensor) and not inputs.is_floating_point()
    return "; data.input_type=float32 makes numbers of them that layers other than embeddings take" if whole else ""


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside torch.compile's and DistributedDataParallel's wrappers."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = model.module
        if inner is None:
            return model
        model = inner


def _forward(model: Any) -> Any:
    """The function that in the end takes the inputs."""
    return type(unwrapped(model)).forward if isinstance(model, nn.Module) else model


@lru_cache(maxsize=256)
def _accepted(forward: Any) -> tuple[frozenset[str], frozenset[str], bool] | None:
    """Names of a forward's arguments, those of them without a default, and whether it takes any name."""
    try:
        parameters = list(inspect.signature(forward).parameters.values())
    except (TypeError, ValueError):
        return None
    if parameters and parameters[0].name == "self":
        parameters = parameters[1:]
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    needed = frozenset(p.name for p in named if p.default is p.empty)
    return frozenset(p.name for p in named), needed, any(p.kind is p.VAR_KEYWORD for p in parameters)
