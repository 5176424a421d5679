"""Keep libraries' notices about things that we decide out of a user's terminal."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator


def quiet() -> None:
    """Silence Lightning's start-up notices and warnings that do not concern this project's users.

    Lightning counts the loader's workers and the lists of modules in eval mode; here loading is threaded and the
    teacher is in eval mode on purpose.
    """
    logging.raiseExceptions = False  # a log file on a full disk: the run's own message says it, once
    threading.excepthook = _in_a_thread
    import pytorch_lightning  # noqa: F401  (its import sets the level of its own logger)

    for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for text in (
        ".*does not have many workers.*",
        ".*isinstance.*LeafSpec.*is deprecated.*",
        ".*The number of training batches .* is smaller than the logging interval.*",
        ".*`lr_scheduler.step\\(\\)` before `optimizer.step\\(\\)`.*",
        ".*treespec, LeafSpec.*",
        ".*You defined a `validation_step` but have no `val_dataloader`.*",  # a teacher's, where there is no validation
        ".*`srun` command is available on your system but is not used.*",
    ):
        warnings.filterwarnings("ignore", message=text)


@contextlib.contextmanager
def silenced(level: int) -> Iterator[None]:
    """No message of any logger up to this level (``logging.WARNING``, …)."""
    before = logging.root.manager.disable
    logging.disable(level)
    try:
        yield
    finally:
        logging.disable(before)


def _in_a_thread(args: threading.ExceptHookArgs) -> None:
    """TensorBoard's writer cannot write: one line. Anything else in a thread: Python's own report."""
    if isinstance(args.exc_value, OSError):
        logging.getLogger(__name__).error("%s: %s", args.thread and args.thread.name, args.exc_value)
    else:
        threading.__excepthook__(args)
