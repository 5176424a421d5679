"""A configuration with its numbers as they are declared: 4 becomes 4.0 where a number with a fraction is asked for.

YAML and the command line tell 4 and 4.0 apart, and so do some arguments: ``limit_train_batches=1`` is one batch, ``1.0``
is all of them. Others do not: a temperature of 4 is one of 4.0. The declared type decides, that of the table of keys or
of the callable's signature; where none is known, the two stay different.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

from kd_lightning.config.annotations import parameters_of
from kd_lightning.config.keys import find
from kd_lightning.config.targets import TargetProblem, import_target


def typed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a resolved configuration in which values that mean the same are the same."""
    return {str(key): _node(str(key), value, None) for key, value in config.items()}


def _node(key: str, value: Any, annotation: Any) -> Any:
    if isinstance(value, Mapping):
        known: dict[str, Any] = {}
        if "_target_" in value:
            known = _annotations(str(value["_target_"]))
        elif key == "trainer":
            known = _annotations("pytorch_lightning.Trainer")
        return {k: _node(f"{key}.{k}", v, known.get(str(k), annotation)) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_node(key, item, annotation) for item in value]
    kind = find(key).rule.kind
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    if kind == "number" or (kind not in ("integer", "amount", "text") and _numbers(annotation) == {float}):
        return float(value)
    return str(value) if kind == "text" and find(key).rule.choices else value


def _annotations(target: str) -> dict[str, Any]:
    """The types of a callable's arguments by name; one without annotation has that of its default."""
    try:
        signature = parameters_of(import_target(target))
    except TargetProblem:
        return {}
    types = {}
    for name, parameter in (signature[0] if signature else {}).items():
        untyped = parameter.annotation in (inspect.Parameter.empty, Any)
        default = None if parameter.default is inspect.Parameter.empty else type(parameter.default)
        types[name] = default if untyped else parameter.annotation
    return types


def _numbers(annotation: Any) -> set[type]:
    """Which of int and float stand in an annotation, at whatever depth; those of a callable's own arguments do not."""
    if annotation in (int, float):
        return {annotation}
    if typing.get_origin(annotation) is Callable or isinstance(annotation, str):
        return set()
    arguments = [a for a in typing.get_args(annotation) if a is not Ellipsis and not isinstance(a, list)]
    return set().union(*map(_numbers, arguments)) if arguments else set()
