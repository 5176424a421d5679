"""Hydra's and OmegaConf's nodes as plain Python, with the types that we know they have."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf


def plain_mapping(node: Any, *, resolve: bool = False, throw_on_missing: bool = False) -> dict[str, Any]:
    """A mapping's node as a dictionary with texts as keys; None is an empty one."""
    if node is None:
        return {}
    plain = OmegaConf.to_container(node, resolve=resolve, throw_on_missing=throw_on_missing)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def plain_texts(node: Any) -> list[str]:
    """A list's node as texts, as they were written: iterating over the node would resolve a ``${...}`` in them."""
    plain = OmegaConf.to_container(node, resolve=False)
    assert isinstance(plain, list)
    return [str(item) for item in plain]
