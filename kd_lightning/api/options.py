"""What is handed to :func:`~kd_lightning.api.distill.distill`, as overrides of a command line.

A name chooses a file of ``conf/``; a mapping is what such a file would hold; an object becomes an option of its group for
as long as the call lasts (:mod:`kd_lightning.config.given`).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from torch import nn

from kd_lightning.api.accepted import as_method, refuse_weights_alone
from kd_lightning.cli._hydra_main import config_directory
from kd_lightning.config.given import is_importable, node_of_callable, node_of_dataset, node_of_function, node_of_module
from kd_lightning.config.keys import KEYS, children
from kd_lightning.config.suggestions import did_you_mean
from kd_lightning.errors import UserError
from kd_lightning.method import Method

SHORT = {
    "temperature": "method.temperature",
    "weights": "method.weights",
    "max_epochs": "trainer.max_epochs",
    "precision": "trainer.precision",
    "accelerator": "trainer.accelerator",
    "lr": "optimizer.lr",
    "batch_size": "data.batch_size",
    "labelled": "data.labelled",
}
"""Keyword arguments -> keys of the configuration."""

PROVIDER = "kd_lightning.api"


class Options:
    """Overrides of one call, and the options that its objects are registered as.

    Attributes:
        overrides: ``key=value`` as on the command line.
        objects: what was given, kept for as long as this is: nodes find their objects only while somebody keeps them.
    """

    def __init__(self) -> None:
        self.overrides: list[str] = []
        self.objects: list[Any] = []
        self._nodes: dict[tuple[str, str], dict[str, Any]] = {}
        self._said: dict[str, tuple[str, str]] = {}  # key -> how it was called, and its values as text

    def choose(self, group: str, value: Any) -> None:
        """One option of a group: a name, a mapping, or an object."""
        self.overrides.append(f"{group}={self.option(group, value)}")

    def option(self, group: str, value: Any) -> str:
        """The name under which a value can be chosen in a group."""
        if group == "method":
            value = as_method(value)
        if isinstance(value, str):
            return value if value.replace("_", "").isalnum() else quoted(value)
        if isinstance(value, Method):
            return self.register(group, "given", self._method(value))
        if group == "teacher" and isinstance(value, (list, tuple)):
            return self.register(group, "ensemble", self._ensemble(value))
        if isinstance(value, Mapping):
            refuse_weights_alone(group, value)
            name, node = _name_of_target(value), dict(value)
        else:
            name, node = self._model(group, value)
        if group == "teacher":
            known = "model" in node or _is_kind(node)
            node = node if known else {"name": name, "model": node}
            node = node if _is_kind(node) else {"defaults": ["none"], **node}
        return self.register(group, name, node)

    def register(self, group: str, name: str, node: Mapping[str, Any]) -> str:
        """Make a node an option of a group; returns its name, one that no other of these has."""
        number, wanted = 1, name
        while self._nodes.get((group, name), node) != node or _ships(group, name):
            number += 1
            name = f"{wanted}_{number}"
        self._nodes[group, name] = dict(node)
        return name

    def dataset(self, value: Any) -> dict[str, str]:
        """The node of a data set."""
        self.objects.append(value)
        return node_of_dataset(value)

    def function(self, value: Any) -> dict[str, str]:
        """The node of a function that is handed on as it is."""
        self.objects.append(value)
        return node_of_callable(value)

    def set(self, key: str, value: Any) -> None:
        """One value of a key, or of a keyword argument that is short for one; a group's is an option.

        Raises:
            UserError: there is no such key, or it was given with another value before.
        """
        name, key = key, self.key(key)
        is_group = key in KEYS and KEYS[key].group
        self._add(name, key, self.option(key, value) if is_group else written(value))

    def vary(self, key: str, values: Any) -> None:
        """Several values of a key, for a sweep."""
        if isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__iter__"):
            raise UserError(f"over: {key}: give a list of values, got {values!r}")
        values = list(values)
        if not values:
            raise UserError(f"over: {key}: the list of values is empty")
        name, key = key, self.key(key)
        is_group = key in KEYS and KEYS[key].group
        self._add(name, key, ",".join(self.option(key, value) if is_group else written(value) for value in values))

    def _add(self, name: str, key: str, text: str) -> None:
        called, before = self._said.setdefault(key, (name, text))
        if before != text:
            raise UserError(
                f"{key}: given twice, {called}={before} and {name}={text}: which of them is meant? Leave one out"
            )
        self.overrides.append(f"{key}={text}")

    def key(self, name: str) -> str:
        """The configuration's key that a keyword means.

        Raises:
            UserError: there is none.
        """
        if name in SHORT:
            return SHORT[name]
        known = {*SHORT, *children(""), *(key for key in KEYS if KEYS[key].group)}
        if "." in name or name in known:  # Hydra and the check know whether there is such a key
            return name
        raise UserError(f"{name}: no such setting{did_you_mean(name, known, show=0)}")

    @contextlib.contextmanager
    def registered(self) -> Iterator[None]:
        """Let Hydra find the options."""
        store = ConfigStore.instance()
        for (group, name), node in self._nodes.items():
            store.store(group=group, name=name, node=node, provider=PROVIDER)
        try:
            yield
        finally:
            for group, name in self._nodes:
                folder: Any = store.repo[group]
                folder.pop(f"{name}.yaml", None)
                if not folder:
                    store.repo.pop(group)

    def _method(self, method: Method) -> dict[str, Any]:
        """The node of a method whose terms are copied for each run.

        Raises:
            UserError: something of it cannot be said in a configuration.
        """
        if method.prepared or method.scheduled:
            what = "is prepared for other models" if method.prepared else "has schedules"
            raise UserError(f"method: {what}: give a mapping of weights and terms as in its file, or a name")
        self.objects += list(method.terms.values())
        terms = {name: node_of_module(term) for name, term in method.terms.items()}
        taps = {role: dict(layers) for role, layers in method.taps.items()}
        shared = {"weights": dict(method.weights), "temperature": method.temperature, "taps": taps}
        return {"_target_": f"{Method.__module__}.{Method.__qualname__}", "terms": terms, **shared}

    def _ensemble(self, teachers: Sequence[Any]) -> dict[str, Any]:
        """The node of several modules as one teacher: the mean of their logits.

        Raises:
            UserError: fewer than two, or one that is no module.
        """
        if len(teachers) < 2 or not all(isinstance(teacher, nn.Module) for teacher in teachers):
            raise UserError("teacher: a list is an ensemble: give two trained modules or more")
        models = [self._model("teacher", teacher) for teacher in teachers]
        members = {f"m{i}": {"name": f"{name} {i}", "model": node} for i, (name, node) in enumerate(models)}
        return {"_target_": "kd_lightning.teachers.ensemble.EnsembleTeacher", "name": "ensemble", "members": members}

    def _model(self, group: str, value: Any) -> tuple[str, dict[str, Any]]:
        """Name and node of a module, or of what makes one."""
        if isinstance(value, nn.Module):
            self.objects.append(value)
            return type(value).__name__, dict(node_of_module(value))
        if not callable(value):
            raise UserError(
                f"{group}: give a torch.nn.Module, a function or class that makes one, a name, or a mapping with a "
                f"_target_; got {type(value).__name__}"
            )
        inner = value.func if isinstance(value, functools.partial) else value
        name = str(getattr(inner, "__name__", type(inner).__name__)).strip("<>")
        arguments = dict(value.keywords) if isinstance(value, functools.partial) else {}
        plain = not (isinstance(value, functools.partial) and value.args) and all(map(_is_plain, arguments.values()))
        if plain and is_importable(inner):
            return name, {"_target_": f"{inner.__module__}.{inner.__qualname__}", **arguments}
        self.objects.append(value)
        return name, dict(node_of_function(value, group))


def written(value: Any) -> str:
    """A value in the grammar of Hydra's overrides."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}:{written(item)}" for name, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(map(written, value)) + "]"
    if isinstance(value, (str, Path)):
        return quoted(str(value))
    if hasattr(value, "item"):  # numpy's and torch's numbers
        return written(value.item())
    if isinstance(value, (int, float)):
        return repr(value)
    raise UserError(f"settings are numbers, texts, lists and mappings, got {type(value).__name__}")


def quoted(text: str) -> str:
    """A text that Hydra's grammar takes as it is."""
    if text.replace("_", "").replace(".", "").isalpha() and text.lower() not in ("true", "false", "null", "nan", "inf"):
        return text
    escaped = text.replace("\\", "\\\\") if text.endswith("\\") else text
    return "'" + escaped.replace("'", "\\'") + "'"


def _ships(group: str, name: str) -> bool:
    """Whether a file of ours has that name, which would be taken instead."""
    return (config_directory() / group / f"{name}.yaml").is_file()


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


def _name_of_target(node: Mapping[str, Any]) -> str:
    target = node.get("_target_") or (node.get("model") or {}).get("_target_") or node.get("name") or "mapping"
    return str(node.get("name") or str(target).rpartition(".")[2])


def _is_kind(node: Mapping[str, Any]) -> bool:
    """Whether a teacher's node names a kind of teacher, and not just a network."""
    target = str(node.get("_target_", ""))
    return target.startswith("kd_lightning.teachers.") or ("model" in node and "_target_" in node)
