"""``launcher.devices=2``: a sweep's runs in two processes at a time, with the results of one."""

from __future__ import annotations

import pytest
from processes import SMALL, results, run, weights

from kd_lightning.errors import UserError
from kd_lightning.running.executors.devices import _places, number_of_devices

SWEEP = ("-m", *SMALL, "method.temperature=1,2,4", "baseline=false")


@pytest.mark.parametrize("wanted", [0, -1, "two", True, None])
def test_a_number_of_devices_is_a_number_or_all(wanted):
    with pytest.raises(UserError, match="give a number of devices, or all"):
        number_of_devices(wanted)


def test_each_process_has_as_many_devices_as_one_run_wants(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,6,7")
    assert _places(4, 1) == ["3", "5", "6", "7"]
    assert _places(4, 2) == ["3,5", "6,7"]
    assert _places(3, 2) == ["3,5"]
    with pytest.raises(UserError, match=r"trainer\.devices=8"):
        _places(4, 8)


@pytest.mark.slow
def test_two_processes_share_a_sweep_and_find_what_one_finds(tmp_path):
    alone = run(tmp_path, *SWEEP, "sweep_dir=one")
    assert alone.code == 0, alone.text
    spread = run(tmp_path, *SWEEP, "sweep_dir=two", "launcher.devices=2", timeout=600)
    assert spread.code == 0, spread.text
    assert "on device 0" in spread.text
    assert "on device 1" in spread.text
    one, two = results(tmp_path / "one"), results(tmp_path / "two")
    assert len(two) == 3
    for name, result in two.items():
        assert result["metrics"] == one[name]["metrics"]
        assert weights(tmp_path / "two" / name) == weights(tmp_path / "one" / name)
    assert {result["cost"]["fused"] for result in two.values()} == {1, 2}
