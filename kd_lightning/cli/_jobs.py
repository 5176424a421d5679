"""A single run and a sweep as Hydra would do them, but for what is written when.

Hydra makes a run's directory and the files in it before the task function is called. Here the check comes first, and
then whoever computes the run: it holds the directory against other processes, and writes into it when the run begins.
"""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, configure_log, env_override
from hydra.errors import ConfigCompositionException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from kd_lightning.cli._compose import SweepComposer
from kd_lightning.config.keys import is_seed
from kd_lightning.config.names import swept_keys
from kd_lightning.config.plain import plain_mapping, plain_texts
from kd_lightning.config.repeated import merged
from kd_lightning.errors import UserError
from kd_lightning.sweeps.sweep_file import held_sweep

TaskFunction = Callable[[DictConfig], Any]
Check = Callable[[DictConfig, Sequence[str]], None]

PAIRS = 60
"""Jobs that are composed and checked for two values that do not go together, at the most: some seconds."""


def run_single(
    hydra: Hydra, config_name: str, overrides: list[str], task_function: TaskFunction, check: Check | None
) -> None:
    """Compose, check and call the task function, whose exception comes through."""
    cfg = _compose(hydra, config_name, [*overrides, "hydra.mode=RUN"], RunMode.RUN, log=True)
    HydraConfig.instance().set_config(cfg)  # a value may refer to ${hydra:...}
    with read_write(cfg.hydra.runtime), open_dict(cfg.hydra.runtime):
        cfg.hydra.runtime.output_dir = os.path.abspath(str(cfg.hydra.run.dir))
    _refuse_other_directory(cfg)
    _check_job(check, cfg)
    callbacks = Callbacks(cfg)
    callbacks.on_run_start(config=cfg, config_name=config_name)
    job = run_job(cfg, task_function, callbacks)
    callbacks.on_run_end(config=cfg, config_name=config_name, job_return=job)
    if job.status == JobStatus.FAILED:
        raise job._return_value  # the property of the same name prints a line of its own first


def run_job(cfg: DictConfig, task_function: TaskFunction, callbacks: Callbacks) -> JobReturn:
    """What Hydra's function of this name does, without making a directory or a file."""
    HydraConfig.instance().set_config(cfg)
    task_config = copy.deepcopy(cfg)
    with read_write(task_config), open_dict(task_config):
        del task_config["hydra"]
    job = JobReturn(
        overrides=_task_overrides(cfg), cfg=task_config, hydra_cfg=copy.deepcopy(cfg), task_name=cfg.hydra.job.name
    )
    configure_log(cfg.hydra.job_logging, cfg.hydra.verbose)
    with env_override(cfg.hydra.job.env_set):
        callbacks.on_job_start(config=cfg, task_function=task_function)
        try:
            job.return_value = task_function(task_config)
            job.status = JobStatus.COMPLETED
        except Exception as error:
            job.return_value = error
            job.status = JobStatus.FAILED
        callbacks.on_job_end(config=cfg, job_return=job)
    return job


