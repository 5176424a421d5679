"""A run's directory while it is in use: held against other processes, log messages written into it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from kd_lightning.errors import UserError
from kd_lightning.runs.spec import RunSpec


@contextlib.contextmanager
def logging_to(paths: Sequence[Path]) -> Iterator[None]:
    """Write log messages to these files too."""
    root, handlers = logging.getLogger(), []
    writing = {getattr(handler, "baseFilename", None) for handler in root.handlers}
    for path in paths:
        if str(path) in writing:  # Hydra's own handler of a single run
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8", delay=True)
        handler.setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"))
        root.addHandler(handler)
        handlers.append(handler)
    try:
        yield
    finally:
        for handler in handlers:
            root.removeHandler(handler)
            with contextlib.suppress(OSError):  # full disk: the messages were on the terminal as well
                handler.close()


@contextlib.contextmanager
def held(spec: RunSpec) -> Iterator[None]:
    """Hold the run's directory, so that no second process trains into it.

    Raises:
        UserError: another process holds it, or it cannot be written.
    """
    lock = FileLock(spec.run_dir / ".lock")
    try:
        spec.run_dir.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"run_dir={spec.run_dir}: another process is training into this directory") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"run_dir={spec.run_dir}: cannot be written ({reason}); choose another directory") from error
    try:
        yield
    finally:
        lock.release()
