"""A search whose trials are Slurm's jobs: they ask the shared study whether to go on, and the command may be killed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import slurm_cluster
from processes import SMALL, results, run, start, weights
from slurm_cluster import wait_for

from kd_lightning.cli.sweep import main as kd_sweep
from kd_lightning.cli.train import main
from kd_lightning.runs.submission import read_submissions

optuna = pytest.importorskip("optuna", reason='pip install "kd-lightning[optuna]"')
missing = slurm_cluster.missing()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing), reason=f"no Slurm here (apt-get install slurm-wlm): {', '.join(missing)}"),
]
SEARCH = (
    "-m", *SMALL, "baseline=false", "sweep=optuna", "hydra.sweeper.params=null", "hydra.sweeper.seed=0",
)  # fmt: skip
EAGER = "hydra.sweeper.pruner={_target_: optuna.pruners.MedianPruner, n_startup_trials: 1, n_warmup_steps: 1}"
GOOD, BAD = "optimizer.lr=interval(0.005,0.02)", "optimizer.lr=interval(0.000001,0.00001)"


def test_trials_are_jobs_that_the_study_stops_and_that_outlive_a_killed_command(folder, slurm, capsys):
    search = [*SEARCH, EAGER, "launcher=slurm", "launcher.runs_per_job=1", "hydra.sweeper.batch=2", "sweep_dir=there"]
    killed = start(folder, *search, GOOD, "hydra.sweeper.n_trials=2", **slurm.environment)
    killed.wait_for(lambda: "waiting for the jobs" in killed.text)
    killed.kill()
    killed.wait()
    for space, trials in ((GOOD, 2), (BAD, 4)):
        done = run(folder, *search, space, f"hydra.sweeper.n_trials={trials}", timeout=240, **slurm.environment)
        assert done.code == 0, done.text
        assert (trials == 2) == ("2 trials go on where they stopped" in done.text)
    slurm.wait_until_empty()
    assert [sum(map(len, submission.groups)) for submission in read_submissions(folder / "there")] == [2, 2]
    found = results(folder / "there")
    trials = optuna.load_study(
        study_name="digits", storage=_journal(folder / "there/optuna.journal")
    ).get_trials()  # fmt: skip
    assert [trial.state.name for trial in trials] == ["COMPLETE", "COMPLETE", "PRUNED", "PRUNED"]
    for trial in trials:
        (name,) = trial.user_attrs["run"]
        assert set(trial.intermediate_values) == set(range(1, found[name]["cost"]["epochs"] + 1))
        assert found[name]["cost"]["epochs"] == (3 if trial.state.name == "COMPLETE" else 1)
    assert kd_sweep(["status", "there"]) == 0
    assert "4 runs: 2 finished, 2 pruned" in capsys.readouterr().out

    (name,), lr = trials[0].user_attrs["run"], trials[0].params["optimizer.lr"]
    alone = [*SMALL, "baseline=false", f"optimizer.lr={lr}", "run_dir=alone", "paths.cache_dir=own"]
    assert main(alone) == 0
    assert weights(folder / "alone") == weights(folder / "there" / name)


def test_jobs_that_search_by_themselves_share_one_study(folder, slurm):
    command = [str(Path(sys.executable).with_name("kd-train")), *SEARCH, EAGER, GOOD, "hydra.sweeper.n_trials=4"]
    command += ["hydra.sweeper.batch=2", "hydra.sweeper.study_name=both", "hydra.sweeper.storage=both.journal"]
    line = " ".join(f"'{part}'" for part in command) + " sweep_dir=worker$SLURM_ARRAY_TASK_ID"
    slurm.run("sbatch", "--array=0-1", "--requeue", "--output=worker-%a.log", f"--wrap={line}")
    wait_for(lambda: not slurm.run("squeue", "-h", "-r").strip(), "both have searched")
    said = [(folder / f"worker-{number}.log").read_text() for number in (0, 1)]
    study = optuna.load_study(study_name="both", storage=_journal(folder / "both.journal"))
    assert all(re.search(r"of \d+ trials", text) for text in said), said
    places = [Path(trial.user_attrs["sweep_dir"]).name for trial in study.trials if trial.state.is_finished()]
    assert len(places) >= 4, said
    assert set(places) == {"worker0", "worker1"}
    runs = [name for worker in ("worker0", "worker1") for name in results(folder / worker)]
    assert len(runs) == len(places), "a trial was computed twice"
    assert len(list(folder.glob("outputs/teachers/*/result.json"))) == 1


def _journal(path: Path):
    from kd_lightning.sweeps.search.study import storage_of

    return storage_of(str(path))
