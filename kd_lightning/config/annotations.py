"""Does a value from a YAML file fit a parameter's annotation? Only what can be known for certain counts as a misfit."""

from __future__ import annotations

import enum
import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, Union, get_args, get_origin

from kd_lightning.config.rules import show
from kd_lightning.config.suggestions import did_you_mean

_SCALARS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def misfit(value: Any, annotation: Any) -> str | None:
    """Return what is wrong with ``value`` for a parameter of this annotation, None if nothing certainly is.

    Nested objects (mappings with a ``_target_``) fit everything: what they make is not known before it is made.
    """
    if isinstance(value, Mapping) and "_target_" in value:
        return None
    branches = _branches(annotation)
    if any(_fits(value, branch) for branch in branches):
        return None
    choices = [choice for branch in branches if get_origin(branch) is Literal for choice in get_args(branch)]
    texts = list(dict.fromkeys(str(choice) for choice in choices if choice is not None))
    if choices and isinstance(value, (str, int)):
        return f"must be one of {', '.join(texts)}, got {show(value)}{did_you_mean(str(value), texts, show=0)}"
    described = [branch for branch in branches if get_origin(branch) is not Callable]  # a node with a _target_
    plain = [branch for branch in described if not getattr(branch, "__module__", "").startswith("torch")]
    wanted = list(dict.fromkeys(_describe(branch) for branch in plain or described or branches))
    return f"must be {' or '.join(wanted)}, got {show(value)}"


def parameters_of(target: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool] | None:
    """Return a callable's keyword parameters with resolved annotations, and whether it takes any other (``**kwargs``).

    Where a class of this package or of PyTorch Lightning passes ``**kwargs`` on, the base classes' parameters are named
    too, but those that the class gives them itself (its ``GIVEN_TO_BASE``). None for callables without a readable
    signature.
    """
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return None
    parameters = _named(signature, target)
    is_open = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()) or _passes_on(target)
    if is_open and inspect.isclass(target) and target.__module__.startswith("kd_lightning."):
        given = {name for cls in target.__mro__ for name in vars(cls).get("GIVEN_TO_BASE", ())}
        for base in target.__mro__[1:]:
            if "__init__" in vars(base) and base.__module__.startswith("kd_lightning."):
                signature = inspect.signature(base)
                inherited = {name: p for name, p in _named(signature, base).items() if name not in given}
                parameters = {**inherited, **parameters}
                if not any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
                    return parameters, False
    return parameters, is_open


def _passes_on(target: Callable[..., Any]) -> bool:
    """Whether a class's constructor takes any keyword behind the signature that a decorator shows of it."""
    if not inspect.isclass(target):
        return False
    try:
        shown = inspect.signature(target.__init__, follow_wrapped=False)
    except (TypeError, ValueError):
        return False
    return any(p.kind is p.VAR_KEYWORD for p in shown.parameters.values())


def _named(signature: inspect.Signature, target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    function = target.__init__ if inspect.isclass(target) else target
    try:
        hints = typing.get_type_hints(inspect.unwrap(function))
    except Exception:  # an annotation that cannot be evaluated here: its parameter is not checked
        hints = {}
    named = {}
    for name, parameter in signature.parameters.items():
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            annotation = hints.get(name, parameter.annotation)
            named[name] = parameter.replace(annotation=Any if isinstance(annotation, str) else annotation)
    return named


def _branches(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        return [leaf for branch in get_args(annotation) for leaf in _branches(branch)]
    return [annotation]


def _fits(value: Any, branch: Any) -> bool:
    origin = get_origin(branch)
    if branch is None or branch is type(None):
        return value is None
    if origin is Literal:
        return value in get_args(branch)
    if branch in _SCALARS:
        if branch is float:
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        return isinstance(value, branch) and (branch is bool or not isinstance(value, bool))
    kind = origin or branch
    if kind is Callable:
        return False  # no plain value can be called
    if kind is Collection or not inspect.isclass(kind):
        return True
    if issubclass(kind, Mapping):
        return isinstance(value, Mapping)
    if issubclass(kind, (list, tuple)) or kind.__module__ == "collections.abc":
        if isinstance(value, Mapping) and not issubclass(kind, (list, tuple)):
            return True
        return isinstance(value, (list, tuple)) and _items_fit(value, kind, get_args(branch))
    if kind.__module__.startswith("torch") and not issubclass(kind, enum.Enum):  # Tensor, Module, device, dtype …
        return not isinstance(value, (bool, int, float, str, list)) or kind.__name__ in ("device", "dtype")
    return value is not None  # some class that may be made from anything


def _items_fit(values: Any, kind: type, arguments: tuple[Any, ...]) -> bool:
    if kind is tuple and arguments and arguments[-1] is not Ellipsis:
        return len(values) == len(arguments)
    item = arguments[0] if arguments else Any
    return all(any(_fits(value, branch) for branch in _branches(item)) for value in values)


def _describe(branch: Any) -> str:
    if branch is None or branch is type(None):
        return "null"
    if branch in _SCALARS:
        return _SCALARS[branch]
    kind = get_origin(branch) or branch
    if kind is Callable:
        return "what is called (a _target_)"
    if inspect.isclass(kind) and issubclass(kind, Mapping):
        return "a mapping"
    if inspect.isclass(kind) and (issubclass(kind, (list, tuple)) or kind.__module__ == "collections.abc"):
        items = [_describe(a) for a in get_args(branch)[:1] if inspect.isclass(a) and a in _SCALARS]
        return f"a list of {items[0].split(' ', 1)[1]}s" if items and items[0] != "true or false" else "a list"
    return f"a {getattr(kind, '__name__', kind)}"
