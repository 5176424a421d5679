"""How many processes train a run, and that their number, not their place, is part of what the run is."""

from __future__ import annotations

import pytest

from kd_lightning.cli.train import main
from kd_lightning.config.processes import devices_of, one_process, processes_of
from kd_lightning.config.replicates import deciding


@pytest.mark.parametrize(
    ("devices", "number"), [(1, 1), (4, 4), ("2", 2), ([0, 3], 2), ("0,2", 2), ("1,", 1), (None, 1), ("auto", 1)]
)
def test_devices_are_a_number_or_are_counted(devices, number):
    assert devices_of(devices) == number
    assert processes_of({"devices": devices, "num_nodes": 2}) == 2 * number


def test_a_teacher_is_trained_in_one_process_on_the_first_device():
    assert one_process({"devices": [2, 3], "strategy": "ddp", "max_epochs": 3}) == {"devices": [2], "max_epochs": 3}
    assert one_process({"devices": 4, "num_nodes": 2}) == {"devices": 1}


def test_the_number_of_processes_decides_a_result_and_which_they_are_does_not():
    def decided(**trainer):
        return deciding({"trainer": {"max_epochs": 3, **trainer}})

    assert decided(devices=2) == decided(devices=[0, 1]) == decided(num_nodes=2, strategy="ddp")
    assert decided(devices=2) != decided(devices=1)
    assert decided(devices=1, num_nodes=1, strategy="auto") == decided(devices=[3]) == decided()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainer.devices=auto", "say how many"),
        ("trainer.devices=-1", "say how many"),
        ("trainer.strategy=deepspeed", "a student is small: take ddp, or fsdp for a large teacher"),
        ("trainer.strategy=dp", "must be one of auto, ddp, fsdp"),
    ],
)
def test_what_no_run_is_trained_by_is_told_at_once(override, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([override]) == 2
    assert said in capsys.readouterr().err
