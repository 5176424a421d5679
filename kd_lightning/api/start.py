"""Start what ``kd-train`` starts, within somebody's Python process, and leave that as it was."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

import kd_lightning.config.resolvers  # noqa: F401  (registers them)
from kd_lightning.api.options import Options
from kd_lightning.api.words import in_python
from kd_lightning.cli._error_line import user_line
from kd_lightning.cli._hydra_main import create_hydra, known_names
from kd_lightning.cli._jobs import run_single, run_sweep
from kd_lightning.cli.train import check_job
from kd_lightning.config.recipes import with_recipe
from kd_lightning.errors import RunInterrupted, RunsFailed, UserError
from kd_lightning.runs.invoked import invoked_as
from kd_lightning.terminal.quiet import quiet

CONFIG = "train"


def start(options: Options, task: Callable[[DictConfig], Any] | None = None, verbose: bool = True) -> Path:
    """Compose, check and run; returns the run's or the sweep's directory.

    Args:
        options: overrides and objects.
        task: called with the configuration of a single run; None: a sweep, whose runs the launcher has computed.
        verbose: show progress, lines and tables.

    Raises:
        UserError: whatever the user can mend, in one line.
        RunsFailed: a single run failed. What fails in a sweep is told, and in its results.
        RunInterrupted: the state is kept.
    """
    overrides = ["hydra/job_logging=none", "hydra/hydra_logging=none", *options.overrides]
    overrides += [] if verbose else ["+launcher.progress=false"]
    hydra: Hydra | None = None
    words = ["kd.distill" if task else "kd.sweep", *options.overrides]
    with options.registered(), _own_hydra(), _own_words(verbose), invoked_as(words):
        try:
            version.setbase("1.3")
            hydra = create_hydra(CONFIG)
            if task is not None:
                run_single(hydra, CONFIG, overrides, task, check_job)
                return Path(HydraConfig.get().runtime.output_dir)
            with contextlib.suppress(RunsFailed):
                run_sweep(hydra, CONFIG, overrides, lambda _: None, check_job)
            return Path(HydraConfig.get().sweep.dir)
        except UserError as error:
            error.args = (in_python(with_recipe(str(error))),)  # the same error: a kind of its own keeps what it knows
            raise
        except (RunInterrupted, RunsFailed):
            raise
        except Exception as error:
            line = user_line(error, lambda: known_names(hydra, CONFIG, overrides))
            if line is None:
                raise
            raise UserError(in_python(with_recipe(line))) from error


@contextlib.contextmanager
def _own_hydra() -> Iterator[None]:
    """Hydra's global state for us; that of an application of the caller's is put back."""
    config, outer = HydraConfig.instance(), GlobalHydra.instance()
    before, application = config.cfg, outer.hydra
    outer.clear()
    try:
        yield
    finally:
        outer.hydra = application
        config.cfg = before


@contextlib.contextmanager
def _own_words(verbose: bool) -> Iterator[None]:
    """Our lines on standard output where the caller logs nothing; libraries' notices kept quiet for as long."""
    ours, root = logging.getLogger("kd_lightning"), logging.getLogger()
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric")]
    levels = [(logger, logger.level) for logger in (ours, *loggers)]
    handler = None
    if not root.handlers and not ours.handlers:
        handler = logging.StreamHandler(sys.stdout)
        handler.setLevel(logging.INFO if verbose else logging.WARNING)
        ours.addHandler(handler)
    silence = contextlib.nullcontext() if verbose else contextlib.redirect_stdout(io.StringIO())
    hook, raising = threading.excepthook, logging.raiseExceptions
    try:
        with warnings.catch_warnings(), silence:
            quiet()
            ours.setLevel(logging.INFO)
            yield
    finally:
        threading.excepthook, logging.raiseExceptions = hook, raising
        for logger, level in levels:
            logger.setLevel(level)
        if handler is not None:
            ours.removeHandler(handler)
