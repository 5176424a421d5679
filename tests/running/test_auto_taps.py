"""``method.taps=auto``: pairs of layers by depth and resolution, told in a line and kept with the run."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

import pytest
import yaml
from processes import SMALL

from kd_lightning.cli.train import main
from kd_lightning.data.digits import DigitsData
from kd_lightning.running import auto_taps
from kd_lightning.runs.spec import RunSpec

METHODS = Path(__file__).resolve().parents[2] / "conf" / "method"
MAPS = [
    "student=small_cnn",
    "student.channels=[4,8]",
    "baseline=false",
    "method.taps=auto",
    "run_dir=run",
    "teacher=small_cnn",
]


def test_maps_are_paired_by_size_and_the_choice_is_kept_with_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        main(
            [
                *[word for word in SMALL if not word.startswith(("teacher.model", "student"))],
                *MAPS,
                "method=attention",
                "teacher.model.hidden=32",
            ]
        )
        == 0
    )
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    taps = result["config"]["method"]["taps"]
    assert list(taps["student"].values()) == list(taps["teacher"].values()) == ["blocks.1.2", "blocks"]


def filled_in(method: str) -> dict:
    node = {"_target_": "kd_lightning.models.small_cnn.SmallCNN", "in_channels": 1, "image_size": 8, "hidden": 8}
    config = {
        "student": {**node, "channels": [4, 8]},
        "teacher": {"model": {**node, "channels": [4, 8]}},
        "task": {"_target_": "kd_lightning.tasks.classification.ClassificationTask"},
        "method": {**yaml.safe_load((METHODS / f"{method}.yaml").read_text()), "taps": "auto"},
    }
    (spec,) = auto_taps.with_taps([RunSpec("run", Path("run"), config, "f" * 64)], DigitsData())
    return spec.config["method"]


@pytest.mark.parametrize(
    ("method", "taps"),
    [
        ("irg", {"first": "blocks.1.2", "second": "blocks", "vector": "hidden"}),
        ("cat_kd", {"maps": "blocks"}),
        ("crosskd", {"hint": "blocks"}),
    ],
)
def test_every_tap_of_a_method_is_filled_in(method, taps):
    assert filled_in(method)["taps"] == {"student": taps, "teacher": taps}


@pytest.mark.parametrize(("method", "term"), [("crosskd", "cross"), ("lwm", "class_map")])
def test_a_term_that_names_the_teachers_layer_beside_its_tap_gets_the_chosen_one(method, term):
    found = filled_in(method)
    assert found["terms"][term]["layer"] == next(iter(found["taps"]["teacher"].values())) == "blocks"


def test_too_few_pairs_are_told(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    words = [*SMALL, "student=mlp", "baseline=false", "method=review", "method.taps=auto", "run_dir=run"]
    assert main(words) == 2
    assert "method.taps=auto: method.terms.review needs 3 pairs of layers" in capfd.readouterr().err


def test_a_method_that_looks_at_no_layers_is_told_so(caplog):
    spec = RunSpec("run", Path("run"), {"method": {"taps": "auto", "terms": {}}}, "f" * 64)
    with caplog.at_level("INFO"), patch.object(auto_taps, "chosen_taps", return_value={"student": {}, "teacher": {}}):
        auto_taps.with_taps([spec], None)
    assert caplog.messages == ["method.taps=auto: the method looks at no layers"]
