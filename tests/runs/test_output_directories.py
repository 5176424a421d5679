"""Output directories that cannot be written: one line, nothing of what is there is harmed, and later it goes on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from processes import SMALL, lines, run, weights

RUN = (*SMALL, "baseline=false", "trainer.max_epochs=4", "run_dir=small/run", "log_every_n_steps=1")

pytestmark = pytest.mark.slow


@pytest.fixture
def small_disk(tmp_path):
    """A file system of two megabytes at ``small``."""
    disk = tmp_path / "small"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path, leave: int) -> Path:
    """Leave so many bytes free."""
    ballast = disk / "ballast"
    free = shutil.disk_usage(disk).free
    ballast.write_bytes(b"\0" * max(0, free - leave))
    return ballast


def errors(text: str) -> list[str]:
    assert "Traceback" not in text, text
    return [line for line in text.splitlines() if line.startswith("error:")]


def prepare(cwd: Path) -> dict:
    """An undisturbed run on the large disk, which also trains the teacher; returns its result."""
    ended = run(cwd, *RUN[:-2], "run_dir=undisturbed", RUN[-1])
    assert ended.code == 0, ended.text
    return json.loads((cwd / "undisturbed" / "result.json").read_text())


@pytest.mark.parametrize("free", [0, 20_000, 60_000])
def test_a_full_disk_ends_a_run_in_one_line_and_it_continues_when_there_is_space(tmp_path, small_disk, free):
    expected = prepare(tmp_path)
    ballast = fill(small_disk, free)
    ended = run(tmp_path, *RUN)
    assert ended.code in (1, 2), ended.text
    said = errors(ended.text)
    assert len(said) == 1
    assert "No space left" in said[0]

    ballast.unlink()
    again = run(tmp_path, *RUN)
    assert again.code == 0, again.text
    result = json.loads((small_disk / "run" / "result.json").read_text())
    assert result["metrics"] == expected["metrics"]
    assert weights(small_disk / "run") == weights(tmp_path / "undisturbed")


def test_a_disk_that_fills_during_training_leaves_the_last_checkpoint_whole(tmp_path, small_disk):
    from processes import start

    expected = prepare(tmp_path)
    command = start(tmp_path, *RUN, "trainer.max_epochs=400")
    checkpoint = small_disk / "run" / "checkpoints" / "last.ckpt"
    command.wait_for(checkpoint.exists)
    ballast = fill(small_disk, 10_000)
    ended = command.wait()
    assert ended.code in (1, 2), ended.text
    assert len(errors(ended.text)) == 1
    assert "No space left" in errors(ended.text)[0]
    assert weights(small_disk / "run", "last")  # whole
    assert all(isinstance(line["step"], int) for line in lines(small_disk / "run")[:-1])
    assert not list(checkpoint.parent.glob(".*"))

    ballast.unlink()
    shutil.rmtree(small_disk / "run")
    assert run(tmp_path, *RUN).code == 0
    assert json.loads((small_disk / "run" / "result.json").read_text())["metrics"] == expected["metrics"]


def test_a_read_only_directory_is_named_in_one_line(tmp_path, small_disk):
    prepare(tmp_path)
    assert run(tmp_path, *RUN).code == 0
    before = {path: path.read_bytes() for path in small_disk.rglob("*") if path.is_file()}
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    ended = run(tmp_path, *RUN[:-2], "run_dir=small/new")
    assert ended.code == 2, ended.text
    assert len(ended.text.strip().splitlines()) == 1
    assert "small/new" in ended.text
    sweep = run(tmp_path, "-m", *RUN[:-2], "seed=0,1", "sweep_dir=small/sweep")
    assert sweep.code == 2, sweep.text
    assert len(errors(sweep.text)) == 1
    assert "small" in errors(sweep.text)[0]
    assert {path: path.read_bytes() for path in small_disk.rglob("*") if path.is_file()} == before
    evaluated = run(tmp_path, "small/run", program="evaluate")
    assert evaluated.code == 0, evaluated.text


def test_a_sweep_on_a_full_disk_ends_in_order_and_continues(tmp_path, small_disk):
    prepare(tmp_path)
    words = ("-m", *RUN[:-2], "seed=0,1", "sweep_dir=small/sweep", "max_fused=1")
    ballast = fill(small_disk, 90_000)
    ended = run(tmp_path, *words)
    assert ended.code in (1, 2), ended.text
    assert "Traceback" not in ended.text
    assert "No space left" in ended.text
    ballast.unlink()
    again = run(tmp_path, *words)
    assert again.code == 0, again.text


def test_a_file_in_place_of_the_directory_is_named_in_one_line(tmp_path):
    (tmp_path / "taken").write_text("a file")
    ended = run(tmp_path, *SMALL, "run_dir=taken/run")
    assert ended.code == 2, ended.text
    assert len(ended.text.strip().splitlines()) == 1
    assert "taken" in ended.text
    assert os.path.isfile(tmp_path / "taken")
