"""Which directory each run of a sweep gets, whatever the sweep was called with before."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from kd_lightning.running.present_state import other_run_in
from kd_lightning.runs.code_change import changed_code
from kd_lightning.runs.spec import RunSpec

log = logging.getLogger(__name__)


class Placing:
    """Names and directories of the runs of one start.

    Args:
        known: names of runs that earlier starts of the sweep expected, by fingerprint.
    """

    def __init__(self, known: Mapping[str, str]) -> None:
        self._known = dict(known)
        self._taken: dict[str, str] = {}  # fingerprints of this start's runs by name
        self._edited: dict[str, list[str]] = {}  # runs made before a file of the user's was edited, by the files
        self._others: list[str] = []  # runs of other configurations

    def placed(self, spec: RunSpec) -> RunSpec:
        """The spec in the directory that is its own.

        The fingerprint decides: a run that the sweep knows by another name (other keys were swept then) keeps that
        name, and a name that belongs to another run gets the fingerprint added, so that both results stay.
        """
        name = self._known.get(spec.fingerprint, spec.name)
        wanted = replace(spec, name=name, run_dir=spec.run_dir.with_name(name))
        other = other_run_in(wanted)
        if other is not None:
            files = ", ".join(changed_code(other, wanted))
            (self._edited.setdefault(files, []) if files else self._others).append(name)
        if other is not None or self._taken.get(name, spec.fingerprint) != spec.fingerprint:
            name = f"{name}-{spec.fingerprint[:6]}"
            wanted = replace(wanted, name=name, run_dir=spec.run_dir.with_name(name))
        self._taken[name] = spec.fingerprint
        self._known[spec.fingerprint] = name  # another job that computes the same is the same run
        return wanted

    def tell(self) -> None:
        """Say which runs are made beside others of their names."""
        for files, names in self._edited.items():
            log.warning(
                "%s changed since %s %s made: made again beside, with other code; accept_code=true keeps what is there",
                files, _few(names), "were" if len(set(names)) > 1 else "was",
            )  # fmt: skip
        if self._others:
            log.info("%s: of another configuration, or of an earlier version: kept, others beside", _few(self._others))


def once(specs: Sequence[RunSpec]) -> list[RunSpec]:
    """The specs without those that compute the same as another one, which are told in one line."""
    kept: dict[str, RunSpec] = {}
    for spec in specs:
        if kept.setdefault(spec.fingerprint, spec).baseline is None and spec.baseline is not None:
            kept[spec.fingerprint] = spec
    counts = Counter(spec.name for spec in specs)
    if len(kept) < len(specs):
        twice = ", ".join(f"{name} ({count} times)" for name, count in counts.items() if count > 1)
        log.warning("asked for more than once, computed and counted once: %s", twice)
    return list(kept.values())


def _few(names: Sequence[str]) -> str:
    names = list(dict.fromkeys(names))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
