"""``python -m kd_lightning.sweeps.finish SWEEP_DIR``: the last job of a sweep on a cluster, when all others have ended.

What needs all runs' results: each distilled run is told of the student alone it is compared with, wherever that was
trained; the report is written.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 where every run is finished."""
    parser = argparse.ArgumentParser(prog="kd_lightning.sweeps.finish", description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path, help="the sweep's directory")
    options = parser.parse_args(argv)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s] %(message)s", stream=sys.stdout, force=True)
    return finish(options.directory)


def finish(directory: Path) -> int:
    """Link baselines and write the report of a sweep; 1 where runs are not finished."""
    from kd_lightning.running.baselines import link_baselines
    from kd_lightning.running.present_state import ended_result
    from kd_lightning.runs.submission import read_submissions, submitted_specs
    from kd_lightning.sweeps.report import refresh_report

    specs = list(submitted_specs(read_submissions(directory)))
    results = {spec.run_dir: result for spec in specs if (result := ended_result(spec)) is not None}
    link_baselines(specs, results)
    refresh_report(directory, final=True)
    log.info("%d of %d runs are finished", len(results), len(specs))
    return int(len(results) < len(specs))


if __name__ == "__main__":
    sys.exit(main())
