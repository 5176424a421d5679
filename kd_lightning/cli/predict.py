"""``kd-predict RUN_DIR INPUT…``: what a finished run's student says of pictures and rows of numbers."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from kd_lightning.cli._streams import steady

_SWITCH = {"true": True, "false": False}
_OPTIONS: dict[str, Callable[[str], Any]] = {
    "format": str, "output": str, "top": int, "batch_size": int, "overlay": _SWITCH.__getitem__,
}  # fmt: skip
_EPILOG = """\
options, as key=value:
  format=csv|json   a table, or a JSON object a line; csv, unless output ends in .json or .jsonl
  output=FILE       write there instead of printing
  top=3             how many classes are named for each input
  batch_size=64     inputs that are computed at once
  overlay=true      of masks: each picture, too, half of it the mask's colours

A run of task=segmentation writes masks of the pictures' sizes into output=FOLDER.

A file that cannot be read is named and left out; the exit code is then 1."""


@steady
def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns 0, 1 if inputs could not be read, 2 for a user's error."""
    parser = argparse.ArgumentParser(
        prog="kd-predict",
        usage="kd-predict RUN_DIR|FILE.onnx INPUT… [format=csv|json] [output=FILE] [top=3] [batch_size=64] [overlay=false]",
        description="Predict with the student of a finished run.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "RUN_DIR",
        nargs="?",
        help="directory of a finished run, or an ONNX file of kd-export; latest: the newest in outputs/",
    )
    parser.add_argument(
        "INPUT",
        nargs="*",
        help="picture; folder of pictures (and below); .csv: rows of a run whose inputs are vectors; .npy: (N, …), bytes "
        "are raw pixels, other numbers inputs as the run's data set makes them",
    )
    known, unknown = parser.parse_known_args(argv)

    from kd_lightning.errors import UserError
    from kd_lightning.terminal.quiet import quiet

    quiet()
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        if unknown:
            raise UserError(f"unknown option {unknown[0]!r}; see kd-predict --help")
        inputs, options = _sorted([word for word in (known.RUN_DIR, *known.INPUT) if word is not None])
        if len(inputs) < 2:
            raise UserError("give a run's directory and at least one input: kd-predict RUN_DIR INPUT…")
        from kd_lightning.running.open_run import open_run
        from kd_lightning.running.predict_command import PredictOptions, predict_files
        from kd_lightning.runs.latest import LATEST, latest

        made = PredictOptions(**options)
        if inputs[0].lower().endswith(".onnx"):
            from kd_lightning.exporting.opened_onnx import open_onnx

            return predict_files(open_onnx(inputs[0]), inputs[1:], made)
        return predict_files(open_run(latest("run") if inputs[0] == LATEST else inputs[0]), inputs[1:], made)
    except UserError as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2


def _sorted(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Paths, and options by name."""
    from kd_lightning.config.suggestions import did_you_mean
    from kd_lightning.errors import UserError

    paths: list[str] = []
    options: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.isidentifier() or (key not in _OPTIONS and os.path.exists(word)):
            paths.append(word)
        elif key not in _OPTIONS:
            raise UserError(f"unknown option {key!r}{did_you_mean(key, _OPTIONS)}")
        else:
            try:
                options[key] = _OPTIONS[key](value)
            except KeyError as error:
                raise UserError(f"{key} must be true or false, got {value!r}") from error
            except ValueError as error:
                raise UserError(f"{key} must be a whole number, got {value!r}") from error
    return paths, options


if __name__ == "__main__":
    raise SystemExit(main())
