"""``kd-report SWEEP_DIR…``: the findings of sweeps or runs as one HTML file, with leaderboard.csv and heatmap.png."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from kd_lightning.cli._streams import steady
from kd_lightning.errors import UserError


@steady
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code (2 for what the user has to mend)."""
    parser = argparse.ArgumentParser(prog="kd-report", description=__doc__.split(": ", 1)[1])
    parser.add_argument(
        "directories",
        nargs="+",
        metavar="SWEEP_DIR",
        help="sweep or run directories, or folders of them; latest: the newest sweep",
    )
    parser.add_argument("--output", metavar="FILE", help="the HTML file (default: report.html in the directory)")
    parser.add_argument(
        "--metric", help="the figure shown first, as test/agreement (default: the monitored one on test)"
    )
    options = parser.parse_args(arguments)
    try:
        return _report(options)
    except UserError as error:
        print(f"kd-report: {error}", file=sys.stderr)
        return 2


def _report(options: argparse.Namespace) -> int:
    from kd_lightning.report.pages.page import write_report
    from kd_lightning.report.study import summary
    from kd_lightning.report.study.collect import collect
    from kd_lightning.report.study.reading import RunReader
    from kd_lightning.runs.latest import LATEST, latest

    reader = RunReader()
    options.directories = [latest("sweep") if word == LATEST else word for word in options.directories]
    studies = collect(options.directories, reader)
    known = list(dict.fromkeys(name for study in studies for name in study.metrics))
    if options.metric and options.metric not in known:
        raise UserError(f"--metric {options.metric}: no run has it, choose from {', '.join(known) or 'none yet'}")
    path = write_report(options.directories, options.output, metric=options.metric, reader=reader)
    for study in studies:
        print(f"{study.title}: {summary.headline(study)}")
        for card in summary.cards(study, options.metric if options.metric in study.metrics else study.test_metric):
            print(f"  {card['label']}: {card['value']}" + (f"  ({card['note']})" if card["note"] else ""))
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
