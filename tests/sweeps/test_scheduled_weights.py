"""A scheduled weight counts as one that is not 0, in a run's role and among its hyperparameters."""

from __future__ import annotations

from kd_lightning.runs.hparams import hyperparameters
from kd_lightning.sweeps.from_hydra import wants_teacher

RAMP = {"_target_": "kd_lightning.schedules.Ramp", "to": 8.0, "epochs": 20}


def config(weight, temperature=4.0):
    terms = {"kd": {"_target_": "kd_lightning.losses.soft_target.SoftTargetLoss", "temperature": temperature}}
    return {
        "method": {
            "_target_": "kd_lightning.method.Method",
            "weights": {"task": 1.0, "kd": weight},
            "temperature": temperature,
            "terms": terms,
        }
    }


def test_a_run_whose_weight_is_raised_from_0_is_distilled_and_not_the_student_alone():
    assert wants_teacher(config(RAMP))
    assert not wants_teacher(config(0.0))


def test_hyperparameters_show_the_schedules_parts_once():
    found = hyperparameters(config(RAMP, RAMP))
    assert found["method"] == "kd"
    assert {
        "method.weights.kd": "Ramp",
        "method.weights.kd.to": 8.0,
        "method.weights.kd.epochs": 20,
    }.items() <= found.items()
    assert found["method.temperature.to"] == 8.0
    assert not any("terms" in key and "temperature" in key for key in found)
