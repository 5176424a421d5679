"""Sweep overrides as what a search may choose."""

from __future__ import annotations

import optuna
import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from kd_lightning.cli._hydra_main import config_directory
from kd_lightning.errors import UserError
from kd_lightning.sweeps.search.space import Rounding, Space, rounded, space_of


@pytest.fixture(scope="module")
def loader() -> ConfigLoaderImpl:
    return ConfigLoaderImpl(create_config_search_path(str(config_directory())))


def space(loader, *arguments: str, **params: str) -> Space:
    return space_of(loader, params, arguments)


def test_steps_stop_before_the_end_as_a_range_does(loader):
    choices = space(
        loader, "a=range(1.0,12.0,step=0.5)", "b=range(1,10)", "c=range(1,10,4)", "d=range(0,1,0.25)"
    ).choices
    assert choices["a"] == FloatDistribution(1.0, 11.5, step=0.5)
    assert choices["b"] == IntDistribution(1, 9)
    assert choices["c"] == IntDistribution(1, 9, step=4)
    assert choices["d"] == FloatDistribution(0.0, 0.75, step=0.25)


def test_an_interval_may_be_logarithmic_and_a_list_is_a_choice(loader):
    choices = space(loader, "optimizer.lr=tag(log,interval(0.001,0.5))", "student=mlp,small_cnn").choices
    assert choices["optimizer.lr"] == FloatDistribution(0.001, 0.5, log=True)
    assert choices["student"] == CategoricalDistribution(["mlp", "small_cnn"])


def test_the_command_line_takes_a_key_out_of_the_files_space(loader):
    found = space(
        loader, "method.temperature=4", "optimizer.lr=interval(0.1,0.2)", **{"method.temperature": "range(1,9)"}
    )
    assert list(found.choices) == ["optimizer.lr"]
    assert found.jobs({"optimizer.lr": 0.15}) == [["method.temperature=4", "optimizer.lr=0.15"]]


def test_seeds_are_no_choice_but_repetitions(loader):
    found = space(loader, "student=mlp,small_cnn", "seed=0,1", "data.split_seed=range(0,2)")
    assert list(found.choices) == ["student"]
    jobs = found.jobs({"student": "mlp"})
    assert jobs[0] == ["student=mlp", "seed=0", "data.split_seed=0"]
    assert len(jobs) == 4


@pytest.mark.parametrize(
    ("argument", "said"), [("seed=0,1", "nothing to choose"), ("optimizer.lr=tag(log,interval(0,0.5))", "optimizer.lr")]
)
def test_a_space_that_makes_no_sense_is_one_line(loader, argument, said):
    with pytest.raises(UserError, match=said):
        space(loader, argument)


def test_values_have_four_digits_wherever_they_come_from():
    study = optuna.create_study(sampler=Rounding(optuna.samplers.TPESampler(seed=0, n_startup_trials=2)))
    choices = {"lr": FloatDistribution(1e-5, 0.9, log=True), "size": FloatDistribution(0.123456789, 0.2)}
    for _ in range(6):
        trial = study.ask(choices)
        assert float(f"{trial.params['lr']:.4g}") == trial.params["lr"]
        study.tell(trial, trial.params["lr"])
    assert rounded(0.123412345, FloatDistribution(0.12341, 0.2)) == 0.12341  # never below the lower end
