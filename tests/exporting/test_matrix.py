"""docs/export_matrix.md: every shipped family stands there, and what it says of some of them is so."""

from __future__ import annotations

import re

import matrix
import pytest

pytest.importorskip("safetensors")
PAGE = matrix.PAGE.read_text().split(matrix.OF_TASKS)[0]
LINES = [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("|")]
COLUMNS = [cell.strip() for cell in LINES[0]]
STATED = {
    re.match(r"\s*`([^`]+)`", line[0])[1]: dict(zip(COLUMNS[1:], (cell.strip() for cell in line[1:]), strict=True))
    for line in LINES[2:]
}


def test_the_page_has_every_family_and_every_student_of_pictures_that_ships():
    assert set(STATED) == set(matrix.FAMILIES)
    told = " ".join(matrix.FAMILIES.values())
    shipped = {path.stem for path in (matrix.ROOT / "conf" / "student").glob("*.yaml")}
    families = {
        name for name in shipped if re.match(r"resnet\d|wrn|vgg|mobilenet|shufflenet|small_cnn|small_vit|mlp", name)
    }
    spans = {"resnet": "resnet8 to resnet110", "wrn": "wrn_16_1 to wrn_40_2", "vgg": "vgg8 to vgg19"}
    lost = [n for n in families if n not in told and not any(n.startswith(k) and v in told for k, v in spans.items())]
    assert lost == []


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mlp", "shufflenet_v2", "torchvision:vit_b_16", "timm:mobilenetv3_small_050"])
def test_what_the_page_says_is_so(family):
    package = family.rpartition(":")[0]
    if package:
        pytest.importorskip(package, reason=f"{package} is not installed: pip install {package}")
    (row,) = matrix.rows([family], ["safetensors", "torchscript"], ["fp32", "fp16"])
    assert {key: row[key] for key in row if key != "family"} == {
        key: STATED[family][key] for key in row if key != "family"
    }


def test_a_form_that_does_not_answer_alike_is_told(monkeypatch):
    from kd_lightning.exporting.safetensors_file import SafetensorsExporter

    monkeypatch.setattr(SafetensorsExporter, "open", lambda self, path, model: model)  # weights that were zeroed
    (row,) = matrix.rows(["mlp"], ["safetensors"], ["fp32"])
    assert row["safetensors fp32"].startswith("differs by")
