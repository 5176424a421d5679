"""Ctrl-C and SIGTERM: training saves first, everything else stops where it is; a second Ctrl-C always stops at once."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

log = logging.getLogger(__name__)

Handler = Callable[[int, "FrameType | None"], Any]


@contextlib.contextmanager
def graceful(ask: Callable[[], None]) -> Iterator[None]:
    """Call ``ask()`` at the first SIGINT or SIGTERM; a second SIGINT raises KeyboardInterrupt at once."""
    asked = False

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal asked
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
    """SIGTERM raises KeyboardInterrupt, as SIGINT does."""

    def handler(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handling(handler):
        yield


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
    """Handle both signals; outside the main thread, where none can be handled, leave everything as it is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)
