"""A mapping that a command line gives twice: both count, in a sweep as in a single run.

Hydra merges ``'method.weights={kd:0.5}' 'method.weights={task:0.3}'`` in a single run; its sweeper would keep the last
one only, in silence.
"""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override

from kd_lightning.errors import UserError


def merged(overrides: Sequence[str]) -> list[str]:
    """The overrides of a sweep with mappings of one key put together, in the place of the last of them.

    Raises:
        UserError: they cannot be: one of them is swept, or they have a key in common.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    by_key: dict[str, list[Override]] = {}
    for override in parsed:
        if _gives_mapping(override):
            by_key.setdefault(override.get_key_element(), []).append(override)
    together = {id(found[-1]): _together(key, found) for key, found in by_key.items() if len(found) > 1}
    left_out = {id(override) for found in by_key.values() for override in found[:-1]}
    return [together.get(id(o), str(o.input_line)) for o in parsed if id(o) not in left_out]


def _gives_mapping(override: Override) -> bool:
    if override.is_delete():
        return False
    value = override.value()
    if isinstance(value, ChoiceSweep):  # a range or a pattern of names holds no mapping
        return any(isinstance(choice, dict) for choice in value.list)
    return isinstance(value, dict)


def _together(key: str, found: Sequence[Override]) -> str:
    texts = [str(override.input_line).partition("=")[2].strip() for override in found]
    if any(override.is_sweep_override() for override in found):
        one = next(iter(_names(found)), "x")
        raise UserError(
            f"command line: {key}: given twice, of which one is swept, and a sweep would keep the last one only: "
            f"sweep its values by themselves, as in {key}.{one}=…,…"
        )
    names = _names(found)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"command line: {key}: {', '.join(twice)} is given twice: write one mapping, {key}={{…}}")
    return f"{key}={{{','.join(text[1:-1].strip() for text in texts if text[1:-1].strip())}}}"


def _names(found: Sequence[Override]) -> list[str]:
    """The keys within the mappings; of one that is swept none."""
    values = [override.value() for override in found]
    return [str(name) for value in values if isinstance(value, dict) for name in value]
