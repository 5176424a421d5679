"""What a person is told of runs: the table at the end, the commands that come next."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kd_lightning.runs.invoked import invocation
from kd_lightning.runs.result_file import ENDS
from kd_lightning.runs.spec import ALONE, RunSpec
from kd_lightning.terminal.progress import SteadyConsole
from kd_lightning.terminal.table import result_table, sweep_table

log = logging.getLogger(__name__)


def say_run(result: dict[str, Any], run_dir: Path, output_dir: Path, console: SteadyConsole | None = None) -> None:
    """The table of a single run: teacher, student alone, distilled student; where its files are; what to look at."""
    console = console or SteadyConsole()
    console.print(result_table(result), soft_wrap=True)
    console.print(f"files        {shown(run_dir)}", soft_wrap=True, highlight=False)
    console.print(f"TensorBoard  {tensorboard_command(run_dir)}", soft_wrap=True, highlight=False)
    console.print(f"evaluate     kd-evaluate {shlex.quote(shown(run_dir))}", soft_wrap=True, highlight=False)


def say_sweep(sweep_dir: Path, specs: Sequence[RunSpec], results: Sequence[dict[str, Any]]) -> None:
    """The closing table of a sweep: what finished, what failed, and the command that runs again what did not."""
    console = SteadyConsole()
    again = ""
    if any(result["status"] not in ENDS for result in results):
        again = rerun_command(sweep_dir)
    named = [{**result, "setting_name": spec.setting_name} for spec, result in zip(specs, results, strict=True)]
    console.print(sweep_table(named, rerun=again), soft_wrap=True)
    console.print(f"report       {shown(sweep_dir / 'report.html')}", soft_wrap=True, highlight=False)
    console.print(f"TensorBoard  {tensorboard_command(sweep_dir)}", soft_wrap=True, highlight=False)
    alone = sum(spec.role == ALONE for spec in specs)
    if alone:
        log.debug("%d of %d runs are students alone", alone, len(specs))


def rerun_command(sweep_dir: Path) -> str:
    """The command line that started the sweep, with its directory given."""
    words = [word for word in invocation() if not word.startswith("sweep_dir=")]
    return shlex.join([*words, f"sweep_dir={shown(sweep_dir)}"])


def tensorboard_command(directory: Path) -> str:
    """What to type to look at a directory."""
    return f"tensorboard --logdir {shlex.quote(shown(directory))} --host 127.0.0.1"


def shown(path: Path) -> str:
    """A path relative to the working directory where it lies below it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
