"""The fingerprint of a configuration: the same for the same computation, another for any other."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from kd_lightning.config.fingerprint import config_fingerprint, teacher_fingerprint
from kd_lightning.teachers.recipe import own_run

CONFIG = {
    "name": "digits",
    "seed": 0,
    "run_dir": "outputs/a",
    "max_fused": None,
    "baseline": True,
    "log_every_n_steps": 10,
    "pictures": {"every_n_epochs": 5, "samples": 6},
    "paths": {"data_dir": "data"},
    "data": {"_target_": "x.Digits", "root": "data", "download": True, "batch_size": 64, "num_threads": 2, "seed": 0},
    "task": {"_target_": "x.Classification"},
    "student": {"_target_": "x.MLP", "hidden": [32]},
    "teacher": {
        "name": "cnn",
        "model": {"_target_": "x.CNN", "channels": [32, 64]},
        "checkpoint": None,
        "train": {"max_epochs": 5, "seed": 0, "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.05}},
        "data": {},
        "precision": "32",
        "cache": "auto",
    },
    "method": {"temperature": 4.0, "weights": {"task": 0.1, "kd": 0.9}},
    "trainer": {"max_epochs": 3, "accelerator": "auto"},
}


def changed(key: str, value) -> dict:
    config = copy.deepcopy(CONFIG)
    *parents, last = key.split(".")
    node = config
    for parent in parents:
        node = node[parent]
    node[last] = value
    return config


def test_it_is_the_same_in_every_process_and_version_of_python():
    code = "import json, sys; from kd_lightning.config.fingerprint import config_fingerprint as f"
    elsewhere = subprocess.run(
        [sys.executable, "-c", f"{code}; print(f(json.load(sys.stdin)))"],
        input=json.dumps(dict(reversed(CONFIG.items()))),
        env={"PYTHONHASHSEED": "7", "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert elsewhere.stdout.strip() == config_fingerprint(CONFIG)
    # computed with Python 3.11; a change of this value makes every finished run of every user run again
    assert config_fingerprint(CONFIG) == "ba711f23103bff199c976c5a901d3ff9322c72b964e249135c87bbd5143e68a0"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("method.temperature", 4),
        ("name", "other"),
        ("run_dir", "elsewhere"),
        ("baseline", False),
        ("max_fused", 3),
        ("log_every_n_steps", 1),
        ("pictures.samples", 1),
        ("paths.data_dir", "/mnt"),
        ("data.root", "/mnt"),
        ("data.num_threads", 8),
        ("data.eval_batch_size", 8),
        ("teacher.data", {"num_threads": 1}),
        ("teacher.name", "big"),
        ("teacher.cache", "off"),
        ("trainer.accelerator", "gpu"),
    ],
)
def test_what_does_not_change_the_result_does_not_change_it(key, value):
    assert config_fingerprint(changed(key, value)) == config_fingerprint(CONFIG)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 1),
        ("method.temperature", 4.5),
        ("method.weights.kd", 0.90001),
        ("student.hidden", [33]),
        ("student.hidden", "[32]"),
        ("data.batch_size", 32),
        ("trainer.max_epochs", 4),
        ("teacher.train.seed", 1),
        ("teacher.precision", "bf16"),
        ("task._target_", "x.Regression"),
        ("teacher.cache_top_k", 5),
        ("teacher.data", {"batch_size": 8}),
    ],
)
def test_what_changes_the_result_changes_it(key, value):
    assert config_fingerprint(changed(key, value)) != config_fingerprint(CONFIG)


def test_the_folder_of_ones_own_pictures_counts():
    own, other = copy.deepcopy(CONFIG), copy.deepcopy(CONFIG)
    for config, root in ((own, "cats"), (other, "dogs")):
        del config["data"]["download"]
        config["data"]["root"] = root
    assert config_fingerprint(own) != config_fingerprint(other)


def test_a_composed_config_and_its_plain_form_agree():
    plain = changed("data.seed", "${seed}")
    plain["run_dir"] = "${hydra:runtime.output_dir}"  # unknown outside of a job, and not looked at
    assert config_fingerprint(OmegaConf.create(plain)) == config_fingerprint(CONFIG)


def of_teacher(config: dict, data: str = "abc") -> str:
    return teacher_fingerprint(own_run(config, {}), data)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 1),
        ("method.temperature", 2),
        ("student.hidden", [1]),
        ("teacher.cache", "off"),
        ("trainer.max_epochs", 9),
    ],
)
def test_a_teacher_does_not_depend_on_its_student(key, value):
    assert of_teacher(changed(key, value)) == of_teacher(CONFIG)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("teacher.train.seed", 1),
        ("teacher.train.optimizer.lr", 0.1),
        ("teacher.model.channels", [32, 65]),
        ("teacher.data", {"train_size": 100}),
        ("data.batch_size", 32),
    ],
)
def test_a_teacher_depends_on_all_that_made_it(key, value):
    assert of_teacher(changed(key, value)) != of_teacher(CONFIG)


def test_other_data_make_another_teacher():
    assert of_teacher(CONFIG, "abc") != of_teacher(CONFIG, "abd")


@pytest.mark.parametrize("key", ["teacher.checkpoint", "teacher.init", "teacher.file"])
def test_a_file_that_a_teacher_is_made_of_counts_by_content_not_by_place(tmp_path, key):
    for name, content in (("a.ckpt", b"1"), ("b.ckpt", b"1"), ("c.ckpt", b"2")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (config_fingerprint(changed(key, str(tmp_path / f"{n}.ckpt"))) for n in "abc")
    assert a == b != c


def nested(where: str, key: str, value) -> dict:
    """The configuration with a teacher within the teacher, in which one key is changed."""
    inner = copy.deepcopy(CONFIG["teacher"])
    inner[key] = value
    config = copy.deepcopy(CONFIG)
    if where == "members":
        config["teacher"] = {"_target_": "x.Ensemble", "name": "both", "members": {"a": inner}}
    else:
        config["teacher"]["train"] |= {"teacher": inner, "method": {"_target_": "x.Method"}}
    return config


@pytest.mark.parametrize("where", ["members", "train"])
@pytest.mark.parametrize(
    ("key", "value", "same"), [("name", "net", True), ("cache", "off", True), ("precision", 2, False)]
)
def test_what_a_teacher_within_a_teacher_is_called_decides_nothing(where, key, value, same):
    before = nested(where, key, CONFIG["teacher"][key])
    assert (config_fingerprint(nested(where, key, value)) == config_fingerprint(before)) is same


def test_an_argument_of_a_model_may_be_called_like_a_key_of_every_teacher():
    one, other = (changed("teacher.model", {"_target_": "x.Net", "name": name}) for name in ("small", "large"))
    assert config_fingerprint(one) != config_fingerprint(other)


def test_a_run_as_teacher_counts_by_its_best_weights_not_by_its_place(tmp_path):
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        (tmp_path / name / "checkpoints" / "best.ckpt").write_bytes(content)
    a, b, c = (config_fingerprint(changed("teacher.checkpoint", str(tmp_path / n))) for n in "abc")
    assert a == b != c
