"""A worker does what its file says, as the command that wrote it would have: same figures, same files, and it says why not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from processes import SMALL, lines, results, weights

from kd_lightning.cli.train import main
from kd_lightning.running.worker import work
from kd_lightning.runs.directory import held
from kd_lightning.runs.interrupt import AGAIN, FRUITLESS, STOPPED
from kd_lightning.runs.work_file import PREPARE, TRAIN, Work, read_work, write_work

pytestmark = pytest.mark.slow  # all of them together

FILES = {
    "my_desk.py": """
        from pathlib import Path
        from kd_lightning.errors import NothingRun
        from kd_lightning.runs.work_file import TRAIN, Work, write_work


        class Desk:
            '''Leaves each group as a file.'''
            fuse = True

            def submit(self, groups, after=()):
                for number, group in enumerate(groups):
                    write_work(Path(f"group-{number}.json"), Work(TRAIN, tuple(group), Path.cwd()))
                raise NothingRun
    """,
    "my_net.py": """
        from torch import nn


        def net(in_features, num_classes, width=8):
            return nn.Sequential(nn.Flatten(), nn.Linear(in_features, width), nn.ReLU(), nn.Linear(width, num_classes))
    """,
    "mine/launcher/desk.yaml": "_target_: my_desk.Desk\n",
    "mine/student/net.yaml": "_target_: my_net.net\nin_features: auto\nnum_classes: auto\n",
}
SWEEP = ("-m", *SMALL, "seed=0,1", "method.temperature=1,4", "student.dropout=0.1")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    import textwrap

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        monkeypatch.delitem(sys.modules, path.stem, raising=False)
    return tmp_path


def written(*overrides: str) -> Path:
    """The work file of a sweep that is one group."""
    assert main(["--config-dir", "mine", *overrides, "launcher=desk", "sweep_dir=there"]) == 0
    assert not Path("group-1.json").exists()
    return Path("group-0.json").resolve()


def test_runs_come_back_from_a_file_as_they_were(tmp_path):
    from kd_lightning.runs.spec import RunSpec

    config = {"seed": 0, "student": {"layers": {1: "a", 2: [3.5, None, True]}}, "low": float("-inf")}
    alone = RunSpec("alone", tmp_path / "alone", config, "f0", ("seed=0",), "alone", files={"a/b.yaml": "é\n"})
    specs = (alone, RunSpec("s0", tmp_path / "s0", config, "f1", baseline=alone, source={"my.py": "12"}))
    write_work(tmp_path / "work.json", Work(TRAIN, specs, tmp_path, (tmp_path / "other.json",)))
    again = read_work(tmp_path / "work.json")
    assert again == Work(TRAIN, specs, tmp_path, (tmp_path / "other.json",))
    assert again.specs[0].files == {"a/b.yaml": "é\n"}
    assert again.specs[1].config["student"]["layers"] == {1: "a", 2: [3.5, None, True]}


def test_a_worker_leaves_what_the_command_itself_would_have_left(folder, monkeypatch):
    file = written(*SWEEP)
    assert main(["--config-dir", "mine", *SWEEP, "sweep_dir=here"]) == 0
    monkeypatch.chdir("/")
    assert work(file) == 0
    here, there = results(folder / "here"), results(folder / "there")
    assert len(here) == len(there) == 6
    for name, result in here.items():
        assert there[name]["metrics"] == result["metrics"]
        compared = [(found["baseline"] or {}).get("test/acc") for found in (result, there[name])]
        assert compared[0] == compared[1]
        assert weights(folder / "there" / name) == weights(folder / "here" / name)
        told = [
            [{k: v for k, v in line.items() if not k.startswith("time/")} for line in lines(folder / place / name)]
            for place in ("there", "here")
        ]
        assert told[0] == told[1]
    before = [path.stat().st_mtime_ns for path in sorted((folder / "there").glob("*/checkpoints/*"))]
    assert work(file) == 0
    assert [path.stat().st_mtime_ns for path in sorted((folder / "there").glob("*/checkpoints/*"))] == before


def test_preparing_makes_teacher_and_cache_and_no_run(folder):
    file = written(*SWEEP)
    todo = read_work(file)
    write_work(folder / "prepare.json", replace(todo, task=PREPARE, serves=(file,)))
    assert work(folder / "prepare.json") == 0
    (teacher,) = Path("outputs/teachers").glob("*/result.json")
    assert list(Path("outputs/cache").glob("*/meta.json"))
    assert not Path("there").exists()
    before = teacher.stat().st_mtime_ns
    assert work(file) == 0
    assert teacher.stat().st_mtime_ns == before
    assert all("reading" in result["teacher"]["cache"] for name, result in results(folder / "there").items())


def test_what_keeps_the_teacher_from_being_made_is_told_in_every_result_that_waits_for_it(folder, capsys):
    file = written(*SWEEP)
    specs = tuple(
        replace(s, config={**s.config, "paths": {**s.config["paths"], "teacher_dir": "/proc/no"}})
        for s in read_work(file).specs
    )
    write_work(folder / "prepare.json", Work(PREPARE, specs[-1:], folder, (file,)))
    assert work(folder / "prepare.json") == 2
    found = results(folder / "there")
    assert len(found) == 6
    assert all(result["status"] == "failed" and "/proc/no" in result["error"] for result in found.values())


def test_code_that_was_edited_after_the_start_is_refused(folder):
    file = written(*SMALL[:-2], "-m", "student=net", "seed=0", "baseline=false")
    (folder / "my_net.py").write_text((folder / "my_net.py").read_text().replace("ReLU", "Tanh"))
    assert work(file) == 2
    (result,) = results(folder / "there").values()
    assert result["status"] == "failed"
    assert result["error"].startswith("my_net.py changed since the sweep was started")


def test_a_signal_in_training_keeps_the_state_and_the_exit_code_says_whether_to_come_again(folder):
    long = [*SMALL, "-m", "seed=0,1", "baseline=false", "trainer.max_epochs=30", "checkpoint.every_n_steps=5"]
    file = written(*long)
    last = Path("there/s0/checkpoints/last.ckpt")

    def send(number: int, since: int) -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until and (not last.exists() or last.stat().st_mtime_ns == since):
            time.sleep(0.002)
        os.kill(os.getpid(), number)

    for number, code in ((signal.SIGUSR1, AGAIN), (signal.SIGUSR2, AGAIN), (signal.SIGTERM, STOPPED)):
        sender = threading.Thread(target=send, args=(number, last.stat().st_mtime_ns if last.exists() else 0))
        sender.start()
        assert work(file) == code
        sender.join()
        assert {result["status"] for result in results(folder / "there").values()} == {"interrupted"}
    assert work(file) == 0
    assert main(["--config-dir", "mine", *long, "sweep_dir=here"]) == 0
    for name in ("s0", "s1"):
        assert weights(folder / "there" / name, "last") == weights(folder / "here" / name, "last")
    assert not list(folder.rglob("hpc_ckpt*"))


def test_a_signal_while_torch_is_imported_ends_the_process_in_good_order(folder):
    file = written(*SWEEP)
    child = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "kd_lightning.running.worker", str(file)],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    for line in child.stderr:
        if "numpy" in line:  # torch comes after it
            child.send_signal(signal.SIGUSR2)
            break
    child.stderr.read()
    assert child.wait(60) == FRUITLESS, "nothing was reached"
    assert not Path("there").exists()


def test_a_directory_that_is_held_is_waited_for(folder, capsys):
    file, done = written(*SMALL, "-m", "seed=0", "baseline=false"), []
    run_dir = read_work(file).specs[0].run_dir
    worker = threading.Thread(target=lambda: done.append(work(file)))
    with held(run_dir):
        worker.start()
        until = time.monotonic() + 120
        while "is held by another process: waiting" not in capsys.readouterr().out:
            assert not done, "it did not wait"
            assert time.monotonic() < until, "it said nothing"
            time.sleep(0.05)
        assert not done
        assert not (run_dir / "checkpoints").exists()
    worker.join(120)
    assert done == [0]


def test_a_damaged_work_file_is_one_line(tmp_path):
    from kd_lightning.errors import UserError

    (tmp_path / "work.json").write_text(json.dumps({"format": 1, "task": "train"}))
    with pytest.raises(UserError, match=r"work.json is no work file of this version"):
        read_work(tmp_path / "work.json")
