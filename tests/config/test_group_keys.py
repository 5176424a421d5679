"""In which keys runs that train side by side may differ: every one that decides a result, said here a second time.

A key that is missing in one of the two would train runs together that do not see the same batches or the same teacher, or
apart without need.
"""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from kd_lightning.config.keys import KEYS, find
from kd_lightning.runs.spec import RunSpec

OWN = {
    "baseline",
    "compile",
    "continue_from",
    "dry_run",
    "early_stopping",
    "failures",
    "hydra",
    "init_from",
    "launcher",
    "logger",
    "max_fused",
    "method",
    "name",
    "optimizer",
    "paths",
    "note",
    "pictures",
    "report",
    "preset",
    "run_dir",
    "scheduler",
    "seed",
    "student",
    "sweep",
    "sweep_dir",
}
"""A student, how it is taught and optimized, what is shown of it and where it goes; all else is the group's."""

CONFIG = {
    "seed": 0,
    "compile": False,
    "channels_last": False,
    "stacked": None,
    "log_every_n_steps": 10,
    "pictures": {"every_n_epochs": 5, "samples": 6},
    "data": {"batch_size": 64, "num_threads": 2, "seed": 0},
    "task": {"_target_": "x.Classification"},
    "student": {"_target_": "x.MLP", "hidden": [32]},
    "teacher": {"model": {"_target_": "x.CNN"}, "precision": "32", "cache": "auto"},
    "method": {"temperature": 4.0, "weights": {"task": 0.1, "kd": 0.9}},
    "optimizer": {"lr": 0.1},
    "trainer": {"max_epochs": 3, "accelerator": "auto"},
}


def group_key(**changes: object) -> str:
    config = copy.deepcopy(CONFIG)
    for key, value in changes.items():
        *parents, last = key.split("__")
        node = config
        for parent in parents:
            node = node[parent]
        node[last] = value
    return RunSpec("run", Path("run"), config, "").group_key


@pytest.mark.parametrize("key", sorted(KEYS))
def test_the_table_says_what_is_said_here(key):
    if key == "paths.cache_dir":  # one directory of stored answers serves a group
        assert not KEYS[key].own
    elif key.partition(".")[0] in OWN:
        assert find(key).own
    else:
        assert not (find(key).own and find(key).decides), f"{key}: runs of a group would differ in what is the group's"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 1),
        ("student__hidden", [64]),
        ("method__temperature", 2.0),
        ("method__weights__kd", 0.5),
        ("optimizer__lr", 0.2),
        ("pictures__samples", 1),
        ("compile", True),
    ],
)
def test_runs_that_differ_in_this_train_side_by_side(key, value):
    assert group_key(**{key: value}) == group_key()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data__seed", 1),
        ("data__batch_size", 32),
        ("data__num_threads", 1),
        ("task", {"_target_": "x.Regression"}),
        ("teacher__precision", "bf16"),
        ("teacher__cache", "off"),
        ("trainer__max_epochs", 4),
        ("log_every_n_steps", 1),
        ("channels_last", True),
        ("stacked", True),
    ],
)
def test_runs_that_differ_in_this_do_not(key, value):
    assert group_key(**{key: value}) != group_key()
