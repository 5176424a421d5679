"""What an argument may be: one line that says so where it is something else that looks likely."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import torch

from kd_lightning.config.combined_methods import SIGN
from kd_lightning.config.suggestions import did_you_mean, same_word_elsewhere
from kd_lightning.errors import UserError
from kd_lightning.method import Method

P = ParamSpec("P")
R = TypeVar("R")


def only_known(function: Callable[P, R]) -> Callable[P, R]:
    """The function, which names the argument that an unknown keyword was meant to be, where Python would raise a TypeError."""
    known = list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        for name in kwargs:
            if name not in known:
                meant = did_you_mean(name, known, show=0) or same_word_elsewhere(name, known)
                hint = meant or f'; a key of the configuration is given as settings={{"{name}": ...}}'
                raise UserError(f"{name}: {function.__name__} has no such argument{hint}")
        return function(*args, **kwargs)

    return called


def refuse_weights_alone(group: str, value: Mapping[str, Any]) -> None:
    """Raise a UserError where a mapping is no configuration but a ``state_dict``, or a checkpoint that has one."""
    if _holds_tensors(value):
        raise UserError(
            f"{group}: a mapping of tensors is a model's weights (state_dict) without the model: load them into it, "
            f"model.load_state_dict(...), and give {group}=model"
        )


def as_method(value: Any) -> Any:
    """Names in a list as the one name that stands for all of them.

    Raises:
        UserError: a loss alone, or anything else that is no method.
    """
    if isinstance(value, (list, tuple)) and value and all(isinstance(name, str) for name in value):
        return SIGN.join(value)
    if isinstance(value, (str, Method, Mapping)):
        return value
    what = value.__name__ if isinstance(value, type) else type(value).__name__
    if callable(value):
        as_term = 'kd.Method({"mine": loss}, {"task": 1.0, "mine": 1.0})'
        raise UserError(f"method: {what} is no method; a loss of yours (a torch.nn.Module) is put into one: {as_term}")
    raise UserError(f"method: give a name, a list of names, a kd.Method, or a mapping; got {what}")


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, torch.Tensor) or (isinstance(value, Mapping) and any(map(_holds_tensors, value.values())))
