"""``trainer.devices=2``: one run in two processes is the run of one with the doubled batch, and survives what falls."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest
import torch
from processes import SMALL, Command, Ended, lines, results, run, start, weights

from kd_lightning.running.ranks import STOP_WITHIN

EPOCHS = 6
SLOW = '''
import os
import time
from kd_lightning.models.mlp import MLP


class Slow(MLP):
    """Takes its time as long as the file "slow" is there, so that there is time to disturb it."""

    def forward(self, x):
        if self.training and os.path.exists("slow"):
            time.sleep(0.1)
        return super().forward(x)
'''
SWEEP = (
    "-m", *SMALL, f"trainer.max_epochs={EPOCHS}", "method=rkd,crd", "+teacher.data.batch_size=64", "baseline=false",
    "log_every_n_steps=1", "student._target_=slow_models.Slow",
)  # fmt: skip
"""Features of hidden layers, relations between samples, a memory bank; and 200 of 1,000 samples have a label."""
TWO = (*SWEEP, "trainer.devices=2", "data.batch_size=64")


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory) -> Path:
    """The sweep by one process with batches of 128 and by two with 64 each, nobody disturbed."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "slow_models.py").write_text(SLOW)
    for name, command in {"one": (*SWEEP, "data.batch_size=128"), "two": TWO}.items():
        done = run(folder, *command, f"sweep_dir={name}", timeout=600)
        assert done.code == 0, done.text
    return folder


def losses(run_dir: Path, steps: int) -> torch.Tensor:
    found = [line for line in lines(run_dir) if "train/loss" in line and line["step"] <= steps]
    names = sorted(name for name in found[0] if name.startswith("train/"))
    return torch.tensor([[line[name] for name in names] for line in found])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rkd", "crd"])
def test_two_processes_have_the_loss_curve_of_one_with_the_doubled_batch(sweeps, method):
    one, two = losses(sweeps / "one" / method, 21), losses(sweeps / "two" / method, 21)
    assert one.shape == two.shape
    assert len(one) == 21
    torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rkd", "crd"])
def test_one_process_writes_and_a_result_says_what_a_result_says(sweeps, method):
    folder = sweeps / "two" / method
    steps = [line["step"] for line in lines(folder) if "train/loss" in line]
    assert steps == list(range(1, 7 * EPOCHS + 1))
    assert len(list(folder.glob("events.*"))) == 1
    one, two = (results(sweeps / name)[method] for name in ("one", "two"))
    assert two["metrics"].keys() == one["metrics"].keys()
    assert two["teacher"]["fingerprint"] == one["teacher"]["fingerprint"]
    assert two["fingerprint"] != one["fingerprint"]  # another batch


def ranks(command: Command) -> list[int]:
    """Process numbers of those that a command has started."""
    children = Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"LOCAL_RANK=" in Path(f"/proc/{pid}/environ").read_bytes()]


def rank(command: Command, number: int) -> int:
    wanted = f"LOCAL_RANK={number}".encode()
    return next(pid for pid in ranks(command) if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))


def reached(run_dir: Path, step: int) -> bool:
    path = run_dir / "metrics.jsonl"
    return path.is_file() and any(json.loads(line)["step"] >= step for line in path.read_text().splitlines()[:-1])


@pytest.fixture(scope="module")
def disturbed(sweeps) -> tuple[Ended, Ended]:
    """The same sweep: one process of the first run is killed, the second run is asked to stop; then once more."""
    (sweeps / "slow").touch()
    command = start(sweeps, *TWO, "sweep_dir=disturbed")
    command.wait_for(lambda: reached(sweeps / "disturbed" / "rkd", 10), timeout=300)
    os.kill(rank(command, 1), signal.SIGKILL)
    command.wait_for(lambda: reached(sweeps / "disturbed" / "crd", 10), timeout=300)
    left = ranks(command)
    command.kill(signal.SIGTERM)
    first = command.wait(300)
    (sweeps / "slow").unlink()
    assert not [pid for pid in left if Path(f"/proc/{pid}").exists()]
    return first, run(sweeps, *TWO, "sweep_dir=disturbed", timeout=600)


@pytest.mark.slow
def test_a_process_that_is_killed_ends_its_run_clearly_and_a_signal_all_of_them(disturbed, sweeps):
    first, second = disturbed
    assert "rkd: process 1 of 2 was killed by SIGKILL" in first.text
    assert first.code == 130
    assert second.code == 0, second.text
    assert second.text.count("continues after step") == 2


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rkd", "crd"])
def test_what_was_disturbed_ends_with_the_weights_of_the_undisturbed(disturbed, sweeps, method):
    assert weights(sweeps / "disturbed" / method) == weights(sweeps / "two" / method)
    assert weights(sweeps / "disturbed" / method, "last") == weights(sweeps / "two" / method, "last")


def test_several_nodes_that_know_no_meeting_place_are_told_before_anything_is_made(tmp_path):
    ended = run(tmp_path, *SMALL, "trainer.num_nodes=2", "run_dir=run")
    assert ended.code == 2
    assert "trainer.num_nodes=2: set MASTER_ADDR" in ended.text
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_a_node_that_waits_for_others_says_so_and_ends_soon_when_it_is_told_to(tmp_path):
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        port = str(made.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": "0", "GLOO_SOCKET_IFNAME": "lo"}
    command = start(tmp_path, *SMALL, "trainer.num_nodes=2", "baseline=false", "run_dir=run", **place)
    command.wait_for(lambda: f"node 0 of 2 waits for the others at 127.0.0.1:{port}" in command.text)
    told = time.monotonic()
    command.kill(signal.SIGTERM)
    ended = command.wait()
    assert ended.code == 130
    assert time.monotonic() - told < STOP_WITHIN / 2  # nothing is under way that it would have to wait for
