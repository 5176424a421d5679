from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import torch

from kd_lightning.errors import UserError
from kd_lightning.runs.metrics_file import MetricsFile, read_metrics


def test_what_was_written_is_read_back_in_order(tmp_path):
    file = MetricsFile(tmp_path / "run" / "metrics.jsonl")
    file.write(1, 0, {"train/loss": 0.1 + 0.2})
    file.write(2, 0, {"val/acc": np.float32(0.5), "val/ece": torch.tensor(0.25), "n": 3})
    assert read_metrics(file.path) == [
        {"step": 1, "epoch": 0, "train/loss": 0.1 + 0.2},
        {"step": 2, "epoch": 0, "val/acc": 0.5, "val/ece": 0.25, "n": 3},
    ]


def test_nan_and_infinity_become_null_so_that_any_json_reader_can_read_the_file(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl")
    file.write(1, 0, {"a": math.nan, "b": math.inf, "c": torch.tensor(-math.inf), "d": 1.0})

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    line = json.loads(file.path.read_text(), parse_constant=refuse)
    assert line == {"step": 1, "epoch": 0, "a": None, "b": None, "c": None, "d": 1.0}


def test_an_absent_file_has_no_lines(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_a_torn_last_line_is_left_out_when_reading(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "epoch": 0}\n{"step": 2, "ep')
    assert read_metrics(path) == [{"step": 1, "epoch": 0}]


def test_a_damaged_line_in_the_middle_is_an_error_that_names_file_and_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nrubbish\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2"):
        read_metrics(path)


def test_rewind_drops_later_steps_and_the_torn_line_and_keeps_the_rest(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl")
    for step in range(1, 6):
        file.write(step, 0, {"train/loss": step / 7})
    with open(file.path, "a") as torn:
        torn.write('{"step": 6, "tr')
    assert file.rewind(3) == 3
    assert read_metrics(file.path) == [{"step": s, "epoch": 0, "train/loss": s / 7} for s in (1, 2, 3)]
    file.write(4, 1, {"train/loss": 9.0})
    assert read_metrics(file.path)[-1] == {"step": 4, "epoch": 1, "train/loss": 9.0}


def test_rewind_of_a_sound_file_leaves_it_untouched(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl")
    file.write(1, 0, {"a": 1.0})
    before = os.stat(file.path).st_ino
    assert file.rewind(1) == 0
    assert os.stat(file.path).st_ino == before
    assert MetricsFile(tmp_path / "absent.jsonl").rewind(0) == 0


def test_appending_to_a_file_with_a_torn_line_does_not_join_the_two(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "epoch": 0}\n{"step": 2, "ep')
    MetricsFile(path).write(2, 0, {"a": 1.0})
    assert read_metrics(path) == [{"step": 1, "epoch": 0}, {"step": 2, "epoch": 0, "a": 1.0}]


def _write_for_ever(path):
    file = MetricsFile(path)
    for step in range(10**9):
        file.write(step, 0, {"a": 1.0})


def test_sigkill_loses_no_finished_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = multiprocessing.get_context("spawn").Process(target=_write_for_ever, args=(path,))
    writer.start()
    deadline = time.monotonic() + 60
    while (not path.exists() or path.stat().st_size < 5000) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    lines = read_metrics(path)
    assert len(lines) > 50
    assert [line["step"] for line in lines] == list(range(len(lines)))
