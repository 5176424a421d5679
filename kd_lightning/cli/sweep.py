"""``kd-sweep status|logs|resume|cancel SWEEP_DIR``: look after a sweep that runs elsewhere, from any shell, at any time."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kd_lightning.cli._streams import steady
from kd_lightning.errors import RunInterrupted, Submitted, UserError

if TYPE_CHECKING:
    from kd_lightning.sweeps.standing import Standing, Sweep

SHOWN = 40
"""Runs that ``status`` lists unless it is asked for all."""


@steady
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code (2 for what the user has to mend)."""
    parser = argparse.ArgumentParser(prog="kd-sweep", description=(__doc__ or "").split(": ", 1)[1])
    commands = parser.add_subparsers(dest="command", required=True)
    helps = {
        "status": "how each run stands, and about how long the rest takes",
        "logs": "the ends of the jobs' logs, or a run's log",
        "resume": "submit what is not finished and not in the queue",
        "cancel": "cancel the sweep's jobs; what they have reached is kept",
    }
    made = {name: commands.add_parser(name, help=text, description=text) for name, text in helps.items()}
    for command in made.values():
        command.add_argument("directory", metavar="SWEEP_DIR", help="the sweep's directory; latest: the newest")
    made["status"].add_argument("--all", action="store_true", help=f"list every run, not only {SHOWN}")
    made["logs"].add_argument("run", nargs="?", metavar="RUN", help="a run's name: its own log")
    made["logs"].add_argument("--lines", type=int, default=20, metavar="N", help="of each log (default: 20)")
    made["resume"].add_argument("keys", nargs="*", metavar="launcher.KEY=VALUE", help="as launcher.time=8:00:00")
    options = parser.parse_args(arguments)
    try:
        from kd_lightning.runs.latest import LATEST, latest

        directory = latest("sweep") if options.directory == LATEST else Path(options.directory).resolve()
        if options.command == "status":
            return _status(directory, options.all)
        if options.command == "logs":
            return _logs(directory, options.run, options.lines)
        if options.command == "cancel":
            return _cancel(directory)
        from kd_lightning.sweeps.resume import resume

        return resume(directory, options.keys)
    except Submitted:
        return 0
    except RunInterrupted as error:
        print(f"kd-sweep: {error}", file=sys.stderr)
        return 130
    except UserError as error:
        print(f"kd-sweep: {error}", file=sys.stderr)
        return 2


def _status(directory: Path, every: bool) -> int:
    """Print how a sweep stands; 1 where runs failed or stopped: somebody has to do something."""
    from kd_lightning.sweeps.standing import FAILED, FINISHED, PENDING, PRUNED, RUNNING, STOPPED, standing_of

    sweep = standing_of(directory)
    order = [FAILED, STOPPED, RUNNING, PENDING, PRUNED, FINISHED]
    rows = sorted(sweep.runs, key=lambda run: order.index(run.state))
    listed = (
        rows if every or len(rows) <= SHOWN else [row for row in rows if row.state not in (PRUNED, FINISHED)][:SHOWN]
    )
    _print_table(listed, sweep)
    if len(listed) < len(rows):
        print(f"… and {len(rows) - len(listed)} more (--all)")
    counts = sweep.counts()
    print(_summary(sweep, counts))
    if counts.get(FAILED) or counts.get(STOPPED):
        print(f"kd-sweep resume {shlex.quote(str(directory))}  starts what failed or stopped again, where it was")
        return 1
    return 0


def _summary(sweep: Sweep, counts: dict[str, int]) -> str:
    said = [f"{len(sweep.runs)} runs: " + ", ".join(f"{count} {state}" for state, count in counts.items())]
    if any(sweep.jobs):
        said.append(f"{sweep.jobs[0]} of its jobs run, {sweep.jobs[1]} wait")
    if not sweep.queue_known:
        said.append("squeue does not answer: from the files alone")
    if sweep.seconds_left is not None:
        said.append(f"about {_clock(sweep.seconds_left)} left")
    return "; ".join(said)


def _print_table(rows: Sequence[Standing], sweep: Sweep) -> None:
    heads = ("run", "state", "epoch", f"best val {sweep.metric}".strip(), "left", "")
    cells = [heads]
    for row in rows:
        epoch = f"{row.epoch}/{row.epochs}" if row.epochs else str(row.epoch or "")
        best = "" if row.best is None else f"{row.best:.4g}"
        left = "" if row.seconds_left is None else _clock(row.seconds_left)
        cells.append((row.name if row.name != "." else sweep.directory.name, row.state, epoch, best, left, row.note))
    widths = [max(len(line[column]) for line in cells) for column in range(5)]
    for line in cells:
        placed = [
            text.ljust(w) if i < 2 else text.rjust(w) for i, (text, w) in enumerate(zip(line, widths, strict=False))
        ]
        print("  ".join([*placed, line[5]]).rstrip())


def _logs(directory: Path, run: str | None, lines: int) -> int:
    from kd_lightning.runs.directory import LOG_FILE
    from kd_lightning.runs.submission import JOBS

    if run is not None:
        files = [directory / run / LOG_FILE]
        if not (directory / run).is_dir():
            raise UserError(f"{run}: no run of this name has begun in {directory}")
    else:
        files = sorted((directory / JOBS).glob("*/*.log"), key=lambda path: path.stat().st_mtime)
        if not files:
            raise UserError(f"{directory}: no job of this sweep has written anything yet")
    for file in files:
        print(f"==> {file} <==")
        text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
        print("\n".join(text.splitlines()[-lines:] if lines > 0 else []))
    return 0


def _cancel(directory: Path) -> int:
    from kd_lightning.running.executors.slurm_commands import queue_in_time, scancel
    from kd_lightning.runs.submission import read_submissions

    submissions = read_submissions(directory)
    if not any(submission.jobs for submission in submissions):
        raise UserError(f"{directory}: nothing of it was given to Slurm; stop the command that runs it (Ctrl-C)")
    known = queue_in_time()
    if known is None:
        raise UserError("squeue does not answer: try again later")
    jobs = [job for submission in submissions for job in submission.jobs]
    tasks = {task: job.kind for job in jobs for task in (job.task_ids or {job.id: 0}) | {job.id: 0}}
    active = [task for task in tasks if task in known and not known[task].is_over]
    scancel(active)
    again = f"kd-sweep resume {shlex.quote(str(directory))}"
    print(f"cancelled: {', '.join(active) or 'nothing, no job was left'}; {again} goes on where they were")
    return 0


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


if __name__ == "__main__":
    sys.exit(main())
