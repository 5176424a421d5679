"""What a command prints when it cannot go on: one line for what the user can mend, a traceback for the rest.

``HYDRA_FULL_ERROR=1`` shows the traceback of both.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable

from hydra.errors import InstantiationException

from kd_lightning.cli._jobs import run_job
from kd_lightning.config.explain import explain, is_config_error, one_line
from kd_lightning.config.recipes import with_recipe
from kd_lightning.errors import NothingRun, RunInterrupted, RunsFailed, Submitted, UserError

Known = Callable[[], "tuple[list[str], list[str]]"]

_DISK_ERRORS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR}


def report_error(error: BaseException, known: Known) -> int:
    """Print the error the way its kind deserves, and return the exit code.

    Args:
        error: what ended the command.
        known: asked for the configuration's keys and groups if a name has to be suggested.
    """
    if isinstance(error, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return 130
    if isinstance(error, BrokenPipeError) and not _in_job(error):  # kd-train --help | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    if isinstance(error, (NothingRun, Submitted)):
        return 0
    if isinstance(error, RunInterrupted):
        print(one_line(str(error)) or "interrupted", file=sys.stderr)
        return 130
    if isinstance(error, RunsFailed):
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        return 1
    line = user_line(error, known)
    if line is not None:
        line = with_recipe(line)
    if line is None or os.environ.get("HYDRA_FULL_ERROR") == "1":
        traceback.print_exception(type(error), error, error.__traceback__)
    if line is not None:
        print(f"error: {line}", file=sys.stderr)
        return 2
    return 1


def user_line(error: BaseException, known: Known) -> str | None:
    """What is wrong and what to do, where that is the user's to mend; else None."""
    if isinstance(error, UserError):
        return one_line(str(error))
    if isinstance(error, InstantiationException):  # also a constructor's own ValueError, which names the value
        cause = error.__cause__
        if cause is None or isinstance(cause, (ValueError, ImportError)):
            where = str(error).partition("full_key: ")[2].splitlines()
            return (f"{where[0]}: " if where else "") + one_line(str(cause or error))
        return None
    if is_config_error(error):
        return explain(error, *known())
    if isinstance(error, OSError) and (error.errno in _DISK_ERRORS or not _in_job(error)):
        return f"{error.filename or 'output directory'}: {error.strerror or error}: choose another with run_dir=DIR"
    return None


def _in_job(error: BaseException) -> bool:
    return any(frame.f_code is run_job.__code__ for frame, _ in traceback.walk_tb(error.__traceback__))
