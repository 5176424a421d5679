"""Start again what is left of a sweep, from what its earlier submissions wrote: nothing is composed anew."""

from __future__ import annotations

import inspect
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kd_lightning.config.suggestions import did_you_mean
from kd_lightning.errors import RunInterrupted, UserError
from kd_lightning.runs.submission import read_submissions, submitted_specs
from kd_lightning.sweeps.sweep_file import read_sweep_file


def resume(directory: Path, keys: Sequence[str] = ()) -> int:
    """Submit the runs that are not finished and not in the queue, as they were submitted last.

    Args:
        directory: of the sweep.
        keys: ``launcher.KEY=VALUE``, in place of what was given then.

    Returns:
        the exit code: 1 where runs failed.

    Raises:
        UserError: there is nothing to resume, or a key is wrong.
        Submitted: the jobs go on without this process.
        RunInterrupted: a signal asked to stop.
    """
    submissions = read_submissions(directory)
    if not submissions:
        command = read_sweep_file(directory).get("command")
        again = f": start it again where it was started: {command}" if command else ""
        raise UserError(f"{directory}: nothing of it was submitted to a cluster{again}")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
    from kd_lightning.config.targets import import_target
    from kd_lightning.running.execute import execute
    from kd_lightning.runs.directory import held
    from kd_lightning.runs.result_file import ENDS, standing
    from kd_lightning.runs.work_file import read_work
    from kd_lightning.sweeps.report import refresh_report
    from kd_lightning.terminal.quiet import quiet

    quiet()
    newest = submissions[-1]
    make = import_target(newest.target)
    os.chdir(read_work(newest.group_file(0)).cwd)  # relative paths, the user's own code
    sys.path.append(os.getcwd())
    specs = list(submitted_specs(submissions))
    executor = make(**_arguments(make, newest.launcher, keys), directory=str(directory))
    with held(directory, "sweep_dir"):
        results = execute(specs, executor, tell=lambda _: refresh_report(directory))
        refresh_report(directory, final=True)
    statuses = [result["status"] for result in results]
    said = [standing(result) for result in results]
    print(", ".join(f"{said.count(word)} {word}" for word in dict.fromkeys(said)))
    if "interrupted" in statuses:
        raise RunInterrupted(f"interrupted; kd-sweep resume {directory} goes on")
    return int(not {*statuses} <= {*ENDS})


def _arguments(make: Any, before: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    import yaml

    known = [name for name in inspect.signature(make).parameters if name != "directory"]
    given = {name: value for name, value in before.items() if name in known}
    if "wait" in known:
        given["wait"] = False
    for text in keys:
        key, equals, value = text.partition("=")
        name = key.removeprefix("launcher.")
        if not equals or name not in known:
            raise UserError(f"{text}: give launcher.KEY=VALUE{did_you_mean(name, known, show=20)}")
        given[name] = value if ":" in value else yaml.safe_load(value)  # 4:00:00 is a text, not a number to base 60
    return given
