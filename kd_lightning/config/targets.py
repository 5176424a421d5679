"""A ``_target_`` and its arguments, judged by the callable's signature: it is imported, never called."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kd_lightning.config.annotations import misfit, parameters_of
from kd_lightning.config.suggestions import did_you_mean

FROM_DATA = frozenset({"num_classes", "in_channels", "in_features", "image_size", "vocab_size", "train_samples"})
"""Arguments that ``auto`` fills in from the data."""

_HYDRA_KEYS = frozenset({"_target_", "_partial_", "_recursive_", "_convert_", "_args_"})
_EXTRAS = {"timm": "timm", "wandb": "wandb", "mlflow": "mlflow", "transformers": "text"}


class TargetProblem(Exception):
    """What is wrong with a target.

    Args:
        key: which of its keys, relative to the node.
        text: what and what to do.
        untaken: the target takes no such key at all.
    """

    def __init__(self, key: str, text: str, untaken: bool = False) -> None:
        super().__init__(f"{key}: {text}")
        self.key, self.text, self.untaken = key, text, untaken


def check_target(node: Mapping[str, Any], extra: frozenset[str] = frozenset(), from_data: bool = False) -> None:
    """Check that ``node['_target_']`` can be imported and takes the node's keys, with values of their types.

    Args:
        node: a plain mapping with a ``_target_``.
        extra: keys that are no arguments.
        from_data: sizes (:data:`FROM_DATA`) may be ``auto`` or left out.

    Raises:
        TargetProblem: for the first thing that is wrong.
    """
    name = node.get("_target_")
    if not isinstance(name, str) or not name:
        raise TargetProblem("_target_", "must name a class or function, as in my_models.Net")
    target = import_target(name)
    signature = parameters_of(target)
    if signature is None:
        return
    parameters, is_open = signature
    given = {key: value for key, value in node.items() if key not in _HYDRA_KEYS and key not in extra}
    for key, value in given.items():
        if key not in parameters:
            if not is_open:
                raise TargetProblem(key, f"{name} has no such argument{did_you_mean(key, parameters)}", untaken=True)
            continue
        if value == "auto" and from_data:
            if key not in FROM_DATA:
                raise TargetProblem(key, f"auto goes with {', '.join(sorted(FROM_DATA))} only")
            continue
        annotation = parameters[key].annotation
        is_default = value is None and parameters[key].default is None
        if annotation is not inspect.Parameter.empty and not is_default and (text := misfit(value, annotation)):
            raise TargetProblem(key, text)
    if not node.get("_partial_") and not node.get("_args_"):
        for key, parameter in parameters.items():
            if parameter.default is parameter.empty and key not in given and not (from_data and key in FROM_DATA):
                raise TargetProblem(key, f"{name} needs this argument")


def import_target(name: str) -> Callable[..., Any]:
    """Import a dotted name.

    Raises:
        TargetProblem: it does not exist (with a suggestion), needs a package that is missing, or fails when imported.
    """
    if not all(part.isidentifier() for part in name.split(".")):
        raise TargetProblem("_target_", f"{name!r} is not a dotted name, as in my_models.Net")
    parts = name.split(".")
    if len(parts) == 1:
        raise TargetProblem("_target_", f"{name!r} names no module: write MODULE.{name}")
    for length in range(len(parts) - 1, 0, -1):
        module_name = ".".join(parts[:length])
        if not _exists(module_name):
            continue
        found: Any = _import(module_name, name)
        for depth, part in enumerate(parts[length:]):
            if not hasattr(found, part):
                where = ".".join(parts[: length + depth])
                raise TargetProblem("_target_", f"{where} has no {part!r}{did_you_mean(part, _offers(found), show=12)}")
            found = getattr(found, part)
        if not callable(found):
            raise TargetProblem("_target_", f"{name} is no class or function but a {type(found).__name__}")
        return found
    if parts[0] in _EXTRAS:
        raise TargetProblem(
            "_target_", f'{name}: {parts[0]} is missing: pip install "kd-lightning[{_EXTRAS[parts[0]]}]"'
        )
    nearby = did_you_mean(parts[0], [path.stem for path in Path.cwd().glob("*.py")], show=0)
    raise TargetProblem("_target_", f"no module {parts[0]!r} (looked in {Path.cwd()} too){nearby}")


def _exists(module_name: str) -> bool:
    try:
        return importlib.util.find_spec(module_name) is not None
    except (ImportError, ValueError):  # a parent that is no package
        return False


def _import(module_name: str, name: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        extra = _EXTRAS.get(missing)
        hint = f': pip install "kd-lightning[{extra}]"' if extra else ""
        raise TargetProblem("_target_", f"{name}: cannot import {module_name}: {error}{hint}") from error
    except Exception as error:  # whatever the user's module does when it is imported
        line = f"{type(error).__name__}: {error}".splitlines()[0]
        raise TargetProblem("_target_", f"{name}: importing {module_name} fails with {line}") from error


def _offers(found: Any) -> list[str]:
    """Public names that a target may have meant: classes, functions and submodules."""
    names = [n for n, value in vars(found).items() if not n.startswith("_") and callable(value)]
    if inspect.ismodule(found) and hasattr(found, "__path__"):
        names += [module.name for module in pkgutil.iter_modules(found.__path__)]
    elif inspect.ismodule(found):
        own = [n for n in names if getattr(getattr(found, n), "__module__", None) == found.__name__]
        names = own or names
    return names
