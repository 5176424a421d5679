"""What Slurm would be given can be read before: ``launcher.dry_run=true``. No Slurm is needed for that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from processes import SMALL

from kd_lightning.cli.train import main

pytestmark = pytest.mark.slow  # all of them together

SWEEP = ("-m", *SMALL, "method.temperature=1,4", "seed=0,1,2", "launcher=slurm")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def scripts(printed: str) -> dict[str, str]:
    """The scripts that were printed, by kind."""
    parts = printed.split("#!/bin/bash\n")
    return {part.split("--job-name=kd-")[1].split("-")[0]: part for part in parts[1:]}


def test_the_scripts_the_groups_and_their_overrides_are_printed_and_nothing_is_left(folder, capsys):
    site = [
        "launcher.partition=gpu", "launcher.account=lab", "launcher.qos=long", "launcher.gpus=2", "launcher.gpu_type=a100",
        "launcher.cpus=8", "launcher.memory=32G", "launcher.time=4:00:00", "launcher.constraint=nvlink",
        "launcher.options=['--exclude=n7']", "launcher.setup=['module load cuda']", "launcher.jobs_at_once=2",
        "launcher.warn_seconds=120", "launcher.cpu_partition=short",
    ]  # fmt: skip
    assert main([*SWEEP, *site, "launcher.runs_per_job=3", "launcher.dry_run=true", "sweep_dir=a b"]) == 0
    printed = capsys.readouterr().out
    assert not list(folder.iterdir())
    found = scripts(printed)
    assert list(found) == ["prepare", "train", "finish"]
    for line in (
        "--partition=gpu", "--account=lab", "--qos=long", "--gres=gpu:a100:2", "--cpus-per-task=8", "--mem=32G",
        "--time=4:00:00", "--constraint=nvlink", "--exclude=n7", "--signal=USR2@120", "--requeue", "--open-mode=append",
    ):  # fmt: skip
        assert f"#SBATCH {line}\n" in found["train"], line
    assert "#SBATCH --array=0-2%2\n" in found["train"]
    assert "#SBATCH '--dependency=afterok:<prepare-0>'\n" in found["train"]
    assert "\nmodule load cuda\n" in found["train"]
    assert "OMP_NUM_THREADS:-8" in found["train"]
    assert "--gres" not in found["finish"]
    assert "--partition=short" in found["finish"]
    assert "# group 1: 3 runs\n#   student_alone_s1: " in printed
    assert "#   T04.0_s1: " in printed
    assert " method.temperature=4 " in printed
    assert "9 runs as 3 jobs; nothing was submitted" in printed


def test_every_printed_script_is_a_script_for_bash(folder, capsys):
    assert main([*SWEEP, "launcher.runs_per_job=2", "launcher.dry_run=true", "sweep_dir='it\\'s a sweep'"]) == 0
    for name, text in scripts(capsys.readouterr().out).items():
        script = text.split("\n\n#")[0]
        subprocess.run(["bash", "-n"], input=f"#!/bin/bash\n{script}", text=True, check=True)
        assert "it'\"'\"'s a sweep" in script, name


def test_runs_that_fit_into_one_job_need_none_before_it(folder, capsys):
    assert main([*SWEEP, "launcher.dry_run=true", "sweep_dir=sweep"]) == 0
    printed = capsys.readouterr().out
    assert list(scripts(printed)) == ["train", "finish"]
    assert "9 runs as 1 job;" in printed


def test_a_sites_own_file_takes_the_place_of_ours(folder, capsys):
    (folder / "mine/launcher").mkdir(parents=True)
    (folder / "mine/launcher/slurm.yaml").write_text(
        "_target_: kd_lightning.running.executors.slurm.SlurmExecutor\n"
        'partition: gpu\naccount: my_lab\ntime: "4:00:00"\ncpus: 8\nmemory: 32G\nsetup: ["module load cuda/12.4"]\n'
    )
    assert (
        main(["--config-dir", "mine", *SWEEP, "launcher.account=ours", "+launcher.dry_run=true", "sweep_dir=sweep"])
        == 0
    )
    train = scripts(capsys.readouterr().out)["train"]
    for line in (
        "--partition=gpu",
        "--account=ours",
        "--time=4:00:00",
        "--mem=32G",
        "--gres=gpu:1",
        "--signal=USR2@90",
    ):
        assert f"#SBATCH {line}\n" in train, line
    assert "\nmodule load cuda/12.4\n" in train


def test_a_single_run_goes_to_slurm_too(folder, capsys):
    assert main([*SMALL, "launcher=slurm", "launcher.dry_run=true", "run_dir=run"]) == 0
    printed = capsys.readouterr().out
    assert list(scripts(printed)) == ["train"]
    assert "# group 0: 2 runs" in printed


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("launcher.time=14400", "launcher.time: "),
        ("launcher.gpu=2", "launcher.gpu: "),
        ("launcher.partition=[a]", "launcher.partition: "),
    ],
)
def test_a_key_that_cannot_be_meant_is_one_line(override, text, folder, capsys):
    assert main([*SWEEP, "+" * ("gpu=" in override) + override, "launcher.dry_run=true", "sweep_dir=sweep"]) == 2
    assert text in capsys.readouterr().err


def test_without_slurm_the_line_says_where_to_start_and_nothing_is_left(folder, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert main([*SWEEP, "sweep_dir=sweep"]) == 2
    assert "sbatch is not on this machine: start on a login node of Slurm" in capsys.readouterr().err
    assert not list(folder.iterdir())


def test_a_sweeper_that_looks_at_results_has_to_wait(folder, capsys):
    pytest.importorskip("optuna", reason='pip install "kd-lightning[optuna]"')
    assert main(["-m", *SMALL, "sweep=optuna", "launcher=slurm", "launcher.wait=false", "sweep_dir=sweep"]) == 2
    assert "launcher.wait=false: this sweeper chooses its next runs by the results" in capsys.readouterr().err


def test_a_run_on_several_nodes_has_a_task_on_each_that_know_where_they_meet(folder, capsys):
    wide = ["trainer.num_nodes=2", "trainer.devices=4", "trainer.accelerator=gpu"]
    assert main([*SWEEP, *wide, "launcher.dry_run=true"]) == 0
    train = scripts(capsys.readouterr().out)["train"]
    for line in ("--nodes=2", "--ntasks-per-node=1", "--gres=gpu:4"):
        assert f"#SBATCH {line}\n" in train, line
    assert "\nsrun --ntasks=2 --kill-on-bad-exit=1 " in train
    assert train.index("export MASTER_ADDR=${MASTER_ADDR:-$(scontrol show hostnames") < train.index("srun")
    assert "export MASTER_PORT=" in train


def test_what_is_made_before_takes_one_node(folder, capsys):
    assert main([*SWEEP, "trainer.num_nodes=2", "launcher.runs_per_job=3", "launcher.dry_run=true"]) == 0
    found = scripts(capsys.readouterr().out)
    assert "--nodes=2" in found["train"]
    for kind in ("prepare", "finish"):
        assert "--nodes" not in found[kind]
        assert "srun --ntasks=1 " in found[kind]


def test_devices_by_their_numbers_are_refused_where_slurm_chooses_them(folder, capsys):
    assert main([*SWEEP, "trainer.devices=[0,2]", "launcher.dry_run=true"]) == 2
    assert "trainer.devices=[0, 2]: Slurm says which devices a job has" in capsys.readouterr().err
