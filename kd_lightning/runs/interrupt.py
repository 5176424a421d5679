"""Signals that ask to stop: training saves first, everything else stops where it is; a second Ctrl-C stops at once.

SIGINT and SIGTERM, and SIGUSR1 and SIGUSR2, by which a cluster says that the time is nearly over. Lightning takes SIGUSR1
for itself where nobody else does, and writes a checkpoint that the next start would load over ours.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

log = logging.getLogger(__name__)

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))
"""All but the first two are missing on Windows."""

AGAIN, FRUITLESS, STOPPED = 75, 76, 130
"""Exit codes of a worker that was ended before its runs were: the time was over; it was, and nothing was reached in it; by
somebody (as the shell counts Ctrl-C)."""

received: list[int] = []
"""The signals that this process was asked to stop by, in their order: whoever started it asks what to do next."""

Handler = Callable[[int, "FrameType | None"], Any]


@contextlib.contextmanager
def graceful(ask: Callable[[], None]) -> Iterator[None]:
    """Call ``ask()`` at the first of :data:`SIGNALS`; a second SIGINT raises KeyboardInterrupt at once."""
    asked = False

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        received.append(number)
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not asked:
            log.warning("%s: saving after this step (Ctrl-C again stops at once)", signal.Signals(number).name)
        asked = True
        ask()

    with _handling(handler):
        yield


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """The other signals raise KeyboardInterrupt, as SIGINT does."""

    def handler(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    with _handling(handler):
        yield


def time_is_over() -> bool:
    """Whether the first signal was a job scheduler's warning that the time is nearly over."""
    return bool(received) and received[0] in SIGNALS[2:]


def told_to_leave() -> bool:
    """Whether a signal ended this process without anybody wanting an end of what it started (a machine shuts down)."""
    return bool(received) and received[0] != signal.SIGINT


@contextlib.contextmanager
def keyboard_interrupt_kept() -> Iterator[None]:
    """Lightning makes an ordinary exit of a KeyboardInterrupt; we want to hear of it."""
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise


@contextlib.contextmanager
def _handling(handler: Handler) -> Iterator[None]:
    """Handle all of :data:`SIGNALS`; outside the main thread, where none can be handled, leave everything as it is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)
