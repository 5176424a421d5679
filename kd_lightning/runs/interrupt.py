"""Ctrl-C and SIGTERM during training: the first asks, the second Ctrl-C insists."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

log = logging.getLogger(__name__)


@contextlib.contextmanager
def graceful(ask: Callable[[], None]) -> Iterator[None]:
    """Call ``ask()`` at the first SIGINT or SIGTERM; a second SIGINT raises KeyboardInterrupt at once.

    Outside the main thread signals cannot be handled, and nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked = True
        log.warning("%s: saving after this step (Ctrl-C again stops at once)", signal.Signals(number).name)
        ask()

    previous = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)
