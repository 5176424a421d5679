"""Sweeps on a real Slurm controller with two nodes: whatever happens to the jobs, the runs end as undisturbed ones do."""

from __future__ import annotations

import os
import re
import signal

import pytest
import slow_net
import slurm_cluster
from processes import SMALL, results, start, weights
from slurm_cluster import logs, wait_for

from kd_lightning.cli.report import main as kd_report
from kd_lightning.cli.sweep import main as kd_sweep
from kd_lightning.cli.train import main
from kd_lightning.runs.submission import read_submissions

missing = slurm_cluster.missing()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing), reason=f"no Slurm here (apt-get install slurm-wlm): {', '.join(missing)}"),
]

STORM = (*slow_net.RUN, "+student.width=4,5,6,7,8,9")


def minutes(slurm: slurm_cluster.SlurmCluster, task: str) -> int:
    """Whole minutes that a task has been running for."""
    return int(slurm.run("squeue", "-h", "-j", task, "-O", "TimeUsed:40").strip().rpartition(":")[0].rpartition(":")[2])


def test_twelve_runs_in_an_array_are_those_of_one_process(folder, slurm, capsys):
    sweep = ["-m", *SMALL, "seed=0,1,2,3", "method.temperature=1,4", "student.dropout=0.1"]
    seen = "launcher.setup=['echo device $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES']"
    on_slurm = [*sweep, "launcher=slurm", "launcher.runs_per_job=4", seen, "sweep_dir=there"]
    assert main(on_slurm) == 0
    slurm.wait_until_empty()  # the last job writes the report once more
    assert main([*sweep, "sweep_dir=here", "paths.teacher_dir=own", "paths.cache_dir=own"]) == 0
    here, there = results(folder / "here"), results(folder / "there")
    assert len(here) == len(there) == 12
    for name, result in here.items():
        assert there[name]["metrics"] == result["metrics"]
        assert there[name]["cost"]["fused"] == 4
        assert (there[name]["baseline"] or {}).get("test/acc") == (result["baseline"] or {}).get("test/acc")
        assert weights(folder / "there" / name) == weights(folder / "here" / name)
    said = logs(folder / "there")
    assert set(said) == {"prepare", "train_0", "train_1", "train_2", "finish"}
    assert [name for name, text in said.items() if "training the teacher" in text] == ["prepare"]
    assert len(list(folder.glob("outputs/teachers/*/result.json"))) == 1
    devices = [
        line
        for name, text in said.items()
        for line in text.splitlines()
        if line.startswith("device") and "train" in name
    ]
    assert len(set(devices)) == 3, devices
    assert all(re.fullmatch(r"device n[01] [0-3]", line) for line in devices)
    assert (folder / "there/report.html").exists()
    capsys.readouterr()
    assert kd_sweep(["status", "there"]) == 0
    assert "12 runs: 12 finished" in capsys.readouterr().out
    before = slurm.tasks()
    assert main(on_slurm) == 0
    assert slurm.tasks() == before, "what is finished was submitted again"


def test_a_run_on_two_nodes_is_the_run_of_two_processes(folder, slurm):
    argv = ["-m", *SMALL, "seed=0,1", "baseline=false", "trainer.accelerator=cpu"]
    meet = "launcher.setup=['export MASTER_ADDR=127.0.0.1 GLOO_SOCKET_IFNAME=lo', 'echo tasks $SLURM_JOB_NODELIST']"
    assert main([*argv, "trainer.num_nodes=2", "launcher=slurm", meet, "sweep_dir=there"]) == 0
    slurm.wait_until_empty()
    assert main([*argv, "trainer.devices=2", "sweep_dir=here", "paths.teacher_dir=own", "paths.cache_dir=own"]) == 0
    here, there = results(folder / "here"), results(folder / "there")
    assert len(here) == len(there) == 2
    for name, result in here.items():
        assert there[name]["status"] == "finished"
        assert there[name]["metrics"] == result["metrics"]
        assert weights(folder / "there" / name) == weights(folder / "here" / name)
    text = logs(folder / "there")["train_0"]
    assert "tasks n[0-1]" in text
    assert "node 1 waits for 127.0.0.1:" in text
    assert len(list(folder.glob("outputs/teachers/*/result.json"))) == 1


