"""A stored run, or teacher, beside one that is wanted: is it the same, of other code, or another altogether?

What is stored names its configuration and its code apart, so that a user who edited a file is told which, and can keep
what the old code made: ``accept_code=true``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kd_lightning.config.replicates import digest
from kd_lightning.config.source import changed_files
from kd_lightning.runs.spec import RunSpec

Stored = Mapping[str, Any]
"""A ``result.json`` or a checkpoint: what was stored says ``fingerprint``, ``configuration`` and ``source``."""


def is_same(stored: Stored, spec: RunSpec) -> bool:
    """Whether what is stored is of this run: equal, or made by other code that ``accept_code`` takes for the same."""
    if stored.get("fingerprint") == spec.fingerprint:
        return True
    accepted = digest(spec.source) in (stored.get("accepted") or [])
    return bool(changed_code(stored, spec)) and (accepted or bool(spec.config.get("accept_code")))


def changed_code(stored: Stored, spec: RunSpec) -> list[str]:
    """The user's files that changed since, if what is stored has the configuration that is wanted; else none."""
    if not spec.configuration or stored.get("configuration") != spec.configuration:
        return []
    return changed_files(stored.get("source") or {}, spec.source)


def identity_of(spec: RunSpec) -> dict[str, Any]:
    """What stored things say of the run that they belong to."""
    return {"fingerprint": spec.fingerprint, "configuration": spec.configuration, "source": dict(spec.source)}


def restamped(stored: Stored, spec: RunSpec) -> dict[str, Any]:
    """What is stored, as of the code as it is now; ``made_with`` keeps what it was made with."""
    return {
        **stored,
        **identity_of(spec),
        "setting": spec.setting,
        "made_with": stored.get("made_with") or stored.get("source") or {},
    }


def accepting(stored: Stored, spec: RunSpec) -> dict[str, Any]:
    """What is stored, which also stands for what the code as it is now would make."""
    return {**stored, "accepted": [*(stored.get("accepted") or []), digest(spec.source)]}


def why_other(stored: Stored, spec: RunSpec) -> str:
    """What is the matter with a directory that holds another run, and what to type."""
    files = changed_code(stored, spec)
    if files:
        return (
            f"its run was made with other code ({', '.join(files)} changed since); accept_code=true keeps it, "
            "another directory makes it anew"
        )
    if stored.get("fingerprint") and "configuration" not in stored:
        return "holds a run of an earlier version, which named configurations otherwise; choose another directory"
    return "holds a run with another configuration (see its .hydra/config.yaml); choose another directory"
