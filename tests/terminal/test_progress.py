from __future__ import annotations

import io
import logging
import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest
import pytorch_lightning as pl
import torch
from rich.console import Console
from torch.utils.data import DataLoader, TensorDataset

from kd_lightning.metrics.metric import Metric
from kd_lightning.terminal.progress import GroupProgress, SteadyConsole

ACCURACY = Metric("acc", True, share=True, title="accuracy")
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


def terminal(height: int = 30) -> Console:
    return Console(
        file=io.StringIO(), force_terminal=True, width=100, height=height, color_system=None, legacy_windows=False
    )


def pipe() -> Console:
    return Console(file=io.StringIO(), width=100)


def test_a_terminal_shows_a_row_for_each_run_and_gets_its_cursor_back():
    console = terminal()
    with GroupProgress(["a_s0", "b_s0"], epochs=10, console=console) as progress:
        progress.update("a_s0", status="running")
        progress.update("a_s0", epoch=3, metric=ACCURACY, value=0.912, best=0.915)
        progress.refresh(force=True)
        text = console.file.getvalue()
        assert text.count(HIDE) == 1
        assert SHOW not in text
        assert "a_s0  running   3/10        91.2 %  91.5 %" in text
        assert "b_s0  waiting   0/10" in text
    assert console.file.getvalue().endswith(SHOW)
    assert "a_s0  finished" in console.file.getvalue()


def test_the_cursor_comes_back_after_an_exception():
    console = terminal()
    progress = GroupProgress(["a"], console=console)
    progress.update("a", status="running")
    with pytest.raises(KeyboardInterrupt), progress:
        raise KeyboardInterrupt
    assert SHOW in console.file.getvalue()
    assert "interrupted" in console.file.getvalue()


def test_more_runs_than_lines_shows_those_that_train_or_failed():
    names = [f"run{i:02d}" for i in range(40)]
    console = terminal(height=12)
    with GroupProgress(names, console=console) as progress:
        for name in names:
            progress.update(name, status="finished")
        progress.update("run39", status="running")
        progress.update("run38", status="diverged")
        progress.refresh(force=True)
        table = [line for line in console.file.getvalue().splitlines() if line.strip()]
        last = "\n".join(table[-11:])
    assert "run39" in last
    assert "run38" in last
    assert "… and 33 more" in last


def test_drawing_is_throttled():
    console = terminal()
    with GroupProgress(["a"], console=console) as progress:
        drawn = len(console.file.getvalue())
        for epoch in range(200):
            progress.update("a", epoch=epoch)
        assert len(console.file.getvalue()) - drawn < 10 * drawn + 2000


def test_without_a_terminal_there_is_one_line_an_epoch_and_no_control_character():
    console = pipe()
    with GroupProgress(["a", "b"], epochs=2, console=console) as progress:
        for name in ("a", "b"):
            progress.update(name, status="running")
        for epoch in (1, 2):
            for name in ("a", "b"):
                progress.update(name, epoch=epoch, metric=ACCURACY, value=epoch / 4, best=epoch / 4)
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("epoch 1/2  a: val accuracy 25.0 % (best 25.0 %)  b: val accuracy 25.0 % (best 25.0 %)")
    assert lines[1].startswith("epoch 2/2  a: val accuracy 50.0 %")
    assert "\x1b" not in console.file.getvalue()


def test_a_run_that_leaves_does_not_hold_up_the_lines_of_the_others():
    console = pipe()
    names = [f"r{i}" for i in range(5)]
    with GroupProgress(names, console=console) as progress:
        for name in names:
            progress.update(name, status="running")
        for i, name in enumerate(names[:4]):
            progress.update(name, epoch=1, metric=ACCURACY, value=i / 10)
        progress.update("r4", status="diverged")
    lines = console.file.getvalue().splitlines()
    assert lines == ["r4: diverged", "epoch 1  4 runs: val accuracy from 0.0 % to 30.0 %"]


