"""One of the processes that train runs together (see :mod:`kd_lightning.running.ranks`).

What the runs share is there: data, teacher and stored answers are only opened. Process 0 writes; the others follow.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import torch.distributed

from kd_lightning.config.build import build_datamodule
from kd_lightning.errors import RunInterrupted, UserError
from kd_lightning.running.accelerator import training_device
from kd_lightning.running.group import Group
from kd_lightning.running.ranks import DONE, ERROR, MET
from kd_lightning.running.shared import teacher_layers, with_stored_answers
from kd_lightning.runs.directory import LOG_FILE, LogFiles
from kd_lightning.runs.latency import teacher_latency_ms
from kd_lightning.runs.spec import RunSpec
from kd_lightning.teachers.divided import DividedTeacher
from kd_lightning.teachers.registry import obtain_teacher
from kd_lightning.teachers.suits import reads_logits
from kd_lightning.terminal.progress import GroupProgress

log = logging.getLogger(__name__)


def train_rank(specs: Sequence[RunSpec], folder: Path) -> int:
    """Train the runs one after the other, together with the other processes; returns the exit code.

    Args:
        specs: the runs.
        folder: where process 0 notes which runs have ended, and each one why it failed.
    """
    rank = int(os.environ["NODE_RANK"]) * len_local() + int(os.environ["LOCAL_RANK"])
    threading.Thread(target=_note_when_met, args=(folder / MET,), daemon=True).start()
    _say(rank)  # of what is only opened again, nothing is said twice
    try:
        for spec in specs:
            status = _train(specs, spec, rank, folder)
            if status == "failed":  # perhaps here only: the others would wait for this process
                return 1
    except RunInterrupted:
        raise
    except Exception as error:  # told by the process that started this one, if it was the first to fall
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        _note(folder, " ".join(f"{kind}{error}".split()), "" if not kind else traceback.format_exc())
        return 1
    finally:
        if torch.distributed.is_initialized():
            with contextlib.suppress(Exception):  # of the others, some may be gone
                torch.distributed.destroy_process_group()
    return 0


def len_local() -> int:
    """Processes on each node."""
    return int(os.environ["LOCAL_WORLD_SIZE"])


def _train(group: Sequence[RunSpec], spec: RunSpec, rank: int, folder: Path) -> str:
    datamodule = build_datamodule(spec.config)

    def never(other: RunSpec) -> NoReturn:
        raise UserError(f"the teacher {other.name} is gone from paths.teacher_dir: start again")

    teacher, info = obtain_teacher(
        spec.config,
        datamodule,
        teacher_layers(group),
        never,
        attempt=never,
        needs_logits=reads_logits([spec.config["method"] for spec in group]),
    )

    if teacher is not None and spec.config["trainer"].get("strategy") == "fsdp":
        example = datamodule.example_batch()
        if info is not None and rank == 0:
            info.setdefault("latency_ms", teacher_latency_ms(teacher, example))  # by itself: while it is whole
        teacher = DividedTeacher(teacher, example, training_device(spec.config))

    def tell_cache(text: str) -> None:
        if info is not None:
            info["cache"] = text.removeprefix("teacher cache: ")

    answering = with_stored_answers(group, teacher, datamodule, tell_cache)
    shown = GroupProgress([spec.name]) if rank == 0 and os.environ.get("KD_PROGRESS") == "1" else None
    with LogFiles([spec.run_dir / LOG_FILE] if rank == 0 else []) as files:
        files.open()
        if rank == 0:
            logging.getLogger().setLevel(logging.INFO)
        try:
            with shown or contextlib.nullcontext():
                (result,) = Group([spec], datamodule, answering, info, shown, rank=rank).run()
        except UserError as error:  # told in the result, which is written
            result = {"status": "failed", "error": str(error)}
    if result["status"] == "failed":
        _note(folder, str(result["error"]), "")
    if rank == 0:
        with (folder / DONE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(str(spec.run_dir)) + "\n")
    return str(result["status"])


def _note_when_met(path: Path) -> None:
    """Leave a file once all processes have met: from then on there is something to save, and a signal is heard."""
    while not torch.distributed.is_initialized():
        time.sleep(0.05)
    with contextlib.suppress(OSError):  # the command has ended
        path.touch()


def _note(folder: Path, error: str, trace: str) -> None:
    """Leave why this process failed: a line, and the traceback where it is no mistake of the user's."""
    path = folder / ERROR.format(os.environ["LOCAL_RANK"])
    path.with_suffix(".new").write_text(f"{error}\n{trace}", encoding="utf-8")
    path.with_suffix(".new").replace(path)


def _say(rank: int) -> None:
    """Process 0 speaks for all; the others only of what goes wrong."""
    root = logging.getLogger()
    root.setLevel(logging.WARNING if rank == 0 else logging.ERROR)
    for handler in root.handlers:
        handler.setFormatter(logging.Formatter("%(message)s" if rank == 0 else f"process {rank}: %(message)s"))
