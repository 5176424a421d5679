"""``kd-evaluate RUN_DIR``: test a run's best checkpoint again, from what its directory holds."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kd_lightning.cli._streams import steady


@steady
def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns 0 if the figures equal ``result.json``, 1 if they differ, 2 for a user's error."""
    parser = argparse.ArgumentParser(
        prog="kd-evaluate",
        description="Test the best checkpoint of a run again and compare with its result.json.",
    )
    parser.add_argument("run_dir", type=Path, help="directory of a finished run; latest: the newest in outputs/")
    parser.add_argument("overrides", nargs="*", help="changed values, e.g. data.eval_batch_size=64")
    arguments = parser.parse_args(argv)

    import os

    from kd_lightning.errors import UserError
    from kd_lightning.terminal.quiet import quiet

    quiet()
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    from kd_lightning.running.evaluate import evaluate_run, say_evaluation
    from kd_lightning.runs.latest import LATEST, latest

    try:
        run_dir = latest("run") if str(arguments.run_dir) == LATEST else arguments.run_dir
        evaluation = evaluate_run(run_dir, arguments.overrides)
    except UserError as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    return say_evaluation(*evaluation)


if __name__ == "__main__":
    raise SystemExit(main())
