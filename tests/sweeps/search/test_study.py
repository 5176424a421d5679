"""What a search refuses, and how trials of several processes share a study."""

from __future__ import annotations

import optuna
import pytest
from filelock import FileLock
from omegaconf import OmegaConf
from optuna.distributions import FloatDistribution
from optuna.pruners import HyperbandPruner, MedianPruner

from kd_lightning.errors import UserError
from kd_lightning.sweeps.search.judge import TrialJudge
from kd_lightning.sweeps.search.search import Trials
from kd_lightning.sweeps.search.space import Space
from kd_lightning.sweeps.search.study import Objective, objectives_of, pruner_of, storage_of

SPACE = Space(choices={"optimizer.lr": FloatDistribution(0.1, 1.0)})
OPTIONS = {
    "study_name": "one", "storage": None, "objectives": ["monitor"], "n_trials": 4, "batch": 2, "seed": 0,
    "sampler": "random", "pruner": "none",
}  # fmt: skip


def trials(tmp_path, sweep: str = "a", space: Space = SPACE, **changed: object) -> Trials:
    config = {
        "hydra": {"sweep": {"dir": str(tmp_path / sweep)}},
        "trainer": {"max_epochs": 9},
        "task": {"_target_": "kd_lightning.tasks.classification.ClassificationTask"},
        "dry_run": False,
    }
    return Trials(OmegaConf.create(config), {**OPTIONS, "storage": str(tmp_path / "study"), **changed}, space)


def result(value: float, status: str = "finished") -> dict:
    metrics = {"best/val_acc": value, "test/acc": 0.0}
    return {"status": status, "name": "run", "metrics": metrics, "monitor": {"metric": "acc"}, "student": {"bytes": 7}}


def test_an_objective_is_a_metric_or_a_figure_of_the_result():
    monitor, size = objectives_of(["monitor", "min:student.bytes"], monitor_is_maximized=True)
    assert (monitor.value(result(0.5)), monitor.maximize) == (0.5, True)
    assert (size.value(result(0.5)), size.maximize) == (7.0, False)
    with pytest.raises(UserError, match=r"student\.weight.*there are best/val_acc, student\.parameters"):
        Objective("student.weight", False).value(result(0.5))


@pytest.mark.parametrize(
    ("texts", "said"), [(["max:test/acc"], "test data"), (["student.bytes"], "min:student.bytes or"), ([], "none")]
)
def test_objectives_that_cannot_be_meant_are_one_line(texts, said):
    with pytest.raises(UserError, match=said):
        objectives_of(texts, monitor_is_maximized=True)


def test_pruners_have_short_names_or_are_any_class():
    assert isinstance(pruner_of("hyperband", 30), HyperbandPruner)
    assert isinstance(pruner_of({"_target_": "optuna.pruners.MedianPruner", "n_warmup_steps": 3}, 30), MedianPruner)
    assert pruner_of("none", 30) is None
    with pytest.raises(UserError, match="use median, hyperband, halving, none"):
        pruner_of("medain", 30)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"objectives": ["monitor", "min:student.bytes"]}, "several objectives"),
        ({"objectives": ["min:student.bytes"]}, "not of student.bytes"),
        ({"space": Space(choices=SPACE.choices, seeds=[["seed=0"], ["seed=1"]])}, "one seed"),
    ],
)
def test_nothing_is_pruned_where_no_curve_says_how_good_a_trial_is(tmp_path, changed, said):
    with pytest.raises(UserError, match=said):
        trials(tmp_path, pruner="median", **changed)


def test_a_study_of_another_direction_or_space_is_told(tmp_path):
    first = trials(tmp_path, space=Space(choices={"student": optuna.distributions.CategoricalDistribution(["a", "b"])}))
    first.tell(asked := first.ask(), [result(0.1) for _ in asked])
    with pytest.raises(UserError, match="give another name"):
        trials(tmp_path, objectives=["min:best/val_acc"])
    other = Space(choices={"student": optuna.distributions.CategoricalDistribution(["a", "c"])})
    with pytest.raises(UserError, match="another space"):
        trials(tmp_path, space=other).ask()


def test_a_storage_that_cannot_be_opened_is_one_line():
    with pytest.raises(UserError, match=r"hydra\.sweeper\.storage=nosuchdb"):
        storage_of("nosuchdb://host/base")


def test_two_sweeps_share_a_study_and_count_each_others_trials_while_they_are_held(tmp_path):
    one, two = trials(tmp_path, "a"), trials(tmp_path, "b", seed=1)
    (tmp_path / "a").mkdir()
    with FileLock(tmp_path / "a" / ".lock"):
        mine = one.ask()
        assert len(two.ask()) == 2  # 4 in all, 2 of them under way elsewhere
    assert len(mine) == 2
    assert [trial.number for trial in one.ask()] == [trial.number for trial in mine]  # nobody else computes those


def test_failed_trials_are_made_up_for_by_a_later_start_and_not_by_this_one(tmp_path):
    one = trials(tmp_path, n_trials=2)
    one.tell(asked := one.ask(), [result(0.1, "failed") for _ in asked])
    assert not one.ask()
    assert len(trials(tmp_path, n_trials=2).ask()) == 2


def test_a_trial_of_several_seeds_is_told_their_mean(tmp_path):
    one = trials(tmp_path, batch=1, space=Space(choices=SPACE.choices, seeds=[["seed=0"], ["seed=1"]]))
    one.tell(one.ask(), [result(0.2), result(0.4)])
    assert one.best()[0].values == pytest.approx([0.3])


def test_whoever_falls_behind_the_median_is_stopped_and_nobody_is_judged_twice(tmp_path):
    search = trials(tmp_path, pruner={"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 1}, n_trials=3)
    good, bad = search.ask()
    judge = TrialJudge(**{key: value for key, value in search.judge(good).items() if key != "_target_"})
    for epoch in (1, 2):
        judge.report(epoch, 0.9)
    assert not judge.stop()
    search.tell([good], [result(0.9)])
    judge = TrialJudge(**{key: value for key, value in search.judge(bad).items() if key != "_target_"})
    judge.report(1, 0.1)
    assert judge.stop()
    again = TrialJudge(**{key: value for key, value in search.judge(bad).items() if key != "_target_"})
    again.report(1, 0.95)  # a run that goes on reports an epoch again: what was said stays
    assert again.stop()
    search.tell([bad], [result(0.1, "pruned")])
    assert (
        optuna.load_study(study_name="one", storage=storage_of(str(tmp_path / "study"))).trials[1].state.name
        == "PRUNED"
    )
