"""kd-evaluate on other data than the run's says so, and compares nothing; a directory that is no run names those in it."""

from __future__ import annotations

import pytest

import kd_lightning as kd
from kd_lightning.config.fingerprint import config_fingerprint
from kd_lightning.errors import UserError
from kd_lightning.running.evaluate import _other_data, evaluate_run, say_evaluation


def test_another_file_is_other_data_and_a_copy_of_the_same_is_not(tmp_path):
    one, other, copy = (tmp_path / name for name in ("one.csv", "other.csv", "copy.csv"))
    for path, text in ((one, "a,b\n1,2\n"), (other, "a,b\n100,200\n"), (copy, "a,b\n1,2\n")):
        path.write_text(text)
    config = {"data": {"file": str(one), "test_size": 0.2, "batch_size": 32, "eval_batch_size": 128}, "seed": 0}
    result = {"config": config, "configuration": config_fingerprint(config)}

    def others(**changes: object) -> list[str]:
        return _other_data(result, {**config, "data": {**config["data"], **changes}})

    assert others(file=str(other)) == [f"data.file={other}"]
    assert others(test_size=0.5) == ["data.test_size=0.5"]
    assert others() == others(file=str(copy)) == others(eval_batch_size=64) == others(batch_size=64) == []


def test_figures_of_other_data_are_not_called_equal(capsys):
    assert say_evaluation({"test/acc": 0.5}, {"test/acc": 0.5}, other_data=True) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("figures of other data than the run's")


@pytest.mark.parametrize("opened", [evaluate_run, kd.open_run])
def test_the_directory_of_a_sweep_names_some_of_its_runs(tmp_path, opened):
    for k in range(5):
        (tmp_path / f"kd_s{k}").mkdir()
        (tmp_path / f"kd_s{k}" / "result.json").write_text("{}")
    with pytest.raises(UserError, match=r"is no run, it holds 5: give one of them, \S+kd_s0, .*and 2 more"):
        opened(tmp_path)
