"""``python -m kd_lightning.running.worker FILE``: the runs of a work file, in this process.

What a job of a cluster runs, and each process of a run that has several. It knows no job scheduler: a signal that says
that the time is over ends it with exit code 75 once the runs' state is kept, and whoever started it asks for another turn
(76: nothing was reached in this one). The signals are handled before anything heavy is imported, so that none finds the process unprepared.

Exit codes: 0 every run is finished (or a search ended it); 1 some failed (their results say why); 2 the user's to mend; 75, 76
and 130 they continue when started again, and 130 somebody else decides when.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kd_lightning.runs.interrupt import AGAIN, FRUITLESS, STOPPED, received, stoppable, time_is_over

if TYPE_CHECKING:
    from kd_lightning.runs.spec import RunSpec

ENDS_WITH_PARENT = "KD_ENDS_WITH_PARENT"
"""In the environment of a worker that a command here has started: its standard input ends when that command does."""

LEFT_ALONE = 150.0
"""Seconds for a process to save and end when the command that started it is gone."""
FREE_WITHIN = 300.0
"""Seconds in which a run's directory is expected to be free: that of a node that died is, once its lease is over."""

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(prog="kd_lightning.running.worker", description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, help="the work file")
    options = parser.parse_args(argv)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as kd-train does, before torch is loaded
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s] %(message)s", stream=sys.stdout, force=True)
    if os.environ.get(ENDS_WITH_PARENT):
        end_with_parent()
    return work(options.file)


def end_with_parent() -> None:
    """Stop as on a signal when the process that started this one is gone: nobody else would know of us."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1):  # without a lock that the end of the interpreter would wait for
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(LEFT_ALONE)  # a process that waits for others in C hears of no signal
        os._exit(STOPPED)

    threading.Thread(target=wait, daemon=True).start()


def work(path: Path) -> int:
    """Do what the file says; returns the exit code. Every run that it names has a result or can be continued then."""
    received.clear()
    begun: list[tuple[Sequence[RunSpec], float]] = []
    try:
        with stoppable():
            code = _work(path, begun)
    except KeyboardInterrupt:
        code = STOPPED
    if code != STOPPED or not time_is_over():
        return code
    if any(newest_state(specs) > before for specs, before in begun):
        log.info("the time is over: the state is kept, the runs continue at the next start")
        return AGAIN
    log.warning("the time was over before anything was reached: a job's time limit may be too short (launcher.time)")
    return FRUITLESS


def newest_state(specs: Sequence[RunSpec]) -> float:
    """When anything was last kept that these runs continue from: a checkpoint, a teacher's, stored answers."""
    paths = specs[0].config["paths"]
    places = [spec.run_dir / "checkpoints" for spec in specs]
    places += [*Path(paths["teacher_dir"]).glob("*/checkpoints"), *Path(paths["cache_dir"]).glob("*")]
    newest = 0.0
    for file in (file for place in places for file in place.glob("[!.]*")):
        with contextlib.suppress(OSError):  # gone in the meantime
            newest = max(newest, file.stat().st_mtime)
    return newest


def _work(path: Path, begun: list[tuple[Sequence[RunSpec], float]]) -> int:
    from kd_lightning.errors import RunInterrupted, UserError
    from kd_lightning.running.execute import execute
    from kd_lightning.running.missing_result import tell_failed
    from kd_lightning.running.prepare import prepare
    from kd_lightning.running.ranks import joins
    from kd_lightning.runs.directory import wait_until_free
    from kd_lightning.runs.result_file import ENDS
    from kd_lightning.runs.work_file import PREPARE, RANK, read_work
    from kd_lightning.terminal.quiet import quiet

    quiet()
    if received:  # an import made something else of the interruption
        return STOPPED
    todo = read_work(path)
    os.chdir(todo.cwd)
    # for a user's my_models.py; last, so that it shadows nothing (python -m puts it first)
    sys.path[:] = [place for place in sys.path if place not in ("", os.getcwd())] + [os.getcwd()]
    begun.append((todo.specs, newest_state(todo.specs)))
    waiting = [spec for file in todo.serves for spec in read_work(file).specs]
    try:
        refuse_edited_code(todo.specs)
        if todo.task == PREPARE:
            prepare(todo.specs)
            return 0
        if todo.task == RANK:
            from kd_lightning.running.rank import train_rank

            return train_rank(todo.specs, path.parent)
        if not joins(todo.specs[0]):
            wait_until_free([spec.run_dir for spec in todo.specs], FREE_WITHIN)
        statuses = {result["status"] for result in execute(todo.specs)}
    except RunInterrupted as error:
        log.info("%s", error)
        return STOPPED
    except UserError as error:
        log.error("error: %s", error)
        tell_failed(waiting or todo.specs, error)
        return 2
    except Exception as error:
        log.exception("%s", path)
        tell_failed(waiting or todo.specs, error)
        return 1
    if "interrupted" in statuses:
        return STOPPED
    return 0 if statuses <= {*ENDS} else 1


def refuse_edited_code(specs: Sequence[RunSpec]) -> None:
    """Raise a UserError where the user's code is not what it was when the runs were composed.

    They would be trained by the new code and recorded as made by the old.
    """
    from kd_lightning.config.keys import find
    from kd_lightning.config.source import changed_files, source_fingerprint, targets_of
    from kd_lightning.errors import UserError

    for spec in specs:
        if spec.source:
            now = source_fingerprint(targets_of({k: node for k, node in spec.config.items() if find(str(k)).decides}))
            if now != spec.source:
                names = ", ".join(changed_files(spec.source, now)) or "your code"
                raise UserError(
                    f"{names} changed since the sweep was started: start it again with the same command, "
                    "or undo the edit and continue with kd-sweep resume"
                )


if __name__ == "__main__":
    sys.exit(main())
