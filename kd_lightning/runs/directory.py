"""A directory while it is in use: held against other processes, log messages written into it.

A start that is refused leaves no trace: what was made only to hold the directory is removed again, and messages reach
the log file only once the run has begun.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from logging.handlers import MemoryHandler
from pathlib import Path

from filelock import FileLock, Timeout

from kd_lightning.errors import DirectoryTaken, UserError

log = logging.getLogger(__name__)

LOG_FILE = "kd-train.log"
LOCK = ".lock"
NOTES = "notes.txt"
"""What somebody writes about a run or a sweep, in its directory; the report shows it."""


class LogFiles:
    """Log messages for files: kept until :meth:`open`, written from then on.

    Args:
        paths: of the files, in directories that need not exist yet.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)
        self._handlers: list[logging.Handler] = []
        self._kept = MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL + 1, flushOnClose=False)

    def __enter__(self) -> LogFiles:
        logging.getLogger().addHandler(self._kept)
        return self

    def open(self) -> None:
        """Write what was said so far, and everything that follows."""
        root = logging.getLogger()
        root.removeHandler(self._kept)
        for path in self._paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            handler = logging.FileHandler(path, encoding="utf-8", delay=True)
            handler.setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] %(message)s"))
            for record in self._kept.buffer:
                handler.handle(record)
            root.addHandler(handler)
            self._handlers.append(handler)
        self._kept.buffer.clear()

    def __exit__(self, *_: object) -> None:
        root = logging.getLogger()
        for handler in (self._kept, *self._handlers):
            root.removeHandler(handler)
            with contextlib.suppress(OSError):  # full disk: the messages were on the terminal as well
                handler.close()


@contextlib.contextmanager
def held(directory: Path, key: str = "run_dir") -> Iterator[None]:
    """Hold a directory, making it where there is none, so that no second process writes into it.

    If nothing was written in the meantime, the directory is afterwards what it was before.

    Args:
        directory: to hold.
        key: of the configuration that names it, for messages.

    Raises:
        DirectoryTaken: another process holds it.
        UserError: it cannot be written.
    """
    made = [path for path in (directory, *directory.parents) if not path.exists()]
    lock = FileLock(directory / LOCK)
    had_lock = (directory / LOCK).exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        before = set(os.listdir(directory)) - {LOCK}
        lock.acquire(timeout=0)
    except Timeout as error:
        raise DirectoryTaken(f"{key}={directory}: another process is writing into this directory") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{key}={directory}: cannot be written ({reason}); choose another directory") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if not had_lock and set(os.listdir(directory)) - {LOCK} == before:
                (directory / LOCK).unlink()
        lock.release()
        with contextlib.suppress(OSError):  # not empty: something was written
            for path in made:
                path.rmdir()


def wait_until_free(directories: Sequence[Path], seconds: float) -> None:
    """Return as soon as no other process holds any of the directories, at the latest after so many seconds.

    A lock goes with the process that holds it. On a shared file system, where that was on a node that died, it does so
    only when the server notices: whoever continues the run there waits for it.
    """
    until = time.monotonic() + seconds
    for directory in (path for path in directories if (path / LOCK).exists()):
        lock = FileLock(directory / LOCK)
        with contextlib.suppress(
            Timeout, FileNotFoundError
        ):  # not found: its holder removed it, and so the lock is gone
            try:
                lock.acquire(timeout=0)
            except Timeout:
                log.info("%s is held by another process: waiting for it", directory)
                lock.acquire(timeout=max(0.0, until - time.monotonic()), poll_interval=0.5)
        lock.release()


def checkpoint_in(path: str | os.PathLike[str]) -> Path:
    """The checkpoint that a path means: a run's best one (its last, if there is no best) where it is a directory."""
    path = Path(path)
    if not path.is_dir():
        return path
    best, last = (path / "checkpoints" / name for name in ("best.ckpt", "last.ckpt"))
    return last if last.is_file() and not best.is_file() else best
