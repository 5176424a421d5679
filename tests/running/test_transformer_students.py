"""A vision transformer learns by methods that were made for maps."""

from __future__ import annotations

import json

import pytest

from kd_lightning.cli.train import main

QUICK = (
    *(
        "student=small_vit",
        "student.width=8",
        "student.depth=1",
        "student.heads=2",
        "student.patch=2",
        "teacher=small_cnn",
    ),
    *("teacher.model.channels=[4,8]", "teacher.model.hidden=8", "teacher.train.max_epochs=1", "trainer.max_epochs=1"),
    *("baseline=false", "pictures.every_n_epochs=0", "trainer.accelerator=cpu", "run_dir=run", "data.num_threads=1"),
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_its_attention_can_be_differentiated_twice(tmp_path, capfd):
    code = main([*QUICK, "method=lwm", "method.taps.student.maps=patches"])
    assert code == 0, capfd.readouterr().err
    assert json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]["test/acc"] > 0


@pytest.mark.slow
def test_its_tokens_are_a_map(tmp_path, capfd):
    code = main([*QUICK, "method=cwd", "method.taps.student.hint=blocks.0:map"])
    assert code == 0, capfd.readouterr().err
    assert json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]["test/acc"] > 0


def test_chosen_taps_take_its_tokens_where_these_do_and_convolutions_where_not(capfd):
    for method, tap in (("cwd", "student.hint=blocks:map"), ("lwm", "student.maps=patches")):
        assert main([*QUICK, f"method={method}", "method.taps=auto", "dry_run=true"]) == 0
        assert tap in capfd.readouterr().out


@pytest.mark.parametrize(
    ("method", "tap", "told"),
    [("cwd", "hint=blocks.0", "LAYER:map"), ("lwm", "maps=blocks.0:map", "not tokens as a map")],
)
def test_what_does_not_do_is_told_with_what_does(method, tap, told, capfd):
    assert main([*QUICK, f"method={method}", f"method.taps.student.{tap}"]) == 2
    assert told in capfd.readouterr().err
