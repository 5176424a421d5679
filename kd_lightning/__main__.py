"""``python -m kd_lightning [COMMAND] …``: ``kd-COMMAND``; without a command's name ``kd-train``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

COMMANDS = sorted(path.stem for path in (Path(__file__).parent / "cli").glob("[a-z]*.py"))


def main() -> int:
    """Entry point; returns the exit code."""
    words = sys.argv[1:]
    command = words.pop(0) if words and words[0] in COMMANDS else "train"
    sys.argv = [f"kd-{command}", *words]
    code: int = importlib.import_module(f"kd_lightning.cli.{command}").main(words)
    return code


if __name__ == "__main__":
    sys.exit(main())
