"""A file of runs for a process elsewhere: what one job of a cluster, or one of several processes of a run, has to do.

JSON, so that it can be read years later, by people and by other versions, and loading it executes nothing. All that a
worker needs is in it: the runs as they were composed, and the directory in which they were.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from kd_lightning.errors import UserError
from kd_lightning.runs.atomic import write_atomically
from kd_lightning.runs.spec import RunSpec

FORMAT = 1
TRAIN, PREPARE, RANK = "train", "prepare", "rank"


@dataclass(frozen=True)
class Work:
    """What a worker has to do.

    Attributes:
        task: :data:`TRAIN`: compute the runs. :data:`PREPARE`: what all of them read (data, teacher, its stored
            answers) is made, and no run of theirs. :data:`RANK`: train them together with other processes
            (:mod:`kd_lightning.running.ranks`).
        specs: the runs; each distilled one's baseline comes with it.
        cwd: the directory in which the command was started: relative paths are relative to it, and code of the user's
            is found there.
        serves: work files whose runs wait for this one.
    """

    task: str
    specs: tuple[RunSpec, ...]
    cwd: Path
    serves: tuple[Path, ...] = ()


def write_work(path: Path, work: Work) -> None:
    """Write a work file, whole or not at all."""
    baselines = {spec.baseline.fingerprint: spec.baseline for spec in work.specs if spec.baseline is not None}
    content = {
        "format": FORMAT,
        "task": work.task,
        "cwd": str(work.cwd),
        "serves": [str(path) for path in work.serves],
        "specs": [_plain(spec) for spec in work.specs],
        "baselines": {fingerprint: _plain(spec) for fingerprint, spec in baselines.items()},
    }
    write_atomically(path, json.dumps(content, separators=(",", ":")))


def read_work(path: Path) -> Work:
    """What :func:`write_work` wrote.

    Raises:
        UserError: the file is not there, damaged, or of another version.
    """
    try:
        content = json.loads(path.read_bytes())
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r}, this version reads {FORMAT}")
        baselines = {fingerprint: _spec(plain) for fingerprint, plain in content["baselines"].items()}
        specs = []
        for plain in content["specs"]:
            spec = _spec(plain)
            specs.append(replace(spec, baseline=baselines[plain["baseline"]]) if plain["baseline"] else spec)
        return Work(content["task"], tuple(specs), Path(content["cwd"]), tuple(map(Path, content["serves"])))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no work file of this version ({error}): start the sweep again") from error


def _plain(spec: RunSpec) -> dict[str, Any]:
    plain = {field.name: getattr(spec, field.name) for field in fields(spec)}
    baseline = spec.baseline.fingerprint if spec.baseline is not None else None
    return plain | {"run_dir": str(spec.run_dir), "config": _encoded(spec.config), "baseline": baseline}


def _spec(plain: Mapping[str, Any]) -> RunSpec:
    values = {field.name: plain[field.name] for field in fields(RunSpec)}
    return RunSpec(
        **{
            **values,
            "run_dir": Path(plain["run_dir"]),
            "config": _decoded(plain["config"]),
            "overrides": tuple(plain["overrides"]),
            "baseline": None,
        }
    )


_PAIRS = "_pairs_"


def _encoded(value: Any) -> Any:
    """JSON's keys are texts: a mapping with other keys (numbers of layers) becomes a list of pairs."""
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {key: _encoded(item) for key, item in value.items()}
        return {_PAIRS: [[key, _encoded(item)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return [_encoded(item) for item in value]
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise UserError(f"launcher: a {type(value).__name__} in a run's configuration cannot be sent elsewhere: {value!r}")


def _decoded(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {_PAIRS}:
            return {key: _decoded(item) for key, item in value[_PAIRS]}
        return {key: _decoded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    return value
