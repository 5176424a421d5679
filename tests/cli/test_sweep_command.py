"""``kd-sweep`` answers from files: of sweeps that are over, that run, that wait in a queue which cannot be asked."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path

import processes
import pytest
from processes import SMALL

from kd_lightning.cli.sweep import main as kd_sweep
from kd_lightning.runs.submission import Job, new_submission, read_submissions, submitted_specs
from kd_lightning.runs.work_file import TRAIN, Work, write_work
from kd_lightning.sweeps.standing import standing_of


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A finished sweep of two runs and two students alone."""
    folder = tmp_path_factory.mktemp("made")
    ended = processes.run(folder, "-m", *SMALL, "seed=0,1", "sweep_dir=sweep")
    assert ended.code == 0, ended.text
    return folder / "sweep"


@pytest.fixture
def sweep(made, tmp_path, monkeypatch) -> Path:
    """A copy of it, on a machine without Slurm."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PATH", "/nowhere")
    shutil.copytree(made, tmp_path / "sweep")
    return tmp_path / "sweep"


def change_result(run_dir: Path, **what) -> None:
    path = run_dir / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **what}, indent=2))


def leave_alone_for_an_hour(run_dir: Path) -> None:
    long_ago = time.time() - 3600
    for name in ("metrics.jsonl", "kd-train.log"):
        os.utime(run_dir / name, (long_ago, long_ago))


def test_status_of_a_sweep_that_is_over(sweep, capsys):
    assert kd_sweep(["status", "sweep"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["run", "state", "epoch", "best", "val", "acc", "left"]
    best = json.loads((sweep / "s0/result.json").read_text())["metrics"]["best/val_acc"]
    assert next(line for line in lines if line.startswith("s0 ")).split() == ["s0", "finished", "3/3", f"{best:.4g}"]
    assert lines[-1] == "4 runs: 4 finished"


def test_what_failed_comes_first_with_its_error_and_the_exit_code_says_so(sweep, capsys):
    change_result(sweep / "s1", status="failed", error="out of\nluck")
    change_result(sweep / "s0", status="pruned")
    assert kd_sweep(["status", "sweep"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("s1 ")
    assert lines[1].endswith("out of luck")
    assert next(line for line in lines if line.startswith("s0 ")).endswith("stopped early")
    assert "4 runs: 2 finished, 1 pruned, 1 failed" in lines[-2]
    assert lines[-1].startswith("kd-sweep resume ")


def test_a_result_of_another_configuration_is_none_of_the_sweeps(sweep):
    change_result(sweep / "s1", fingerprint="0" * 64)
    leave_alone_for_an_hour(sweep / "s1")
    assert standing_of(sweep).counts() == {"finished": 3, "stopped": 1}


def test_a_run_that_trains_says_how_far_it_is_and_how_long_it_still_takes(tmp_path, capsys):
    command = processes.start(
        tmp_path, "-m", *SMALL, "seed=0,1", "baseline=false", "trainer.max_epochs=500", "sweep_dir=sweep"
    )
    metrics = tmp_path / "sweep/s0/metrics.jsonl"
    command.wait_for(lambda: metrics.exists() and metrics.read_text().count("val/acc") > 3)
    seen = standing_of(tmp_path / "sweep")
    first, second = seen.runs
    assert kd_sweep(["status", str(tmp_path / "sweep")]) == 0
    command.kill()
    command.wait()
    assert first.state == second.state == "running"
    assert 3 < first.epoch < 500
    assert first.epochs == 500
    assert first.seconds_left > 0
    assert seen.seconds_left == max(run.seconds_left for run in (first, second) if run.seconds_left is not None)
    assert "2 runs: 2 running" in capsys.readouterr().out
    for run in ("s0", "s1"):
        leave_alone_for_an_hour(tmp_path / "sweep" / run)
    assert standing_of(tmp_path / "sweep").counts() == {"stopped": 2}, "nobody has written for an hour"


def test_many_runs_are_summed_up(sweep, capsys):
    content = json.loads((sweep / "sweep.json").read_text())
    template = (sweep / "s0/result.json").read_text()
    for number in range(100):
        content["runs"].append({**content["runs"][-1], "name": f"r{number}", "fingerprint": f"{number:064d}"})
        (sweep / f"r{number}").mkdir()
        result = {
            **json.loads(template),
            "fingerprint": f"{number:064d}",
            "status": "finished" if number else "diverged",
        }
        (sweep / f"r{number}/result.json").write_text(json.dumps(result))
    (sweep / "sweep.json").write_text(json.dumps(content))
    assert kd_sweep(["status", "sweep"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert lines[1].startswith("r0 ")
    assert lines[2] == "… and 103 more (--all)"
    assert "104 runs: 103 finished, 1 failed" in lines[3]
    assert kd_sweep(["status", "sweep", "--all"]) == 1
    assert len(capsys.readouterr().out.splitlines()) == 107


def submitted(sweep: Path, job: str = "12") -> None:
    """As if the sweep's distilled runs had been given to Slurm, one a job."""
    specs = [spec for spec in stored_specs(sweep) if spec.role != "alone"]
    submission = new_submission(sweep, "kd_lightning.running.executors.slurm.SlurmExecutor", {"gpus": 0, "wait": True})
    for number, spec in enumerate(specs):
        write_work(submission.group_file(number), Work(TRAIN, (spec,), sweep.parent))
        submission.groups.append([spec.name])
    submission.jobs.append(Job(TRAIN, job, (0, 1)))
    submission.save()