def test_time_limits_requeues_kills_nodes_and_mistakes_change_no_weight_and_lose_no_step(folder, slurm, capsys):
    slow_net.write(folder)
    there = folder / "there"
    given = [
        "launcher=slurm",
        "launcher.runs_per_job=1",
        "launcher.wait=false",
        "launcher.warn_seconds=100",
        "launcher.kills=9",
    ]
    assert main([*STORM, *given, "sweep_dir=there"]) == 0
    (submission,) = read_submissions(there)
    array = submission.jobs_of("train")[0].id
    late, requeued, failing, _, lost, cancelled = (f"{array}_{task}" for task in range(6))

    steps = slow_net.steps
    wait_for(lambda: all(len(steps(width)) > 2 for width in range(4, 10)), "all six train")
    slurm.run("scontrol", "update", f"jobid={late}", f"timelimit={minutes(slurm, late) + 2}")
    slurm.run("scancel", "--signal=KILL", cancelled)
    wait_for(lambda: slurm.tasks()[cancelled][0] == "CANCELLED", "one is cancelled")
    node = slurm.tasks()[lost][1]
    slurm.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    wait_for(lambda: slurm.tasks()[lost][0] == "PENDING", "the node's jobs wait for another")
    # it is back at once, as its daemon never went: Slurm would hold a job whose former processes are still ending there
    slurm.run("scontrol", "update", f"jobid={lost}", f"excnodelist={node}")
    slurm.run("scontrol", "update", f"nodename={node}", "state=resume", check=False)  # it may have come back by itself
    slurm.run("scontrol", "requeue", requeued)
    os.kill(int(steps(7)[-1]), signal.SIGKILL)
    capsys.readouterr()
    wait_for(lambda: slurm.tasks()[failing][0] == "FAILED", "one has failed")
    assert kd_sweep(["status", "there"]) == 1
    said = capsys.readouterr().out
    assert re.search(r"^width006 +failed .*a mistake of the user's own$", said, re.MULTILINE), said
    assert re.search(r"^width009 +stopped ", said, re.MULTILINE), said
    assert kd_report(["there"]) == 0
    assert "width004" in (there / "report.html").read_text()
    wait_for(lambda: "the time is over" in logs(there)["train_0"], "the job that is too long asks for another turn")
    wait_for(lambda: all(len(set(steps(width))) > 1 for width in (4, 5, 7, 8)), "four go on in other processes")
    slurm.run("scontrol", "update", f"jobid={late}", "timelimit=60")
    (folder / "go").touch()
    slurm.wait_until_empty()
    text = logs(there)
    assert "SIGUSR2: saving after this step" in text["train_0"]
    assert "asks for another turn" not in text["train_1"] + text["train_4"]
    assert "exit code 137: job" in text["train_3"]
    assert {name for name, result in results(there).items() if result["status"] == "finished"} == {
        "width004", "width005", "width007", "width008",
    }  # fmt: skip
    done = {path: path.stat().st_mtime_ns for path in there.glob("width00[4578]/checkpoints/*")}

    (folder / "mended").touch()
    assert kd_sweep(["resume", "there", "launcher.runs_per_job=2"]) == 0
    assert "submitted: 2 runs as 1 job" in capsys.readouterr().out
    slurm.wait_until_empty()
    assert kd_sweep(["status", "there"]) == 0, capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in done} == done

    assert main([*STORM, "sweep_dir=here", "paths.teacher_dir=own", "paths.cache_dir=own"]) == 0
    for width in range(4, 10):
        name = f"width00{width}"
        assert weights(there / name, "last") == weights(folder / "here" / name, "last")
        assert weights(there / name) == weights(folder / "here" / name)
        turns = len(set(steps(width))) - 1  # one of the processes is the undisturbed one's
        taken = len(steps(width)) - (slow_net.STEPS - 1)
        lost = slow_net.EPOCH if width in (6, 7, 8) else 0  # failed, killed, on a node that may not have waited
        assert slow_net.STEPS - turns <= taken <= slow_net.STEPS - turns + lost, (
            f"{name}: {taken} steps in {turns} turns"
        )
    assert not list(folder.rglob("hpc_ckpt*"))


def test_what_waits_in_the_queue_is_not_submitted_twice_and_can_be_cancelled(folder, slurm, capsys):
    slurm.run("scontrol", "update", "nodename=n[0-1]", "state=drain", "reason=test")
    argv = ["-m", *SMALL, "seed=0,1,2", "launcher=slurm", "launcher.runs_per_job=3", "sweep_dir=there"]
    try:
        assert main([*argv, "launcher.wait=false"]) == 0
        assert main([*argv, "launcher.wait=false", "seed=0,1,2,3"]) == 0
        said = capsys.readouterr().out
        assert "submitted: 6 runs as 2 jobs" in said
        assert "6 of 8 runs are in the queue already" in said
        assert "submitted: 2 runs as 1 job" in said
        assert kd_sweep(["status", "there"]) == 0
        assert "8 runs: 8 pending" in capsys.readouterr().out

        told_to_leave = start(folder, *argv, **slurm.environment)
        told_to_leave.wait_for(lambda: "waiting for the jobs" in told_to_leave.text)
        before = slurm.tasks()
        told_to_leave.kill(signal.SIGTERM)
        assert told_to_leave.wait().code == 130
        assert slurm.tasks() == before, "a command that was told to leave took its jobs with it"

        assert kd_sweep(["cancel", "there"]) == 0
        wait_for(lambda: not slurm.run("squeue", "-h").strip(), "the queue is empty")
        capsys.readouterr()
        assert kd_sweep(["status", "there"]) == 1
        assert "8 runs: 8 stopped" in capsys.readouterr().out
        stopped = start(folder, *argv, **slurm.environment)
        stopped.wait_for(lambda: "waiting for the jobs" in stopped.text)
        stopped.kill(signal.SIGINT)
        assert stopped.wait().code == 130
        wait_for(lambda: not slurm.run("squeue", "-h").strip(), "Ctrl-C cancels the jobs")
    finally:
        slurm.run("scontrol", "update", "nodename=n[0-1]", "state=resume")
