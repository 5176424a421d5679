"""A run that was stopped or killed goes on where it was, and ends bit for bit where an undisturbed one ends."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from processes import SMALL, Command, lines, start, weights

MODELS = '''
import time
from torch import nn


class Slow(nn.Module):
    """So slow that there is time to send a signal; with dropout, batch norm and so every kind of state."""

    def __init__(self, in_features, num_classes, delay=0.01):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(in_features, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.3),
            nn.Linear(24, num_classes),
        )
        self.delay = delay

    def forward(self, x):
        if self.training:
            time.sleep(self.delay)
        return self.layers(x)
'''
RUN = (
    *(override for override in SMALL if not override.startswith("student")),
    "student=slow",
    "baseline=false",
    "trainer.max_epochs=4",
    "data.augment=true",
    "data.batch_size=32",  # 31 steps an epoch
    "log_every_n_steps=5",
)
EPOCHS = 4

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cwd(tmp_path_factory) -> Path:
    """A directory with a slow model, the trained teacher, and an undisturbed run in ``undisturbed``."""
    cwd = tmp_path_factory.mktemp("resume")
    (cwd / "my_models.py").write_text(MODELS)
    (cwd / "mine" / "student").mkdir(parents=True)
    text = "_target_: my_models.Slow\nin_features: auto\nnum_classes: auto\ndelay: 0.01\n"
    (cwd / "mine" / "student" / "slow.yaml").write_text(text)
    ended = train(cwd, "run_dir=undisturbed").wait()
    assert ended.code == 0, ended.text
    return cwd


def train(cwd: Path, *overrides: str) -> Command:
    return start(cwd, "--config-dir", "mine", *RUN, *overrides)


def step_of(run_dir: Path) -> int:
    """The last step in the metrics file."""
    try:
        return lines(run_dir)[-1]["step"]
    except (FileNotFoundError, IndexError, ValueError):
        return -1


def result(run_dir: Path) -> dict:
    return json.loads((run_dir / "result.json").read_text())


def same_as_undisturbed(cwd: Path, name: str) -> None:
    """Figures, weights and every line that is not about time."""
    assert result(cwd / name)["status"] == "finished"
    assert result(cwd / name)["metrics"] == result(cwd / "undisturbed")["metrics"]
    for which in ("best", "last"):
        assert weights(cwd / name, which) == weights(cwd / "undisturbed", which)
    expected = [line for line in lines(cwd / "undisturbed") if "val/acc" in line]
    assert [line for line in lines(cwd / name) if "val/acc" in line] == expected
    trained = [line["step"] for line in lines(cwd / name) if "train/loss" in line]
    assert trained == sorted(set(trained)), "steps twice or out of order"
    assert trained[-1] == expected[-1]["step"]
    gaps = [b - a for a, b in zip([0, *trained], trained, strict=False)]
    assert max(gaps) <= 5, f"steps are missing: {trained}"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_after_the_step_and_the_run_continues_bit_for_bit(cwd, number):
    name = f"signal{int(number)}"
    command = train(cwd, f"run_dir={name}")
    command.wait_for(lambda: step_of(cwd / name) >= 45)  # in the second epoch
    command.kill(number)
    ended = command.wait()
    assert ended.code == 130, ended.text
    assert f"interrupted; continue with the same command and run_dir={name}" in ended.text
    assert "saving after this step" in ended.text
    assert "Traceback" not in ended.text
    stopped = result(cwd / name)
    assert stopped["status"] == "interrupted"
    steps = stopped["cost"]["steps"]
    assert 45 <= steps < 90

    again = train(cwd, f"run_dir={name}").wait()
    assert again.code == 0, again.text
    assert f"{name} continues after step {steps}, in epoch {1 + steps // 31}" in again.text
    assert stopped["cost"]["epochs"] == steps // 31
    same_as_undisturbed(cwd, name)


def test_a_killed_run_loses_at_most_the_steps_since_its_checkpoint(cwd):
    command = train(cwd, "run_dir=killed", "checkpoint.every_n_steps=4")
    command.wait_for(lambda: step_of(cwd / "killed") >= 50)
    command.kill()
    assert command.wait().code == -signal.SIGKILL
    reached = step_of(cwd / "killed")

    again = train(cwd, "run_dir=killed", "data.num_threads=3").wait()
    assert again.code == 0, again.text
    first = next(line for line in again.text.splitlines() if "continues after step" in line)
    assert reached - 4 <= int(first.split("step ")[1].split(",")[0]) <= reached + 4
    same_as_undisturbed(cwd, "killed")


def test_tensorboard_shows_each_step_of_a_continued_run_once(cwd):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    command = train(cwd, "run_dir=events", "checkpoint.every_n_steps=5")
    command.wait_for(lambda: step_of(cwd / "events") >= 40)
    command.kill()
    command.wait()
    assert train(cwd, "run_dir=events").wait().code == 0
    events = EventAccumulator(str(cwd / "events"), size_guidance={"scalars": 0})
    events.Reload()
    for tag in ("train/loss", "val/acc"):
        expected = [(line["step"], line[tag]) for line in lines(cwd / "events") if tag in line]
        shown = [(event.step, event.value) for event in events.Scalars(tag)]
        assert [step for step, _ in shown] == [step for step, _ in expected]
        assert [value for _, value in shown] == pytest.approx([value for _, value in expected], rel=1e-6)
    assert len(events.Scalars("test/acc")) == 1


def test_a_second_ctrl_c_stops_at_once(cwd):
    command = train(cwd, "run_dir=twice", "student.delay=1.5")
    command.wait_for(lambda: list((cwd / "twice").glob("events*")))
    time.sleep(1.0)
    command.kill(signal.SIGINT)
    command.wait_for(lambda: "Ctrl-C again stops at once" in command.text)
    command.kill(signal.SIGINT)
    ended = command.wait(30)
    assert ended.code == 130, ended.text
    assert "Traceback" not in ended.text
    assert not (cwd / "twice" / "checkpoints").exists()  # the step was not waited for


@pytest.mark.parametrize("moment", ["building", "testing"])
def test_a_signal_outside_of_training_ends_the_command_in_order(cwd, moment):
    """While the teacher is read there is nothing to save; after the last epoch the checkpoints are there."""
    name = f"outside-{moment}"
    command = train(cwd, f"run_dir={name}")
    if moment == "building":
        command.wait_for(lambda: "found in" in command.text)
    else:
        command.wait_for(lambda: f"epoch {EPOCHS}/{EPOCHS}" in command.text)
    command.kill(signal.SIGTERM)
    ended = command.wait()
    assert ended.code in (130, 0), ended.text
    assert "Traceback" not in ended.text
    assert train(cwd, f"run_dir={name}").wait().code == 0
    same_as_undisturbed(cwd, name)


def test_a_finished_run_is_not_trained_again(cwd):
    before = os.stat(cwd / "undisturbed" / "checkpoints" / "last.ckpt").st_mtime_ns
    ended = train(cwd, "run_dir=undisturbed").wait()
    assert ended.code == 0, ended.text
    assert "undisturbed is finished already" in ended.text
    assert os.stat(cwd / "undisturbed" / "checkpoints" / "last.ckpt").st_mtime_ns == before


def test_a_directory_that_holds_another_configuration_is_refused_and_left_alone(cwd):
    files = {path: path.read_bytes() for path in (cwd / "undisturbed").rglob("*") if path.is_file()}
    ended = train(cwd, "run_dir=undisturbed", "method.temperature=7").wait()
    assert ended.code == 2, ended.text
    assert len(ended.text.strip().splitlines()) == 1
    assert "holds a run with another configuration" in ended.text
    assert {path: path.read_bytes() for path in (cwd / "undisturbed").rglob("*") if path.is_file()} == files


def test_a_second_process_in_the_same_directory_is_told_so(cwd):
    first = train(cwd, "run_dir=shared")
    first.wait_for(lambda: step_of(cwd / "shared") >= 5)
    second = train(cwd, "run_dir=shared").wait()
    assert second.code == 2, second.text
    assert second.text.strip().splitlines()[-1].endswith("another process is writing into this directory")
    assert "Traceback" not in second.text
    assert first.wait().code == 0
    same_as_undisturbed(cwd, "shared")


def test_accumulated_gradients_are_never_cut_by_an_interruption(cwd):
    options = ("trainer.accumulate_grad_batches=3", "checkpoint.every_n_steps=2")
    assert train(cwd, "run_dir=accumulated", *options).wait().code == 0
    command = train(cwd, "run_dir=accumulated-stopped", *options)
    command.wait_for(lambda: step_of(cwd / "accumulated-stopped") >= 14)
    command.kill(signal.SIGINT)
    assert command.wait().code == 130
    assert train(cwd, "run_dir=accumulated-stopped", *options).wait().code == 0
    assert weights(cwd / "accumulated-stopped") == weights(cwd / "accumulated")
    assert result(cwd / "accumulated-stopped")["metrics"] == result(cwd / "accumulated")["metrics"]


def test_it_also_works_in_a_process_that_was_really_started(cwd):
    """Nothing of the above may depend on the fork server: the console script, a signal, and again."""
    import subprocess
    import sys

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "kd_lightning.cli.train", "--config-dir", "mine", *RUN, "run_dir=script"]
    process = subprocess.Popen(words, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    until = time.monotonic() + 90
    while step_of(cwd / "script") < 40 and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    text = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 130, text
    assert train(cwd, "run_dir=script").wait().code == 0
    same_as_undisturbed(cwd, "script")