def stored_specs(sweep: Path) -> list:
    from kd_lightning.runs.result_content import spec_of_result

    return [spec_of_result(json.loads(p.read_text()), p.parent) for p in sorted(sweep.glob("*/result.json"))]


def test_a_submission_comes_back_as_it_was_written(sweep):
    submitted(sweep)
    submitted(sweep, "13")
    first, second = read_submissions(sweep)
    assert (first.folder.name, second.folder.name) == ("001", "002")
    assert second.task_of_group() == {0: "13_0", 1: "13_1"}
    assert second.log_of(1).name == "train-13_1.log"
    assert [spec.name for spec in submitted_specs([first, second])] == ["s0", "s1"]
    (sweep / ".jobs/002/submission.json").write_text("{")
    assert kd_sweep(["status", "sweep"]) == 2


def test_where_the_queue_cannot_be_asked_the_files_answer(sweep, capsys):
    submitted(sweep)
    (sweep / "s1/result.json").unlink()
    assert kd_sweep(["status", "sweep"]) == 1
    said = capsys.readouterr().out
    assert "squeue does not answer: from the files alone" in said
    assert "4 runs: 3 finished, 1 stopped" in said
    assert kd_sweep(["resume", "sweep"]) == 2
    assert "squeue does not answer, and runs may be in the queue already" in capsys.readouterr().err
    assert kd_sweep(["cancel", "sweep"]) == 2
    assert "squeue does not answer" in capsys.readouterr().err


def test_logs_are_those_of_the_jobs_or_of_a_run(sweep, capsys):
    submitted(sweep)
    (sweep / ".jobs/001/train-12_0.log").write_text("".join(f"line {n}\n" for n in range(30)))
    assert kd_sweep(["logs", "sweep", "--lines", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["line 28", "line 29"]
    assert kd_sweep(["logs", "sweep", "s0"]) == 0
    assert "training samples" in capsys.readouterr().out
    assert kd_sweep(["logs", "sweep", "s7"]) == 2
    assert "s7: no run of this name has begun" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["status", "nowhere"], "nowhere: there is no sweep, and nothing was submitted from there"),
        (["resume", "sweep"], "was submitted to a cluster: start it again where it was started: kd-train -m"),
        (["cancel", "sweep"], "nothing of it was given to Slurm; stop the command that runs it"),
        (["logs", "sweep"], "no job of this sweep has written anything yet"),
    ],
)
def test_what_cannot_be_done_is_one_line_with_what_to_do(arguments, text, sweep, capsys):
    assert kd_sweep(arguments) == 2
    assert text in " ".join(capsys.readouterr().err.split())


def test_a_key_of_the_launcher_that_does_not_exist_is_told_with_those_that_do(sweep, capsys):
    submitted(sweep)
    assert kd_sweep(["resume", "sweep", "launcher.tmie=1"]) == 2
    assert "launcher.tmie=1: give launcher.KEY=VALUE; did you mean 'time'?" in capsys.readouterr().err


def test_a_sweep_that_is_finished_is_resumed_without_a_job(sweep, capsys):
    submitted(sweep)
    assert kd_sweep(["resume", "sweep", "launcher.time=8:00:00"]) == 0
    assert "2 finished" in capsys.readouterr().out
    assert len(read_submissions(sweep)) == 1


def test_nothing_heavy_is_loaded_to_look_at_a_sweep():
    import subprocess

    code = "import sys, kd_lightning.sweeps.standing, kd_lightning.cli.sweep; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
