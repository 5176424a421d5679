"""``sweep.json``: which runs a sweep expects, whether they have begun or not."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from kd_lightning.config.names import swept_keys
from kd_lightning.config.plain import plain_mapping, plain_texts
from kd_lightning.config.replicates import seeds_of
from kd_lightning.errors import NothingRun, UserError
from kd_lightning.runs.atomic import write_atomically
from kd_lightning.runs.directory import held
from kd_lightning.runs.invoked import invocation
from kd_lightning.runs.result_file import remove_unfinished_writes
from kd_lightning.runs.spec import RunSpec

SWEEP_FILES = ("sweep.json", "multirun.yaml")
"""What a start of a sweep writes into its directory before any run has begun; the second is Hydra's."""


def write_sweep_file(
    sweep_dir: Path, config: DictConfig, specs: Sequence[RunSpec], objectives: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Runs that an earlier start of the sweep expected stay listed; ``objectives`` are those of a search."""
    old = read_sweep_file(sweep_dir)
    swept = swept_keys(plain_texts(config.hydra.overrides.task), plain_mapping(config.hydra.sweeper.get("params")))
    runs = {run["name"]: run for run in old["runs"]}
    for spec in specs:
        entry = {"name": spec.name, "overrides": list(spec.overrides), "fingerprint": spec.fingerprint}
        seeds = dict(seeds_of(spec.config))
        runs[spec.name] = {**entry, "role": spec.role, "setting": spec.setting, "seeds": seeds}
    content: dict[str, Any] = {
        "format": 1,
        "command": shlex.join(invocation()),
        "started": old.get("started") or datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "swept": sorted({*old.get("swept", []), *swept}),
        "runs": list(runs.values()),
    }
    if objectives:
        content["objectives"] = list(objectives)
    remove_unfinished_writes(sweep_dir / "sweep.json")  # of a start that was killed at this very line
    write_atomically(sweep_dir / "sweep.json", json.dumps(content, indent=1))


def read_sweep_file(sweep_dir: Path) -> dict[str, Any]:
    """What an earlier start of the sweep wrote; no runs if there was none, or if it is damaged (it is made anew)."""
    try:
        content = json.loads((sweep_dir / "sweep.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    return {"runs": [], **content} if isinstance(content, dict) else {"runs": []}


@contextlib.contextmanager
def held_sweep(sweep_dir: Path) -> Iterator[None]:
    """Hold a sweep's directory; a start that is refused before any run began leaves it as it was."""
    with held(sweep_dir, "sweep_dir"):
        before = {path.name for path in sweep_dir.iterdir()}
        files = {sweep_dir / name: (sweep_dir / name).read_bytes() for name in before & {*SWEEP_FILES}}
        try:
            yield
        except (UserError, NothingRun):
            if {path.name for path in sweep_dir.iterdir()} <= before | {*SWEEP_FILES}:
                for path in (sweep_dir / name for name in SWEEP_FILES):
                    if path in files:
                        path.write_bytes(files[path])
                    else:
                        path.unlink(missing_ok=True)
            raise
