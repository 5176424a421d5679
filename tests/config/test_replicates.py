"""Which runs are repetitions of one configuration, as the configurations say."""

from __future__ import annotations

import copy

import pytest

from kd_lightning.config.replicates import seeds_of, seeds_of_result, setting_of, setting_of_result

CONFIG = {
    "seed": 0,
    "name": "digits",
    "run_dir": "a",
    "data": {
        "_target_": "x.Digits",
        "seed": 0,
        "split_seed": 0,
        "num_threads": 2,
        "eval_batch_size": 8,
        "noise_seed": 1,
    },
    "student": {"_target_": "x.Net", "blocks": 2, "seeds": 3},
    "method": {"temperature": 4.0, "weights": {"kd": 0.9}},
    "teacher": {"train": {"seed": 0}, "cache_top_k": None},
    "trainer": {"max_epochs": 1, "limit_train_batches": 1},
}


def changed(key: str, value) -> dict:
    config = copy.deepcopy(CONFIG)
    *parents, last = key.split(".")
    node = config
    for parent in parents:
        node = node[parent]
    node[last] = value
    return config


@pytest.mark.parametrize("key", ["seed", "data.seed", "data.split_seed", "data.noise_seed", "teacher.train.seed"])
def test_seeds_make_repetitions(key):
    assert setting_of(changed(key, 7)) == setting_of(CONFIG)
    assert seeds_of(changed(key, 7)) != seeds_of(CONFIG)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("trainer.max_epochs", 2),
        ("trainer.limit_train_batches", 1.0),
        ("student.blocks", 3),
        ("student.seeds", 4),
        ("student._target_", "x.Nets1"),
        ("method.temperature", 2),
        ("teacher.cache_top_k", 5),
    ],
)
def test_whatever_else_decides_makes_another_configuration(key, value):
    assert setting_of(changed(key, value)) != setting_of(CONFIG)
    assert seeds_of(changed(key, value)) == seeds_of(CONFIG)


@pytest.mark.parametrize(
    ("key", "value"),
    [("name", "x"), ("run_dir", "b"), ("data.num_threads", 1), ("data.eval_batch_size", 9), ("method.temperature", 4)],
)
def test_what_does_not_decide_changes_neither(key, value):
    assert setting_of(changed(key, value)) == setting_of(CONFIG)
    assert seeds_of(changed(key, value)) == seeds_of(CONFIG)


def test_other_code_is_another_configuration():
    assert setting_of(CONFIG, {"my_l.py": "a"}) != setting_of(CONFIG, {"my_l.py": "b"})
    assert setting_of(CONFIG, {}) == setting_of(CONFIG)


def test_a_result_names_its_setting_and_an_older_one_has_its_configurations():
    assert setting_of_result({"setting": "abc", "config": CONFIG}) == "abc"
    assert setting_of_result({"config": CONFIG}) == setting_of(CONFIG)
    assert seeds_of_result({"config": CONFIG}) == seeds_of(CONFIG)
    assert seeds_of_result({"seed": 3}) == (("seed", "3"),)


def test_a_dot_in_a_key_is_no_level():
    assert setting_of({"student": {"a.b": 1}}) != setting_of({"student": {"a": {"b": 1}}})
