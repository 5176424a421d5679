"""Sweeps on a real Ray of two nodes, on loopback: also when a worker or the command is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import slow_net
from processes import SMALL, results, start, weights

from kd_lightning.cli.train import main
from kd_lightning.running.executors.ray_cluster import LOOPBACK

SLOW = (
    "--config-dir", "mine", "-m", "data.num_threads=1", "data.train_size=64", "data.labelled=null", "data.batch_size=16",
    "trainer.accelerator=cpu", "trainer.max_epochs=40", "teacher=mlp", "teacher.model.hidden=[8]",
    "teacher.train.max_epochs=1", "pictures.every_n_epochs=0", "student=net", "+student.width=4,5",
)  # fmt: skip
EPOCH = 4


@pytest.fixture(scope="module")
def address():
    """Of a Ray of two nodes with one processor each, that nobody else can reach."""
    pytest.importorskip("ray", reason='no Ray here (pip install "kd-lightning[ray]")')
    before = dict(os.environ)
    os.environ.update(LOOPBACK)
    os.environ |= {"OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}  # by default others come before Ray's workers
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 100 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    cluster.add_node(**node)
    yield cluster.address
    cluster.shutdown()
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.slow
def test_a_sweep_with_a_killed_worker_and_a_killed_command_is_that_of_one_process(tmp_path, address):
    (tmp_path / "ray_net.py").write_text(slow_net.TEXT)
    (tmp_path / "mine/student").mkdir(parents=True)
    (tmp_path / "mine/student/net.yaml").write_text("_target_: ray_net.Net\nin_features: auto\nnum_classes: auto\n")
    on_ray = ["launcher=ray", "launcher.gpus=0", "launcher.runs_per_job=2", f"launcher.address='{address}'"]
    there = [*SLOW, *on_ray, "sweep_dir=there"]

    def steps(width: int) -> list[int]:
        diary = tmp_path / f"diary-{width}"
        return [int(line) for line in diary.read_text().splitlines()] if diary.exists() else []

    command = start(tmp_path, *there)
    command.wait_for(lambda: len(steps(4)) > 12 and len(steps(5)) > 12, timeout=120)
    os.kill(steps(4)[-1], signal.SIGKILL)
    command.wait_for(lambda: len(set(steps(4))) == 2 and len(steps(4)) > 24, timeout=120)
    command.kill(signal.SIGKILL)
    command.wait()
    wait_until_gone({*steps(4), *steps(5)})
    (tmp_path / "go").touch()
    again = start(tmp_path, *there).wait()
    assert again.code == 0, again.text
    assert "4 runs given to Ray as 2 tasks" in again.text
    for width, turns in ((4, 3), (5, 2)):  # two runs of 160 steps, the first of each turn not noted
        assert 320 - 2 * turns <= len(steps(width)) <= 320 + 2 * EPOCH * (turns - 1)
    here = start(tmp_path, *SLOW, "sweep_dir=here", "paths.teacher_dir=own", "paths.cache_dir=own").wait()
    assert here.code == 0, here.text
    found = results(tmp_path / "there")
    assert len(found) == 4
    for name, result in results(tmp_path / "here").items():
        assert found[name]["status"] == "finished"
        assert found[name]["metrics"] == result["metrics"]
        assert found[name]["cost"]["fused"] == 2
        assert (found[name]["baseline"] or {}).get("test/acc") == (result["baseline"] or {}).get("test/acc")
        assert weights(tmp_path / "there" / name, "last") == weights(tmp_path / "here" / name, "last")
    said = [path for path in (tmp_path / "there/.jobs").glob("*/*.log") if "training the teacher" in path.read_text()]
    assert [path.name for path in said] == ["prepare-0.log"]


def wait_until_gone(processes: set[int]) -> None:
    """Return when none of the processes is there any more."""
    until = time.monotonic() + 60
    while any(alive(pid) for pid in processes):
        assert time.monotonic() < until, "Ray has not ended the tasks of a command that is dead"
        time.sleep(0.1)


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.slow
def test_without_a_cluster_the_line_says_how_to_have_one(tmp_path):
    pytest.importorskip("ray", reason='no Ray here (pip install "kd-lightning[ray]")')
    ended = start(tmp_path, "-m", *SMALL, "seed=0,1", "launcher=ray", "launcher.address='127.0.0.1:1'").wait()
    assert ended.code == 2
    assert "launcher.address=127.0.0.1:1: no Ray cluster" in ended.text


def test_the_tasks_and_their_overrides_are_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    argv = ["-m", *SMALL, "seed=0,1", "launcher=ray", "launcher.runs_per_job=2", "launcher.gpus=0.5", "sweep_dir=sweep"]
    assert main([*argv, "launcher.dry_run=true"]) == 0
    printed = capsys.readouterr().out
    assert "'num_gpus': 0.5" in printed
    assert "  student_alone_s1: " in printed
    assert "4 runs as 2 tasks; nothing was started" in printed
    assert not list(tmp_path.iterdir())