def test_a_broken_pipe_ends_the_display_not_the_training():
    class Gone(io.StringIO):
        broken = False

        def write(self, text):
            if self.broken:
                raise BrokenPipeError(32, "Broken pipe")
            return super().write(text)

    for force in (True, False):
        file = Gone()
        with GroupProgress(["a"], console=SteadyConsole(file=file, force_terminal=force, width=80)) as progress:
            progress.update("a", status="running")
            file.broken = True
            progress.update("a", epoch=1, metric=ACCURACY, value=0.5)
            progress.refresh(force=True)
            progress.update("a", epoch=2, metric=ACCURACY, value=0.5)


def test_log_messages_go_above_the_table_and_handlers_are_given_back(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    handler = logging.StreamHandler(sys.stdout)
    logging.getLogger().addHandler(handler)
    try:
        with GroupProgress(["a"], console=terminal()) as progress:
            assert handler.stream is not stream
            logging.getLogger().warning("a warning")
            assert "a warning" in progress.console.file.getvalue()
        assert handler.stream is stream
        assert sys.stdout is stream
    finally:
        logging.getLogger().removeHandler(handler)


class Small(pl.LightningModule):
    def __init__(self, fail_at: int | None = None):
        super().__init__()
        self.layer, self.fail_at = torch.nn.Linear(2, 1), fail_at

    def training_step(self, batch, index):
        if self.global_step == self.fail_at:
            raise RuntimeError("a failing step")
        return self.layer(batch[0]).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(progress: GroupProgress, directory, fail_at: int | None = None) -> None:
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        callbacks=[progress],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=directory,
    )
    trainer.fit(Small(fail_at), DataLoader(TensorDataset(torch.randn(64, 2)), batch_size=4))


@pytest.mark.filterwarnings("ignore")
def test_as_a_callback_it_knows_the_position_and_the_time_left(tmp_path):
    console = terminal()
    progress = GroupProgress(["a"], console=console)
    progress.update("a", status="running")
    fit(progress, tmp_path)
    assert progress.epochs == 3
    assert progress._fraction > 0
    assert SHOW in console.file.getvalue()


@pytest.mark.filterwarnings("ignore")
def test_as_a_callback_it_gives_the_cursor_back_when_training_fails(tmp_path):
    console = terminal()
    with pytest.raises(RuntimeError, match="a failing step"):
        fit(GroupProgress(["a"], console=console), tmp_path, fail_at=20)
    assert SHOW in console.file.getvalue()


@pytest.mark.filterwarnings("ignore")
def test_a_step_costs_microseconds():
    progress = GroupProgress([f"run{i}" for i in range(16)], epochs=10, console=terminal())

    class FakeTrainer:  # only the attributes that are read: the cost measured is the callback's
        num_training_batches, current_epoch = 1000, 1

    with progress:
        steps, started = 0, time.process_time()
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            for _ in range(100):
                progress.on_train_batch_end(FakeTrainer, None, None, None, steps % 1000)
                steps += 1
            time.sleep(0.002)
        busy = time.process_time() - started
    per_step = busy / steps
    assert per_step < 20e-6  # 1 % of a step of 2 ms


SCRIPT = """
import sys, time
from kd_lightning.metrics.metric import Metric
from kd_lightning.terminal.progress import GroupProgress
with GroupProgress(["a", "b"], epochs=5) as progress:
    progress.update("a", status="running")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_ctrl_c_in_a_real_terminal_gives_the_cursor_back():
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
    )
    os.close(slave)
    seen = read_until(master, b"ready")
    child.send_signal(signal.SIGINT)
    seen += read_until(master, SHOW.encode())
    child.wait(30)
    os.close(master)
    assert HIDE.encode() in seen
    assert seen.rindex(SHOW.encode()) > seen.rindex(HIDE.encode())
    assert child.returncode == -signal.SIGINT or child.returncode == 130


def read_until(handle: int, end: bytes, seconds: float = 90) -> bytes:
    seen, deadline = b"", time.monotonic() + seconds
    while end not in seen and time.monotonic() < deadline:
        if select.select([handle], [], [], 0.5)[0]:
            try:
                seen += os.read(handle, 65536)
            except OSError:  # the child closed its side
                break
    return seen
