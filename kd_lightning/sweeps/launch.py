"""What becomes of the jobs of a sweep: composed, named, handed to the executor together."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from kd_lightning.config.build import build_executor
from kd_lightning.config.hydra_files import hydra_files
from kd_lightning.errors import NothingRun, RunInterrupted, RunsFailed, UserError
from kd_lightning.running.baselines import with_baselines
from kd_lightning.running.execute import execute
from kd_lightning.running.plan import say_plan
from kd_lightning.runs.notes import keep_note
from kd_lightning.runs.result_file import ENDS, Result
from kd_lightning.runs.spec import RunSpec
from kd_lightning.sweeps.from_hydra import spec_from_hydra
from kd_lightning.sweeps.placing import Placing, once
from kd_lightning.sweeps.report import refresh_report
from kd_lightning.sweeps.sweep_file import read_sweep_file, write_sweep_file
from kd_lightning.terminal.present import say_sweep, shown
from kd_lightning.terminal.quiet import quiet

log = logging.getLogger(__name__)


class Batch(NamedTuple):
    """Jobs that were computed together.

    Attributes:
        runs: each job: Hydra's record, its run and the run's result; a run may serve several jobs.
        specs: the runs, the students alone among them.
        results: of ``specs``.
    """

    runs: list[tuple[JobReturn, RunSpec, Result]]
    specs: list[RunSpec]
    results: list[Result]


def launch(
    context: HydraContext, config: DictConfig, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
) -> list[JobReturn]:
    """Compose each job, have them all computed, and return what Hydra wants to know of each.

    Raises:
        RunInterrupted: a signal asked to stop; the sweep continues when it is started again in the same directory.
        RunsFailed: some runs did not finish, and the sweeper has no use for the others' figures.
    """
    batch = compute(context, config, job_overrides, initial_job_idx)
    finish(Path(str(config.hydra.sweep.dir)).resolve(), batch)
    left = [result["name"] for result in batch.results if result["status"] not in ENDS]
    if left and is_grid(config):  # others want to know of each job
        raise RunsFailed(f"{len(left)} of {len(batch.results)} runs did not finish: {', '.join(left)}")
    return [told(job, result) for job, _, result in batch.runs]


def compute(
    context: HydraContext,
    config: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    initial_job_idx: int,
    judges: Sequence[Mapping[str, Any] | None] = (),
    objectives: Sequence[Mapping[str, Any]] = (),
) -> Batch:
    """Compose each job and have them all computed.

    Args:
        context: of Hydra.
        config: of the sweep.
        job_overrides: of each job.
        initial_job_idx: number of the first job.
        judges: of each job: who may stop it early (:attr:`RunSpec.judge`); none given: nobody.
        objectives: what a search looks for, kept for the report.

    Raises:
        RunInterrupted: a signal asked to stop.
        RunsFailed: a run failed, and ``failures.stop`` ends the sweep with it.
        NothingRun: it was a dry run.
    """
    start_logging(config)
    sweep_dir = Path(str(config.hydra.sweep.dir)).resolve()
    placing = Placing({run["fingerprint"]: run["name"] for run in read_sweep_file(sweep_dir)["runs"]})
    jobs = []
    for offset, overrides in enumerate(job_overrides):
        job_config = context.config_loader.load_sweep_config(config, list(overrides))
        with open_dict(job_config):
            job_config.hydra.job.id = job_config.hydra.job.num = initial_job_idx + offset
        spec, job = composed(job_config, sweep_dir, placing)
        jobs.append((replace(spec, judge=judges[offset]) if judges else spec, job))
    placing.tell()
    specs = with_baselines(once([spec for spec, _ in jobs]))
    executor = build_executor(config.launcher, sweep_dir)
    if config.launcher.get("wait") is False and not is_grid(config):
        raise UserError(
            "launcher.wait=false: this sweeper chooses its next runs by the results of these: it has to wait"
        )
    if config.dry_run:
        say_plan(specs, executor.fuse)
        raise NothingRun
    write_sweep_file(sweep_dir, config, specs, objectives)
    if config.note is not None:
        keep_note(sweep_dir, str(config.note))
    log.info("%d runs in %s", len(specs), sweep_dir)
    results = execute(specs, executor, tell=lambda _: refresh_report(sweep_dir))
    failed = [result for result in results if result["status"] in ("failed", "diverged")]
    interrupted = any(result["status"] == "interrupted" for result in results)
    batch_of = {spec.run_dir: result for spec, result in zip(specs, results, strict=True)}
    batch = Batch([(job, spec, batch_of[spec.run_dir]) for spec, job in jobs], specs, results)
    stopped = bool(failed) and config.failures.stop
    if stopped or interrupted:
        finish(sweep_dir, batch)
    if stopped:
        raise RunsFailed(
            f"stopped at {failed[0]['name']}: {failed[0]['error']}; the same command goes on with what is left"
        )
    if interrupted:
        raise RunInterrupted(f"interrupted; continue with the same command and sweep_dir={shown(sweep_dir)}")
    return batch


def start_logging(config: DictConfig) -> None:
    """What a sweep says, before there is a job; asked for again it changes nothing."""
    quiet()
    setup_globals()
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)


def finish(sweep_dir: Path, batch: Batch) -> None:
    """The sweep's report, and its table on the terminal."""
    refresh_report(sweep_dir, final=True)
    say_sweep(sweep_dir, batch.specs, batch.results)


def is_grid(config: DictConfig) -> bool:
    """Whether all runs of the sweep are known from the start."""
    return "basic_sweeper" in str(config.hydra.sweeper.get("_target_"))


def composed(job_config: DictConfig, sweep_dir: Path, placing: Placing) -> tuple[RunSpec, JobReturn]:
    """The job's RunSpec, and Hydra's record of the job.

    Args:
        job_config: composed for the job.
        sweep_dir: where all runs of the sweep are.
        placing: gives each run its directory.
    """
    HydraConfig.instance().set_config(job_config)
    subdir = str(OmegaConf.select(job_config, "hydra.sweep.subdir"))
    task_config = copy.deepcopy(job_config)
    with open_dict(task_config):
        del task_config["hydra"]
    spec = placing.placed(spec_from_hydra(task_config, sweep_dir / subdir))
    if spec.baseline is not None:
        spec = replace(spec, baseline=placing.placed(spec.baseline))
    with read_write(job_config.hydra), open_dict(job_config.hydra):
        job_config.hydra.sweep.subdir = spec.run_dir.name
        job_config.hydra.runtime.output_dir = str(spec.run_dir)
    spec = replace(spec, files=hydra_files(task_config, job_config))
    job = JobReturn(overrides=list(spec.overrides), cfg=task_config, hydra_cfg=job_config, task_name="kd-train")
    return spec, job


def told(job: JobReturn, result: Result) -> JobReturn:
    """Hydra's record with the best validation metric (what an optimizing sweeper wants), or the failure."""
    if result["status"] == "finished":
        job.status = JobStatus.COMPLETED
        job.return_value = result["metrics"].get("best/val_" + result["monitor"]["metric"])
    else:
        job.status = JobStatus.FAILED
        job.return_value = RunsFailed(f"{result['name']} {result['status']}: {result['error']}")
    return job
