"""A job that Hydra composed -> the RunSpec to compute, with the student alone it is compared with."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from kd_lightning.config.fingerprint import identify
from kd_lightning.config.keys import find, is_seed
from kd_lightning.config.names import run_name
from kd_lightning.config.plain import plain_mapping, plain_texts
from kd_lightning.runs.spec import ALONE, DISTILLED, RunSpec
from kd_lightning.teachers.alone import ALONE_METHOD


def spec_from_hydra(cfg: DictConfig, run_dir: str | Path | None = None) -> RunSpec:
    """The run that ``cfg`` describes; call it while Hydra's own configuration of the job is set.

    Args:
        cfg: composed job configuration.
        run_dir: the run's directory; None takes the one that Hydra made for the job.
    """
    hydra = HydraConfig.get()
    run_dir = Path(run_dir if run_dir is not None else hydra.runtime.output_dir)
    config = plain_config(cfg)
    overrides = tuple(plain_texts(hydra.overrides.task))
    in_sweep = hydra.mode == RunMode.MULTIRUN
    base = run_dir.parent if in_sweep else run_dir
    role = DISTILLED if wants_teacher(config) else ALONE
    wants_baseline = role == DISTILLED and bool(config.get("baseline"))
    swept = swept_of_job() if in_sweep else []
    identity = identify(config)
    return RunSpec(
        run_dir.name,
        run_dir,
        config,
        identity.fingerprint,
        overrides,
        role,
        baseline_spec(config, base, overrides, swept) if wants_baseline else None,
        identity.setting,
        setting_name(overrides, swept) if in_sweep else "",
        identity.source,
        identity.configuration,
        swept=values_of(swept, overrides),
    )


def values_of(swept: Sequence[str], overrides: Sequence[str]) -> dict[str, str]:
    """The values that a job gives to the keys of its sweep, as they were written."""
    given = {key.lstrip("+~"): value for key, _, value in (override.partition("=") for override in overrides)}
    return {key: given[key] for key in swept if key in given}


def setting_name(overrides: Sequence[str], swept: Sequence[str]) -> str:
    """The readable name that a run of a sweep shares with those that differ from it in seeds only."""
    name = run_name(overrides, [key for key in swept if not is_seed(key)])
    return "all seeds" if name == "run" else name


def plain_config(cfg: DictConfig) -> dict[str, Any]:
    """The configuration resolved to plain containers, without what only says where the run is."""
    plain = OmegaConf.masked_copy(cfg, [str(k) for k in cfg if not find(str(k)).of_start])
    return plain_mapping(plain, resolve=True, throw_on_missing=True)


def wants_teacher(config: dict[str, Any]) -> bool:
    """Whether some term beside the task's own loss counts."""
    weights = config["method"].get("weights") or {}
    return any(value for name, value in weights.items() if name != "task")


def baseline_spec(config: dict[str, Any], base: Path, overrides: tuple[str, ...], swept: list[str]) -> RunSpec:
    """The same student, data, seed and optimization without the teacher's terms.

    Args:
        config: of the distilled run.
        base: directory that the student alone gets its own directory in.
        overrides: of the distilled run.
        swept: keys that the sweep varies: the name tells apart what differs beside the method (seed, student …).
    """
    alone = copy.deepcopy(config)
    alone["method"] = copy.deepcopy(ALONE_METHOD)
    alone["baseline"] = False
    kept = tuple(o for o in overrides if not o.lstrip("+~").startswith("method"))
    swept = [key for key in swept if not key.startswith("method")]
    suffix = run_name(kept, swept) if swept else "run"
    name = "student_alone" + (f"_{suffix}" if suffix != "run" else "")
    of_all = setting_name(kept, swept)
    identity = identify(alone)
    return RunSpec(
        name,
        base / name,
        alone,
        identity.fingerprint,
        (*kept, "method=none"),
        ALONE,
        setting=identity.setting,
        setting_name="student_alone" + (f"_{of_all}" if of_all != "all seeds" else ""),
        source=identity.source,
        configuration=identity.configuration,
        swept=values_of(swept, kept),
    )


def swept_of_job() -> list[str]:
    """Keys that the sweep of the current job varies: those that name its directory."""
    subdir = plain_mapping(HydraConfig.get().sweep)["subdir"]
    return re.findall(r'"([^"]+)"', str(subdir))
