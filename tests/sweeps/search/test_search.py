"""``sweep=optuna`` as a user runs it: trials in lockstep, bad ones stopped early, the study taken up again, a front."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest
from processes import SMALL, Ended, results, run, start

from kd_lightning.report.pages.page import write_report
from kd_lightning.report.pages.payload import payload
from kd_lightning.report.study.collect import collect
from kd_lightning.sweeps.search.study import storage_of

pytestmark = pytest.mark.slow
SEARCH = (*SMALL, "sweep=optuna", "trainer.max_epochs=4", "sweep_dir=sweep", "hydra.sweeper.seed=0")
EAGER = "hydra.sweeper.pruner={_target_: optuna.pruners.MedianPruner, n_startup_trials: 1, n_warmup_steps: 1}"


def study(folder: Path, name: str = "digits") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=storage_of(str(folder / "optuna.journal")))


@pytest.fixture(scope="module")
def searched(tmp_path_factory) -> tuple[Path, Ended]:
    """Four trials, a pause, and two more; the second half is told to stop whom the median surpasses."""
    folder = tmp_path_factory.mktemp("search")
    first = run(folder, "-m", *SEARCH, EAGER, "hydra.sweeper.n_trials=3", "hydra.sweeper.batch=3")
    assert first.code == 0, first.text
    return folder, run(folder, "-m", *SEARCH, EAGER, "hydra.sweeper.n_trials=6", "hydra.sweeper.batch=3")


def test_the_same_command_goes_on_to_the_number_of_trials(searched):
    folder, second = searched
    assert second.code == 0, second.text
    assert "6 of 6 trials" in second.text
    assert "student_alone is finished already" in second.text
    trials = study(folder / "sweep").trials
    assert len(trials) == 6
    assert {tuple(trial.params) for trial in trials} == {
        ("method.temperature", "method.weights.kd", "method.weights.task")
    }


def test_a_trial_is_told_each_epochs_validation_and_the_best_of_its_run(searched):
    folder, _ = searched
    found = results(folder / "sweep")
    complete = study(folder / "sweep").get_trials(states=[optuna.trial.TrialState.COMPLETE])
    assert complete
    for trial in complete:
        (name,) = trial.user_attrs["run"]
        assert trial.value == found[name]["metrics"]["best/val_acc"]
        assert trial.value == max(trial.intermediate_values.values())
        assert set(trial.intermediate_values) == {1, 2, 3, 4}


def test_a_pruned_run_says_so_everywhere_and_needs_no_rerun(searched):
    folder, second = searched
    pruned = {name: result for name, result in results(folder / "sweep").items() if result["status"] == "pruned"}
    states = [trial.state for trial in study(folder / "sweep").trials]
    assert states.count(optuna.trial.TrialState.PRUNED) == len(pruned) > 0
    for result in pruned.values():
        assert result["cost"]["epochs"] < 4
        assert "stopped early after epoch" in result["error"]
        assert not any(name.startswith("test/") for name in result["metrics"])
    assert f"{len(pruned)} pruned" in second.text
    assert "run again with" not in second.text
    (page,) = payload(collect(folder / "sweep"))["studies"]
    assert f"{len(pruned)} stopped early" in page["headline"]
    assert page["complete"]
    assert not page["problems"]
    assert any("(pruned)" in note for note in page["notes"])


def test_a_search_that_was_killed_takes_its_trials_up_again(tmp_path):
    search = ("-m", *SEARCH, "baseline=false", "hydra.sweeper.n_trials=2", "hydra.sweeper.batch=2")
    killed = start(tmp_path, *search, "trainer.max_epochs=60")
    killed.wait_for(lambda: len(list(tmp_path.glob("sweep/*/checkpoints/last.ckpt"))) == 2)
    killed.kill()
    assert killed.wait().code < 0
    before = [trial.params for trial in study(tmp_path / "sweep").trials]
    second = run(tmp_path, *search, "trainer.max_epochs=60")
    assert second.code == 0, second.text
    assert "2 trials go on where they stopped" in second.text
    assert "continues after step" in second.text
    trials = study(tmp_path / "sweep").trials
    assert [trial.params for trial in trials] == before
    assert all(trial.state == optuna.trial.TrialState.COMPLETE for trial in trials)


def test_two_objectives_give_a_front_of_which_nobody_is_surpassed(tmp_path):
    done = run(
        tmp_path, "-m", *SEARCH, "baseline=false", "trainer.max_epochs=2", "hydra.sweeper.params=null",
        "student.hidden=[4],[16],[64]", "optimizer.lr=tag(log,interval(0.001,0.1))",
        "hydra.sweeper.objectives=[monitor,min:student.parameters]", "hydra.sweeper.n_trials=6", "hydra.sweeper.batch=6",
        "hydra.sweeper.study_name=sizes",
    )  # fmt: skip
    assert done.code == 0, done.text
    assert "Pareto front (monitor, student.parameters)" in done.text
    best = {tuple(trial.values) for trial in study(tmp_path / "sweep", "sizes").best_trials}
    (page,) = payload(collect(tmp_path / "sweep"))["studies"]
    assert len(page["front"]["rows"]) == len(best) > 1
    assert page["front"]["columns"][1:] == ["validation accuracy", "parameters"]
    assert "Pareto front" in write_report(tmp_path / "sweep").read_text()
    assert json.loads((tmp_path / "sweep" / "sweep.json").read_text())["objectives"][1]["maximize"] is False