def run_sweep(
    hydra: Hydra, config_name: str, overrides: list[str], task_function: TaskFunction, check: Check | None
) -> None:
    """Check a job for each value of the sweep, hold the sweep's directory, and let Hydra's sweeper choose the jobs."""
    overrides = [*merged(overrides), "hydra.mode=MULTIRUN"]
    cfg = _compose(hydra, config_name, overrides, RunMode.MULTIRUN)
    params = plain_mapping(cfg.hydra.sweeper.get("params"), resolve=True)
    swept = swept_keys(_task_overrides(cfg), params)
    if swept and not any(o.startswith("hydra.sweep.subdir=") for o in overrides):
        keys = ",".join(f'"{key}"' for key in swept)
        overrides.append("hydra.sweep.subdir='${kd_run_name:${hydra.overrides.task},[" + keys + "]}'")
        cfg = _compose(hydra, config_name, overrides, RunMode.MULTIRUN)
    _refuse_other_directory(cfg)
    SweepComposer(hydra.config_loader).install()
    if check is not None:
        for job, together in _jobs_to_check(hydra, _task_overrides(cfg), params):
            try:
                _check_job(check, hydra.config_loader.load_sweep_config(cfg, job))
            except UserError as error:
                if together:
                    error.args = (f"{error} (in the sweep's jobs with {' '.join(together)})",)
                raise
    HydraConfig.instance().set_config(cfg)  # the sweep's directory may refer to ${hydra:...}
    sweep_dir = Path(str(cfg.hydra.sweep.dir)).resolve()
    with read_write(cfg.hydra):
        cfg.hydra.sweep.dir = str(sweep_dir)  # one directory for every job, whatever the time is when it is composed
    callbacks = Callbacks(cfg)
    callbacks.on_multirun_start(config=cfg, config_name=config_name)
    context = HydraContext(config_loader=hydra.config_loader, callbacks=callbacks)
    with held_sweep(sweep_dir):
        sweeper = Plugins.instance().instantiate_sweeper(config=cfg, hydra_context=context, task_function=task_function)
        sweeper.sweep(arguments=_task_overrides(cfg))
    callbacks.on_multirun_end(config=cfg, config_name=config_name)


def _refuse_other_directory(cfg: DictConfig) -> None:
    """Runs share a process, so none of them can have the working directory for itself."""
    if cfg.hydra.job.chdir:
        raise UserError(
            "hydra.job.chdir=true: runs do not change the directory: relative paths are those of the directory that you "
            "start in; code of yours finds the run's own in ${run_dir}"
        )


def _compose(hydra: Hydra, config_name: str, overrides: list[str], mode: RunMode, log: bool = False) -> DictConfig:
    try:
        return hydra.compose_config(config_name, overrides, mode, with_log_configuration=log)
    except UserError:
        raise
    except ValueError as error:  # some of Hydra's complaints are no HydraException
        raise ConfigCompositionException(str(error)) from error


def _task_overrides(cfg: DictConfig) -> list[str]:
    return plain_texts(cfg.hydra.overrides.task)


def _jobs_to_check(hydra: Hydra, task_overrides: list[str], params: Any) -> list[tuple[list[str], list[str]]]:
    """Jobs in which each value of the sweep appears, and each two values of its keys (seeds apart) together, not the product
    of them all; beside each job the two values that it is for.

    Of more than ``PAIRS`` pairs the first ones. Values that a sweeper chooses itself (ranges of Optuna and the like) are
    checked when their job starts.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    lines = [f"{key}={value}" for key, value in params.items()] + task_overrides
    values: dict[str, list[str]] = {}
    for override in OverridesParser.create(hydra.config_loader).parse_overrides(lines):
        key = override.get_key_element()
        if not override.is_sweep_override():
            values[key] = [f"{key}={override.get_value_element_as_str()}"] if not override.is_delete() else [key]
        elif override.is_discrete_sweep():
            values[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
            if not values[key]:
                raise UserError(
                    f"command line: {override.input_line}: gives no value: a range ends before its last one"
                )
    first = {key: options[0] for key, options in values.items()}
    jobs: list[tuple[list[str], list[str]]] = [(list(first.values()), [])]
    for key, options in values.items():
        jobs += [(list({**first, key: option}.values()), []) for option in options[1:]]
    varied = [(key, options[1:]) for key, options in values.items() if len(options) > 1 and not is_seed(key)]
    pairs = [
        (list({**first, key: option, other: value}.values()), [option, value])
        for (key, options), (other, others) in itertools.combinations(varied, 2)
        for option, value in itertools.product(options, others)
    ]
    return jobs + pairs[:PAIRS]


def _check_job(check: Check | None, cfg: DictConfig) -> None:
    if check is None:
        return
    HydraConfig.instance().set_config(cfg)  # a value may refer to ${hydra:...}
    job = cfg.copy()
    OmegaConf.set_struct(job, False)
    del job["hydra"]
    OmegaConf.set_struct(job, True)
    check(job, _task_overrides(cfg))
