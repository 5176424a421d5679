"""What started the work at hand, in words: a command line, or a call from Python."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path

_call: ContextVar[tuple[str, ...] | None] = ContextVar("call", default=None)


def invocation() -> list[str]:
    """Program and arguments."""
    call = _call.get()
    return list(call) if call is not None else [Path(sys.argv[0]).name, *sys.argv[1:]]


@contextlib.contextmanager
def invoked_as(words: Sequence[str]) -> Iterator[None]:
    """For as long as this lasts the work was started by ``words``, whatever the process was called with."""
    token = _call.set(tuple(words))
    try:
        yield
    finally:
        _call.reset(token)
