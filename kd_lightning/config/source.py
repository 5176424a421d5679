"""The user's code as part of what a run is: digests of the files that its ``_target_``s are made of.

::

    my_models.Net ─► my_models.py ─► the files that it imports, and so on: those of the user's, found by reading
                                     ``import`` statements; nothing is executed

Installed packages, the standard library and this package are left out: their versions stand in ``result.json``.
A digest is of the syntax tree without docstrings, so comments, blank lines and line breaks do not count.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

_INSTALLED = frozenset({"site-packages", "dist-packages"})
_STANDARD = tuple(Path(sysconfig.get_paths()[name]).resolve() for name in ("stdlib", "platstdlib"))
_OURS = Path(__file__).resolve().parents[1]
GIVEN = "kd_lightning.config.given."
"""Targets that stand for objects handed over in Python; their ``path`` says where the object's class is written."""


def source_fingerprint(targets: Iterable[str | Callable[..., Any]]) -> dict[str, str]:
    """Return 16 hexadecimal digits for each file of the user's that ``targets`` are made of, sorted by file.

    Args:
        targets: dotted names of classes or functions, or these themselves.

    Returns:
        digests by file, named from the directory that it is imported from (``my_models.py``, ``pkg/net.py``), so that
        a project that was moved is the same; empty where all code is installed.
    """
    left = [module for target in targets for module in _modules_in(_name(target))]
    files: dict[str, Path] = {}
    seen = set()
    while left:
        module = left.pop()
        if module in seen:
            continue
        seen.add(module)
        path = _file_of(module)
        if path is not None:
            files[_shown(module, path)] = path
            left += _imports(path, module, _stamp(path))
    return {name: _digest(path, _stamp(path)) for name, path in sorted(files.items())}


def targets_of(node: Any) -> Iterator[str]:
    """The dotted names of all callables that a configuration's node makes something of."""
    if isinstance(node, Mapping):
        target = node.get("_target_")
        if isinstance(target, str):
            yield target
            path = node.get("path")
            if target.startswith("hydra.utils.get_") and isinstance(path, str):
                yield path
            elif target.startswith(GIVEN) and isinstance(path, str) and not path.startswith("__main__."):
                yield path  # a script or notebook is more than its classes: their own code is in the node's digest
        for value in node.values():
            yield from targets_of(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from targets_of(value)


def changed_files(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Files that are not the same in two results of :func:`source_fingerprint`."""
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


def _name(target: str | Callable[..., Any]) -> str:
    return target if isinstance(target, str) else f"{target.__module__}.{target.__qualname__}"


def _modules_in(name: str) -> list[str]:
    """``a.b.C`` may be the class C of a module ``a.b``, whose package ``a`` is imported first."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts) + 1)]


def _file_of(module: str) -> Path | None:
    """The user's file that a module is in; None for a module of others', and for a name that is no module."""
    if module == "__main__":
        path = getattr(sys.modules["__main__"], "__file__", None)
        return Path(path).resolve() if path and _is_users(Path(path).resolve()) else None
    spec = _spec(module)
    if spec is None or not spec.has_location or spec.origin is None:
        return None
    path = Path(spec.origin).resolve()
    return path if _is_users(path) and path.is_file() else None  # what is installed may be unreadable


def _spec(module: str) -> importlib.machinery.ModuleSpec | None:
    """Where a module lies; packages around it are looked into, not imported."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
        name = top
        for part in rest:
            if spec is None or spec.submodule_search_locations is None:
                return None
            if spec.origin is not None and not _is_users(Path(spec.origin).resolve()):
                return None  # installed: no need to look further
            name = f"{name}.{part}"
            spec = importlib.machinery.PathFinder.find_spec(name, list(spec.submodule_search_locations))
    except (ImportError, ValueError, AttributeError):  # a module without a spec, or a finder that fails
        return None
    return spec


def _is_users(path: Path) -> bool:
    if _INSTALLED.intersection(path.parts) or path.is_relative_to(_OURS):
        return False
    return not any(path.is_relative_to(place) for place in _STANDARD)


def _shown(module: str, path: Path) -> str:
    if module == "__main__":
        return path.name
    stem = module.replace(".", "/")
    return f"{stem}/{path.name}" if path.stem == "__init__" else f"{stem}{path.suffix}"


def _stamp(path: Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=1024)
def _imports(path: Path, module: str, stamp: tuple[int, int]) -> list[str]:
    """Names of modules (and of what may be one) that a file imports, anywhere in it."""
    tree = _tree(path)
    if tree is None:
        return []
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node.module or "", node.level, package)
            found += [base, *(f"{base}.{alias.name}" if base else alias.name for alias in node.names)]
        elif isinstance(node, ast.Call) and _called(node.func) in ("import_module", "__import__") and node.args:
            name = node.args[0]
            found += [name.value] if isinstance(name, ast.Constant) and isinstance(name.value, str) else []
    return [name for dotted in dict.fromkeys(found) if dotted.strip(".") for name in _modules_in(dotted.strip("."))]


def _absolute(name: str, level: int, package: str) -> str:
    if not level:
        return name
    base = package.split(".")
    base = base[: len(base) - level + 1]
    return ".".join([*base, name]) if name else ".".join(base)


def _called(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


@lru_cache(maxsize=1024)
def _digest(path: Path, stamp: tuple[int, int]) -> str:
    tree = _tree(path)
    content = path.read_bytes() if tree is None else "".join(_written(tree)).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def _tree(path: Path) -> ast.Module | None:
    """A Python file's syntax tree; None for what is none (an extension module, a file with a mistake)."""
    try:
        return ast.parse(path.read_bytes()) if path.suffix == ".py" else None
    except (SyntaxError, ValueError):
        return None


def _written(node: Any) -> Iterator[str]:
    """A syntax tree as text that is the same in every version of Python: empty fields, which come and go, left out."""
    if isinstance(node, ast.AST):
        yield f"({type(node).__name__}"
        for field, value in ast.iter_fields(node):
            if field == "body" and isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                value = value[1:] if ast.get_docstring(node, clean=False) is not None else value
            if value is not None and value != [] and field not in ("kind", "type_comment", "ctx"):
                yield f" {field}="
                yield from _written(value)
        yield ")"
    elif isinstance(node, list):
        for item in node:
            yield from _written(item)
            yield ","
    else:
        yield repr(node)
