"""An error about what a recipe says names the recipe: who typed ``recipe=patient`` has never seen ``method.weights.kd``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig

from kd_lightning.config.origin import Origin
from kd_lightning.config.plain import plain_texts

RECIPE = "recipe"


def with_recipe(line: str) -> str:
    """A line for the user, with the recipe behind the keys that it names and what to do about it, if there is one.

    Args:
        line: of an error in the job that Hydra composed last.
    """
    if not HydraConfig.initialized():
        return line
    origin = Origin(plain_texts(HydraConfig.get().overrides.task))
    for path, content in origin.chosen(RECIPE):
        recipe = f"{RECIPE}={path.stem}"
        groups = _groups(yaml.safe_load(path.read_text(encoding="utf-8")).get("defaults") or [])
        kept = {group: choice for group, choice in groups.items() if origin.choices.get(group) == [choice]}
        # in quotes stands what was probably meant
        said = [key for key in _keys(content) if re.search(rf"(?<![\w.']){re.escape(key)}(?![\w.'])", line)]
        sets = [key for key in said if origin.override_of(key) is None]
        sets += [f"{g}={choice}" for g, choice in kept.items() if re.search(rf"(?<![\w./=]){g}(?![\w./=])", line)]
        if not sets:
            continue
        others = {group for group in groups if group not in kept and any(key.startswith(f"{group}.") for key in sets)}
        made_for = "".join(f" for {group}={groups[group]}" for group in sorted(others))
        typed = "".join(f", or {group}={','.join(origin.choices[group])}" for group in sorted(others))
        return f"{line}; {recipe} sets {' and '.join(sets)}{made_for}: leave out {recipe}{typed}"
    return line


def _groups(defaults: list[Any]) -> dict[str, str]:
    """What a file chooses of other groups: ``override /method: kd`` is ``{"method": "kd"}``."""
    entries = [(name, choice) for entry in defaults if isinstance(entry, Mapping) for name, choice in entry.items()]
    return {name.removeprefix("override /"): choice for name, choice in entries if name.startswith("override /")}


def _keys(content: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
