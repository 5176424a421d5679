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
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

import kd_lightning.config.resolvers  # noqa: F401  (registers them)
from kd_lightning.cli._error_line import report_error
from kd_lightning.cli._jobs import Check, TaskFunction, run_single, run_sweep
from kd_lightning.cli._rerun import register, saved_run, taken_out
from kd_lightning.cli._unread import unread
from kd_lightning.config.combined_methods import CombinedMethods, as_names
from kd_lightning.config.explain import leaf_keys, unknown_option
from kd_lightning.config.keys import outer_key
from kd_lightning.config.plain import plain_mapping
from kd_lightning.errors import UserError
from kd_lightning.runs.latest import LATEST, latest


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
            every value that the sweep gives to a key, and for two at a time. Raises UserError.

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
        parser.error = _refuse  # type: ignore[method-assign]  # argparse would print all options first
        args = parser.parse_intermixed_args(arguments)  # overrides before and after -m
        args.overrides = [as_names(_opened(_named(override, args.overrides))) for override in args.overrides]
        saved, args.overrides = taken_out(args.overrides)
        if saved is None and (saved := saved_run(args.config_path)) is not None:
            args.config_path = None
        hydra = _create(config_name, args)
        chosen = args.config_name or config_name
        if saved is not None:
            defaults = plain_mapping(OmegaConf.load(config_directory() / f"{config_name}.yaml"))
            chosen = register(saved, hydra.config_loader, defaults, args.overrides)
        return _dispatch(hydra, parser, args, chosen, task_function, check)
    except SystemExit as error:  # argparse, and a completion or job that calls sys.exit
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:
        return report_error(error, lambda: known_names(hydra, config_name, args.overrides if args is not None else []))
    finally:
        GlobalHydra.instance().clear()


def _refuse(message: str) -> NoReturn:
    option = re.match(r"unrecognized arguments: -+([^\s=]+)", message)
    if option is None:
        raise UserError(f"command line: {message}")
    raise UserError(f"command line: {message}: settings are written key=value, as in {option[1]}=VALUE")


def _named(override: str, overrides: Sequence[str]) -> str:
    """The override with the directory's name where the latest one is asked for."""
    key, _, value = override.partition("=")
    if key not in ("run_dir", "sweep_dir", "rerun"):
        return override
    if not value.strip("'\" "):
        raise UserError(f"{key}= is empty: give a directory, or {key}={LATEST}")
    if value != LATEST:
        return override
    where = next((o.partition("=")[2] for o in overrides if o.startswith("paths.output_dir=")), None)
    found = latest("sweep" if key == "sweep_dir" else "run", where)
    print(f"{key}={LATEST}: {found}", file=sys.stderr)
    return f"{key}={found}"


def _opened(override: str) -> str:
    """``teacher.data.KEY=…`` names an argument of the data, whichever they are: it may be set without a ``+``."""
    key = override.partition("=")[0]
    return f"++{override}" if outer_key(key).startswith("teacher.data.") else override


def _create(config_name: str, args: argparse.Namespace) -> Hydra:
    if args.experimental_rerun is not None:
        raise UserError("--experimental-rerun is not supported: use rerun=RUN_DIR, or continue a run with run_dir=DIR")
    return create_hydra(config_name, args.config_path, args.config_dir)


def create_hydra(config_name: str, config_path: str | None = None, config_dir: str | None = None) -> Hydra:
    """A Hydra that knows our files, names of other packages' models, and those of ``config_dir``; it is now the global one.

    Raises:
        UserError: there is no ``config_dir``.
    """
    directory = os.path.abspath(config_path) if config_path else str(config_directory())
    search_path = create_config_search_path(directory)
    search_path.prepend(provider="names", path="kd-names://", anchor=SearchPathQuery(provider="schema"))
    if config_dir is not None:
        own = os.path.abspath(config_dir)
        if not os.path.isdir(own):
            raise UserError(f"--config-dir {config_dir}: no such directory")
        # Before ours: a user's file takes the place of a shipped one of the same name.
        search_path.prepend(provider="command-line", path=f"file://{own}", anchor=SearchPathQuery(provider="main"))
    hydra = Hydra.create_main_hydra2(task_name=f"kd-{config_name}", config_search_path=search_path)
    CombinedMethods(hydra.config_loader).install()
    return hydra


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
        for line in unread(args.overrides, multirun, hydra.config_loader.get_group_options):
            print(f"not read: {line}", file=sys.stderr)
        run = run_sweep if multirun else run_single
        run(hydra, config_name, list(args.overrides), task_function, check)
    return 0


def known_names(hydra: Hydra | None, config_name: str, overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Keys of the configuration as it would be without value overrides, and the groups, for suggestions."""
    if hydra is None:
        return [], []
    groups = [str(group) for group in hydra.list_all_config_groups()]
    for choice in ([o for o in overrides if o.partition("=")[0].lstrip("+") in groups and "," not in o], []):
        try:
            cfg = hydra.compose_config(config_name, list(choice), RunMode.RUN)
        except Exception:  # the chosen option is itself what is wrong: suggest from the defaults
            continue
        return leaf_keys(cfg), groups
    return [], groups
