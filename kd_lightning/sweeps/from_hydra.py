"""A job that Hydra composed -> the RunSpec to compute, with the student alone it is compared with."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from kd_lightning.config.fingerprint import config_fingerprint
from kd_lightning.runs.result_file import read_result
from kd_lightning.runs.spec import ALONE, DISTILLED, RunSpec
from kd_lightning.sweeps.names import run_name
from kd_lightning.teachers.alone import ALONE_METHOD

SHARED_KEYS = ("run_dir", "sweep_dir")


def spec_from_hydra(cfg: DictConfig, run_dir: str | Path | None = None) -> RunSpec:
    """The run that ``cfg`` describes; call it while Hydra's own configuration of the job is set.

    Args:
        cfg: composed job configuration.
        run_dir: the run's directory; None takes the one that Hydra made for the job.
    """
    hydra = HydraConfig.get()
    run_dir = Path(run_dir if run_dir is not None else hydra.runtime.output_dir)
    config = plain_config(cfg)
    overrides = tuple(str(o) for o in hydra.overrides.task)
    in_sweep = hydra.mode == RunMode.MULTIRUN
    base = run_dir.parent if in_sweep else run_dir
    role = DISTILLED if wants_teacher(config) else ALONE
    return RunSpec(
        run_dir.name,
        run_dir,
        config,
        config_fingerprint(config),
        overrides,
        role,
        baseline_spec(config, base, overrides, in_sweep) if role == DISTILLED and config.get("baseline") else None,
    )


def plain_config(cfg: DictConfig) -> dict[str, Any]:
    """The configuration resolved to plain containers, without what only says where the run is."""
    plain = OmegaConf.masked_copy(cfg, [k for k in cfg if k not in SHARED_KEYS])
    resolved = OmegaConf.to_container(plain, resolve=True, throw_on_missing=True)
    return {str(k): v for k, v in resolved.items()}


def wants_teacher(config: dict[str, Any]) -> bool:
    """Whether some term beside the task's own loss counts."""
    weights = config["method"].get("weights") or {}
    return any(value for name, value in weights.items() if name != "task")


def baseline_spec(config: dict[str, Any], base: Path, overrides: tuple[str, ...], in_sweep: bool) -> RunSpec:
    """The same student, data, seed and optimization without the teacher's terms."""
    alone = copy.deepcopy(config)
    alone["method"] = copy.deepcopy(ALONE_METHOD)
    alone["baseline"] = False
    kept = tuple(o for o in overrides if not o.lstrip("+~").startswith("method"))
    # in a sweep the name tells apart what the sweep varies beside the method: seed, student, learning rate …
    suffix = run_name([o for o in kept if not o.startswith(("run_dir", "sweep_dir"))]) if in_sweep else ""
    name = "student_alone" + (f"_{suffix}" if suffix not in ("", "run") else "")
    return RunSpec(name, base / name, alone, config_fingerprint(alone), (*kept, "method=none"), ALONE)


def other_run_in(spec: RunSpec) -> bool:
    """Whether the directory holds a run with another configuration."""
    result = read_result(spec.result_path, strict=False)
    return result is not None and result.get("fingerprint") != spec.fingerprint
