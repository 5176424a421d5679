"""What a command prints never ends it: a reader that has gone, a closed output, a terminal that knows few characters.

Ctrl-C ends it with a word, wherever it was.
"""

from __future__ import annotations

import codecs
import contextlib
import functools
import io
import os
import sys
from collections.abc import Callable, Sequence

READER_GONE = 141
"""Exit code of a command whose reader closed the pipe before the work was done, as the shell counts it."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as the shell counts it."""

PLAINLY = {
    "\u2013": "-", "\u2014": "-", "\u2212": "-", "\u00b7": "-", "\u2026": "...", "\u00b1": "+-", "\u00d7": "x",
    "\u2192": "->", "\u2265": ">=", "\u2264": "<=",
}  # fmt: skip
"""What a terminal is shown in place of a character that it does not know; "?" for any other."""


def _plainly(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAINLY.get(letter, "?") for letter in error.object[error.start : error.end]), error.end


codecs.register_error("kd_plainly", _plainly)


def steady(main: Callable[..., int]) -> Callable[..., int]:
    """Decorate a command's entry point."""

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        for name, number in (("stdout", 1), ("stderr", 2)):
            stream = getattr(sys, name)
            if stream is None:  # closed by the shell (>&-): the next file that is opened must not take its place
                handle = os.open(os.devnull, os.O_WRONLY)
                if handle != number:
                    os.dup2(handle, number)
                setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115
            elif isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="kd_plainly")
        try:
            code = main(argv)
        except BrokenPipeError:
            code = READER_GONE
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            code = INTERRUPTED
        _flush()
        return code

    return run


def _flush() -> None:
    """Here a reader that has gone can be answered in good order; at the interpreter's end it would be a traceback."""
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)
