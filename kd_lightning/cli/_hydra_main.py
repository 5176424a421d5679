"""How every Hydra command of this package starts: compose, check, run; errors of the user in one line with exit code 2.

``hydra.main`` does the same in spirit, but prints errors its own way (several lines, exit code 1), makes the run's
directory before anything could be checked, and resolves ``config_path`` against a Python file, whereas ours may lie in
a wheel or at the top of a checkout. So this calls the same few methods of ``hydra._internal.hydra.Hydra`` that
``hydra.main`` calls (hydra-core is pinned to 1.3 for that).

Exit codes: 0 done, 1 a run failed (with its traceback), 2 the user's to mend (one line), 130 interrupted.
No import here may be heavy: ``--help``, ``--cfg job`` and tab completion answer in well under a second.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobStatus, run_job
from hydra.errors import ConfigCompositionException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

import kd_lightning.config.resolvers  # noqa: F401  (registers them)
from kd_lightning.cli._compose import SweepComposer
from kd_lightning.cli._error_line import report_error
from kd_lightning.config.explain import leaf_keys, unknown_option
from kd_lightning.errors import UserError
from kd_lightning.sweeps.names import swept_keys

TaskFunction = Callable[[DictConfig], Any]
Check = Callable[[DictConfig, Sequence[str]], None]


def config_directory() -> Path:
    """Return the directory of the packaged configs: inside an installed wheel, else at the top of the checkout."""
    package = Path(__file__).resolve().parents[1]
    for directory in (package / "conf", package.parent / "conf"):
        if (directory / "train.yaml").is_file():
            return directory
    raise UserError(f"the config files are missing: expected them in {package / 'conf'}: install kd-lightning again")


def run_hydra(
    task_function: TaskFunction, config_name: str, argv: Sequence[str] | None = None, *, check: Check | None = None
) -> int:
    """Run a command: parse ``argv``, compose ``config_name``, check it, call ``task_function`` (once, or for each job).

    Args:
        task_function: called with each job's configuration; what it raises decides the exit code.
        config_name: ``train`` for ``conf/train.yaml``; the command is then called ``kd-train``.
        argv: command line arguments without the program's name; None takes those of the process.
        check: called with a composed configuration and its overrides before any directory is made; in a multirun, for
            every value that the sweep gives to a key. Raises UserError.

    Returns:
        the exit code.
    """
    version.setbase("1.3")
    arguments = list(sys.argv[1:] if argv is None else argv)
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # for a user's my_models.py there; last, so that it shadows nothing
    hydra: Hydra | None = None
    args = None
    try:
        parser = get_args_parser()
        args = parser.parse_args(arguments)
        hydra = _create(config_name, args)
        return _dispatch(hydra, parser, args, args.config_name or config_name, task_function, check)
    except SystemExit as error:  # argparse, and a completion or job that calls sys.exit
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:
        return report_error(error, lambda: _known(hydra, config_name, args.overrides if args is not None else []))
    finally:
        GlobalHydra.instance().clear()


def _create(config_name: str, args: argparse.Namespace) -> Hydra:
    if args.experimental_rerun is not None:
        raise UserError("--experimental-rerun is not supported: continue a run with run_dir=DIR")
    directory = os.path.abspath(args.config_path) if args.config_path else str(config_directory())
    search_path = create_config_search_path(directory)
    if args.config_dir is not None:
        own = os.path.abspath(args.config_dir)
        if not os.path.isdir(own):
            raise UserError(f"--config-dir {args.config_dir}: no such directory")
        # Before ours: a user's file takes the place of a shipped one of the same name.
        search_path.prepend(provider="command-line", path=f"file://{own}", anchor=SearchPathQuery(provider="main"))
    return Hydra.create_main_hydra2(task_name=f"kd-{config_name}", config_search_path=search_path)


def _dispatch(
    hydra: Hydra,
    parser: argparse.ArgumentParser,
    args: argparse.Namespace,
    config_name: str,
    task_function: TaskFunction,
    check: Check | None,
) -> int:
    chosen = [bool(x) for x in (args.run, args.multirun, args.cfg, args.info, args.shell_completion)]
    if sum(chosen) > 1:
        raise UserError("give only one of --run, --multirun, --cfg, --info and --shell-completion")
    if args.resolve and not (args.cfg or args.help):
        raise UserError("--resolve needs --cfg or --help")
    if args.help:
        hydra.app_help(config_name=config_name, args_parser=parser, args=args)
    elif args.hydra_help:
        hydra.hydra_help(config_name=config_name, args_parser=parser, args=args)
    elif args.shell_completion:
        hydra.shell_completion(config_name=config_name, overrides=args.overrides)
    elif args.info:
        hydra.show_info(args.info, config_name=config_name, overrides=args.overrides)
    elif args.cfg:
        hydra.show_cfg(config_name, args.overrides, args.cfg, args.package, args.resolve)
    else:
        problem = unknown_option(hydra.config_loader, args.overrides)
        if problem is not None:
            raise UserError(problem)
        multirun = args.multirun or hydra.get_mode(config_name, args.overrides) == RunMode.MULTIRUN
        run = _multirun if multirun else _run
        run(hydra, config_name, list(args.overrides), task_function, check)
    sys.stdout.flush()  # here a reader that has closed its end can still be answered in good order
    return 0


def _run(
    hydra: Hydra, config_name: str, overrides: list[str], task_function: TaskFunction, check: Check | None
) -> None:
    """What ``Hydra.run`` does, with the check before the run's directory is made and the job's own exception."""
    cfg = _compose(hydra, config_name, [*overrides, "hydra.mode=RUN"], RunMode.RUN, log=True)
    _check_job(check, cfg)
    callbacks = Callbacks(cfg)
    callbacks.on_run_start(config=cfg, config_name=config_name)
    try:
        job = run_job(
            task_function=task_function,
            config=cfg,
            job_dir_key="hydra.run.dir",
            job_subdir_key=None,
            hydra_context=HydraContext(config_loader=hydra.config_loader, callbacks=callbacks),
        )
    except OSError as error:  # of the directory and the files in it; the task's own exception is in job
        raise UserError(f"run_dir={cfg.hydra.run.dir}: cannot be written: {error.strerror or error}") from error
    callbacks.on_run_end(config=cfg, config_name=config_name, job_return=job)
    if job.status == JobStatus.FAILED:
        raise job._return_value  # the property of the same name prints a line of its own first


def _multirun(
    hydra: Hydra, config_name: str, overrides: list[str], task_function: TaskFunction, check: Check | None
) -> None:
    overrides = [*overrides, "hydra.mode=MULTIRUN"]
    cfg = _compose(hydra, config_name, overrides, RunMode.MULTIRUN)
    params = OmegaConf.to_container(cfg.hydra.sweeper.get("params") or OmegaConf.create({}))
    swept = swept_keys(_task_overrides(cfg), params)
    if swept and not any(o.startswith("hydra.sweep.subdir=") for o in overrides):
        keys = ",".join(f'"{key}"' for key in swept)
        overrides.append("hydra.sweep.subdir='${kd_run_name:${hydra.overrides.task},[" + keys + "]}'")
        cfg = _compose(hydra, config_name, overrides, RunMode.MULTIRUN)
    SweepComposer(hydra.config_loader).install()
    if check is not None:
        for job in _jobs_to_check(hydra, _task_overrides(cfg), params):
            _check_job(check, hydra.config_loader.load_sweep_config(cfg, job))
    HydraConfig.instance().set_config(cfg)  # the sweep's directory may refer to ${hydra:...}
    hydra.multirun(config_name=config_name, task_function=task_function, overrides=overrides)


def _compose(hydra: Hydra, config_name: str, overrides: list[str], mode: RunMode, log: bool = False) -> DictConfig:
    try:
        return hydra.compose_config(config_name, overrides, mode, with_log_configuration=log)
    except ValueError as error:  # some of Hydra's complaints are no HydraException
        raise ConfigCompositionException(str(error)) from error


def _task_overrides(cfg: DictConfig) -> list[str]:
    """The overrides as they were written: iterating over the config's list would resolve a ``${...}`` in them."""
    return [str(override) for override in OmegaConf.to_container(cfg.hydra.overrides.task, resolve=False)]


