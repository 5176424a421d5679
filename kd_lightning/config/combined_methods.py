"""``method=[kd,rkd]``, or ``method=kd+rkd``: the terms of several methods in one, each with the weight it has alone.

::

    method/kd.yaml   weights: {task: 0.1, kd: 0.9}               weights: {task: 0.1, kd: 0.9, distance: 25, angle: 50}
    method/rkd.yaml  weights: {task: 1, distance: 25, angle: 50}  terms:   kd, distance, angle

For Hydra ``kd+rkd`` is one more choice of the group, made when somebody asks for it: on the command line, in a sweep
(``method=kd,kd+rkd``), in ``defaults`` of a file. Presets are joined the same way. What the methods share is the first
one's: ``weights.task``, ``temperature``; where another one has a temperature of its own, its terms keep it.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Mapping
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.types import RunMode
from omegaconf import OmegaConf

from kd_lightning.config.suggestions import did_you_mean
from kd_lightning.errors import UserError

SIGN = "+"
_NAMED = ("weights", "terms", "taps")
_LIST = re.compile(r"\[([^\[\]{}]*)\]")


def as_names(override: str) -> str:
    """An override of ``method`` with its lists written as names: ``method=[kd,rkd]`` is ``method=kd+rkd``."""
    key, equals, value = override.partition("=")
    if not equals or key.lstrip("+").partition("@")[0].rpartition("/")[2] != "method" or "[" not in value:
        return override

    def joined(match: re.Match[str]) -> str:
        names = [name.strip(" '\"") for name in match[1].split(",")]
        if not all(names):
            raise UserError(f"command line: {override}: give names of methods, as in {key}=[kd,rkd]")
        return SIGN.join(names)

    return f"{key}={_LIST.sub(joined, value)}"


class CombinedMethods(ConfigSource):
    """Configurations whose name is several methods' names with ``+`` between them.

    Args:
        loader: composes each of them.
    """

    def __init__(self, loader: ConfigLoader) -> None:
        assert isinstance(loader, ConfigLoaderImpl)  # Hydra's only one
        super().__init__("combined-methods", "methods://")
        self._loader = loader

    def install(self) -> CombinedMethods:
        """Let the loader find these; its files come first."""
        self._loader.repository.get_sources().insert(-1, self)
        return self

    @staticmethod
    def scheme() -> str:
        return "methods"

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return False

    def list(self, config_path: str, results_filter: ObjectType | None) -> builtins.list[str]:
        return []

    def is_config(self, config_path: str) -> bool:
        group, names = self._split(config_path)
        if len(names) < 2 or not (group == "method" or group.startswith("preset/")):
            return False
        missing = [name for name in names if not self._loader.repository.config_exists(f"{group}/{name}")]
        if missing and group == "method":
            options = self._loader.get_group_options(group)
            raise UserError(f"method={SIGN.join(names)}: no such method{did_you_mean(missing[0], options, show=30)}")
        return len(missing) < len(names)

    def load_config(self, config_path: str) -> ConfigResult:
        group, names = self._split(config_path)
        there = [name for name in names if self._loader.repository.config_exists(f"{group}/{name}")]
        parts = {name: self._composed(group, name) for name in there}
        if len(set(names)) < len(names):
            raise UserError(f"method={SIGN.join(names)}: names a method twice")
        return ConfigResult(self.provider, config_path, OmegaConf.create(combined(parts)), header={"package": None})

    def _composed(self, group: str, name: str) -> dict[str, Any]:
        config = self._loader.load_configuration(
            f"{group}/{name}", overrides=[], run_mode=RunMode.RUN, from_shell=False, validate_sweep_overrides=False
        )
        node = OmegaConf.select(config, group.replace("/", "."))
        found: Any = {} if node is None else OmegaConf.to_container(node, resolve=False)
        return found

    @staticmethod
    def _split(config_path: str) -> tuple[str, builtins.list[str]]:
        group, _, name = config_path.removesuffix(".yaml").rpartition("/")
        return group, name.split(SIGN)


def combined(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """One method's node of several, by their names; interpolations are not resolved.

    Raises:
        UserError: two of them have a term of one name, or mean different layers by one tap.
    """
    whole: dict[str, Any] = {name: {} for name in _NAMED}
    owner: dict[tuple[str, str], str] = {}

    def refuse(where: tuple[str, str], name: str, what: str) -> None:
        raise UserError(
            f"method={SIGN.join(parts)}: {owner[where]} and {name} {what}: write a YAML of your own, method/NAME.yaml in "
            "the folder that --config-dir gives, with one of them under another name"
        )

    for name, part in parts.items():
        terms = part.get("terms") or {}
        for key in [key for key in part if key not in _NAMED]:
            if whole.get(key) is None:
                whole[key] = part[key]
            elif key == "_target_" and part[key] != whole[key]:
                raise UserError(f"method={SIGN.join(parts)}: {name} is made by another class, {part[key]}")
            elif part[key] is not None and part[key] != whole[key]:
                terms = _with_own(terms, key, part[key])
        for term, node in terms.items():
            if ("term", term) in owner:
                refuse(("term", term), name, f"both have a term {term!r}")
            owner["term", term] = name
            whole["terms"][term] = node
        if isinstance(part.get("taps"), str):
            raise UserError(f"method={SIGN.join(parts)}: {name} has taps: {part['taps']}: set method.taps=auto instead")
        for role, taps in (part.get("taps") or {}).items():
            for tap, layer in (taps or {}).items():
                known = whole["taps"].setdefault(role, {}).setdefault(tap, layer)
                owner.setdefault((role, tap), name)
                if known != layer:
                    refuse((role, tap), name, f"mean {known} and {layer} of the {role} by the tap {tap!r}")
        for term, weight in (part.get("weights") or {}).items():
            whole["weights"].setdefault(term, weight)
    return {key: value for key, value in whole.items() if value or key not in _NAMED}


def _with_own(node: Any, key: str, value: Any) -> Any:
    """The node with a value in place of what refers to the method's shared one."""
    if isinstance(node, Mapping):
        return {name: _with_own(inner, key, value) for name, inner in node.items()}
    if isinstance(node, (list, tuple)):
        return [_with_own(inner, key, value) for inner in node]
    refers = isinstance(node, str) and re.fullmatch(r"\$\{(\.\.+|method\.)" + re.escape(key) + r"\}", node)
    return value if refers else node
