"""``kd-export RUN_DIR``: the student as files for other programs, each compared with the checkpoint before it is kept."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kd_lightning.cli._streams import steady

OPTIONS = ("format", "preprocess", "precision", "max_loss", "push")


@steady
def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns 0 if every file was kept, 2 for a user's error and for a file that differs."""
    parser = argparse.ArgumentParser(
        prog="kd-export",
        description="Write the student of a finished run into RUN_DIR/export, open every file again, compare it with the "
        "checkpoint on the test split, and keep it if its answers are equal.",
    )
    parser.add_argument("run_dir", type=Path, help="directory of a finished run; latest: the newest in outputs/")
    parser.add_argument(
        "options",
        nargs="*",
        metavar="key=value",
        help="format=safetensors,torch_export (default), onnx, torchscript, or MODULE.CLASS of yours; precision=fp32 (default), "
        "fp16, int8, int8_dynamic; max_loss=0.05: of the metric, below fp32; preprocess=true: graphs take uint8 images; "
        "push=org/name: upload to Hugging Face's hub; data.KEY=VALUE: of the run's configuration, for the comparison",
    )
    arguments = parser.parse_args(argv)

    import os

    from kd_lightning.errors import UserError
    from kd_lightning.terminal.quiet import quiet

    quiet()
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    from kd_lightning.exporting.export_run import MAX_LOSS, export
    from kd_lightning.exporting.formats import DEFAULT
    from kd_lightning.runs.latest import LATEST, latest

    try:
        given, overrides = options(arguments.options)
        names = given["format"].split(",") if "format" in given else DEFAULT
        preprocess = given.get("preprocess", "false") == "true"
        run_dir = latest("run") if str(arguments.run_dir) == LATEST else arguments.run_dir
        exported = export(
            run_dir,
            [name for name in names if name],
            preprocess,
            overrides,
            precision=[name for name in given.get("precision", "fp32").split(",") if name],
            max_loss=float(given.get("max_loss", MAX_LOSS)),
            push=given.get("push"),
        )
    except UserError as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(exported)
    print(f"files  {exported.directory}")
    if "push" in given:
        print(f"pushed {given['push']}")
    return 0


def options(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The command's own options, and the changes of the run's configuration.

    Raises:
        UserError: a word is neither.
    """
    from kd_lightning.config.suggestions import did_you_mean
    from kd_lightning.errors import UserError

    given: dict[str, str] = {}
    overrides = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{word}: is no key=value, as in format=onnx")
        if key.startswith("data."):
            overrides.append(word)
        elif key in OPTIONS:
            given[key] = value
        else:
            raise UserError(
                f"{key}: no such option{did_you_mean(key, OPTIONS)}; there are {', '.join(OPTIONS)}, data.KEY"
            )
    if given.get("preprocess", "false") not in ("true", "false"):
        raise UserError(f"preprocess={given['preprocess']}: must be true or false")
    try:
        if not 0 <= float(given.get("max_loss", 0)) < float("inf"):
            raise ValueError
    except ValueError as error:
        raise UserError(f"max_loss={given['max_loss']}: must be a number >= 0, a share of the metric") from error
    return given, overrides


if __name__ == "__main__":
    raise SystemExit(main())