def _jobs_to_check(hydra: Hydra, task_overrides: list[str], params: Any) -> list[list[str]]:
    """Jobs in which each value of the sweep appears at least once: the sum, not the product, of the numbers of values.

    Values that a sweeper chooses itself (ranges of Optuna and the like) are checked when their job starts.
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
    first = {key: options[0] for key, options in values.items()}
    jobs = [list(first.values())]
    for key, options in values.items():
        jobs += [list({**first, key: option}.values()) for option in options[1:]]
    return jobs


def _check_job(check: Check | None, cfg: DictConfig) -> None:
    if check is None:
        return
    HydraConfig.instance().set_config(cfg)  # a value may refer to ${hydra:...}
    job = cfg.copy()
    OmegaConf.set_struct(job, False)
    del job["hydra"]
    OmegaConf.set_struct(job, True)
    check(job, _task_overrides(cfg))


def _known(hydra: Hydra | None, config_name: str, overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Keys of the configuration as it would be without value overrides, and the groups, for suggestions."""
    if hydra is None:
        return [], []
    groups = hydra.list_all_config_groups()
    for choice in ([o for o in overrides if o.partition("=")[0].lstrip("+") in groups and "," not in o], []):
        try:
            cfg = hydra.compose_config(config_name, list(choice), RunMode.RUN)
        except Exception:  # the chosen option is itself what is wrong: suggest from the defaults
            continue
        return leaf_keys(cfg), groups
    return [], groups
