"""What the ``fused`` launcher does with the jobs of a sweep."""

from __future__ import annotations

import copy
import json
import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from kd_lightning.errors import RunInterrupted, RunsFailed
from kd_lightning.running.execute import execute, with_baselines
from kd_lightning.running.outcome import Result, finished_result, other_run_in
from kd_lightning.runs.atomic import write_atomically
from kd_lightning.runs.spec import RunSpec
from kd_lightning.sweeps.from_hydra import spec_from_hydra
from kd_lightning.sweeps.names import swept_keys
from kd_lightning.terminal.present import display, refresh_report, say_sweep, shown
from kd_lightning.terminal.quiet import quiet

log = logging.getLogger(__name__)


def launch_fused(
    context: HydraContext, config: DictConfig, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
) -> list[JobReturn]:
    """Compose each job, give each its directory, train them all, and return what Hydra wants to know of each.

    Raises:
        RunInterrupted: a signal asked to stop; the sweep continues when it is started again in the same directory.
        RunsFailed: some runs did not finish, and the sweeper has no use for the others' figures.
    """
    quiet()
    setup_globals()
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    sweep_dir = Path(str(config.hydra.sweep.dir)).resolve()
    sweep_dir.mkdir(parents=True, exist_ok=True)
    known = {run["fingerprint"]: run["name"] for run in read_sweep_file(sweep_dir)["runs"]}
    jobs = []
    for offset, overrides in enumerate(job_overrides):
        job_config = context.config_loader.load_sweep_config(config, list(overrides))
        with open_dict(job_config):
            job_config.hydra.job.id = job_config.hydra.job.num = initial_job_idx + offset
        jobs.append(prepare_job(context, job_config, sweep_dir, known))
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    specs = with_baselines([spec for spec, _ in jobs])
    write_sweep_file(sweep_dir, config, specs)
    log.info("%d runs in %s", len(specs), sweep_dir)
    results = execute(
        specs, finished=lambda _: refresh_report(sweep_dir), display=display, log_file=str(config.hydra.job.name)
    )
    refresh_report(sweep_dir, final=True)
    say_sweep(sweep_dir, specs, results)
    if any(result["status"] == "interrupted" for result in results):
        raise RunInterrupted(f"interrupted; continue with the same command and sweep_dir={shown(sweep_dir)}")
    left = [result["name"] for result in results if result["status"] != "finished"]
    if left and "basic_sweeper" in str(config.hydra.sweeper.get("_target_")):  # others want to know of each job
        raise RunsFailed(f"{len(left)} of {len(results)} runs did not finish: {', '.join(left)}")
    by_dir = {spec.run_dir: result for spec, result in zip(specs, results, strict=True)}
    return [job_return(job, by_dir[spec.run_dir]) for spec, job in jobs]


def prepare_job(
    context: HydraContext, job_config: DictConfig, sweep_dir: Path, known: Mapping[str, str]
) -> tuple[RunSpec, JobReturn]:
    """The job's RunSpec and its directory with ``.hydra`` in it; a finished run is left as it is.

    Args:
        context: Hydra's.
        job_config: composed for the job.
        sweep_dir: where all runs of the sweep are.
        known: names of runs that an earlier start of the sweep expected, by fingerprint.
    """
    HydraConfig.instance().set_config(job_config)
    subdir = str(OmegaConf.select(job_config, "hydra.sweep.subdir"))
    task_config = copy.deepcopy(job_config)
    with open_dict(task_config):
        del task_config["hydra"]
    spec = settled(spec_from_hydra(task_config, sweep_dir / subdir), known)
    if spec.baseline is not None:
        spec = replace(spec, baseline=settled(spec.baseline, known))
    if finished_result(spec) is not None:
        job = JobReturn(overrides=list(spec.overrides), cfg=task_config, hydra_cfg=job_config, task_name="kd-train")
        return spec, job
    with read_write(job_config.hydra), open_dict(job_config.hydra):
        job_config.hydra.sweep.subdir = spec.run_dir.name
    job = run_job(
        hydra_context=context,
        task_function=lambda _: None,  # the runs are trained together, after all of them are prepared
        config=job_config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    return spec, job


def settled(spec: RunSpec, known: Mapping[str, str]) -> RunSpec:
    """The spec in the directory that is its own, whatever the sweep was called with before.

    The fingerprint decides: a run that the sweep knows by another name (other keys were swept then) keeps that name,
    and a name that belongs to another configuration gets the fingerprint added, so that both results stay.
    """
    name = known.get(spec.fingerprint, spec.name)
    spec = replace(spec, name=name, run_dir=spec.run_dir.with_name(name))
    if other_run_in(spec):
        name = f"{spec.name}-{spec.fingerprint[:6]}"
        spec = replace(spec, name=name, run_dir=spec.run_dir.with_name(name))
    return spec


def job_return(job: JobReturn, result: Result) -> JobReturn:
    """Hydra's record of a job: the best validation metric (what an optimizing sweeper wants), or the failure."""
    if result["status"] == "finished":
        job.status = JobStatus.COMPLETED
        job.return_value = result["metrics"].get("best/val_" + result["monitor"]["metric"])
    else:
        job.status = JobStatus.FAILED
        job.return_value = RunsFailed(f"{result['name']} {result['status']}: {result['error']}")
    return job


def write_sweep_file(sweep_dir: Path, config: DictConfig, specs: Sequence[RunSpec]) -> None:
    """``sweep.json``: which runs are expected; runs that an earlier start of the sweep expected stay listed."""
    old = read_sweep_file(sweep_dir)
    params = OmegaConf.to_container(config.hydra.sweeper.get("params") or OmegaConf.create({}))
    swept = swept_keys(OmegaConf.to_container(config.hydra.overrides.task, resolve=False), params)
    runs = {run["name"]: run for run in old["runs"]}
    for spec in specs:
        entry = {"name": spec.name, "overrides": list(spec.overrides), "fingerprint": spec.fingerprint}
        runs[spec.name] = {**entry, "role": spec.role}
    content: dict[str, Any] = {
        "format": 1,
        "command": command_line(),
        "started": old.get("started") or datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "swept": sorted({*old.get("swept", []), *swept}),
        "runs": list(runs.values()),
    }
    write_atomically(sweep_dir / "sweep.json", json.dumps(content, indent=1))


def read_sweep_file(sweep_dir: Path) -> dict[str, Any]:
    """What an earlier start of the sweep wrote; no runs if there was none, or if it is damaged (it is made anew)."""
    try:
        content = json.loads((sweep_dir / "sweep.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    return {"runs": [], **content} if isinstance(content, dict) else {"runs": []}


def command_line() -> str:
    """The command as it could be typed again."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
