"""``zoo:NAME``: students that ship, opened and asked without a download, a data set or a further package."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from processes import run

import kd_lightning as kd
from kd_lightning.errors import UserError
from kd_lightning.runs.plain_safetensors import read_safetensors
from kd_lightning.runs.zoo import FOLDER, WEIGHTS, zoo_names


@pytest.mark.parametrize("name", zoo_names())
def test_each_student_opens_without_the_package_of_its_format(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    opened = kd.open_run(f"zoo:{name}")
    assert len(opened.predict(opened.example_inputs(3))) == 3
    assert (FOLDER / name / WEIGHTS).stat().st_size < 200_000
    text = (FOLDER / name / "result.json").read_text()
    assert "/tmp" not in text
    assert "hostname" not in text


def test_the_digits_student_is_as_good_as_its_result_says():
    from kd_lightning.data.digits import DigitsData

    opened = kd.open_run("zoo:digits_mlp")
    pixels, target = DigitsData().test_data()
    accuracy = (opened.predict(pixels.to(torch.uint8)).argmax(1) == target).float().mean().item()
    assert accuracy == pytest.approx(opened.metrics["test/acc"], abs=1e-6)


def test_a_picture_is_predicted_by_the_command(tmp_path):
    from PIL import Image
    from sklearn.datasets import load_digits

    for number in (3, 6):
        pixels = (load_digits().images[number] * 255 / 16).astype("uint8")
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    ended = run(tmp_path, "zoo:digits_mlp", "3.png", "6.png", "top=1", "format=json", program="predict")
    assert ended.code == 0, ended.text
    assert [json.loads(line)["class"] for line in ended.text.splitlines()] == ["3", "6"]


def test_a_drawn_pair_of_trousers_is_one_at_any_size(tmp_path):
    import numpy as np
    from PIL import Image

    drawn = np.zeros((28, 28), np.uint8)
    drawn[2:26, 9:13] = drawn[2:26, 15:19] = drawn[2:8, 9:19] = 200
    Image.fromarray(drawn).save(tmp_path / "small.png")
    Image.fromarray(drawn).resize((280, 280)).convert("RGB").save(tmp_path / "large.jpg")
    ended = run(tmp_path, "zoo:fashion_mnist_cnn", "small.png", "large.jpg", "top=1", "format=json", program="predict")
    assert ended.code == 0, ended.text
    assert [json.loads(line)["class"] for line in ended.text.splitlines() if line[0] == "{"] == ["trouser"] * 2


def test_an_unknown_name_is_told_with_what_there_is():
    with pytest.raises(UserError, match="zoo:digit_mlp: no such student in the zoo; did you mean 'digits_mlp'"):
        kd.open_run("zoo:digit_mlp")


def test_the_page_lists_every_student_with_its_own_figures():
    text = (FOLDER.parents[1] / "docs" / "zoo.md").read_text()
    assert zoo_names()
    assert all(f"| `{name}` |" in text for name in zoo_names())


def test_weights_read_without_the_package_are_those_that_it_reads(tmp_path):
    save_file = pytest.importorskip("safetensors.torch").save_file
    given = {
        "a": torch.randn(3, 4),
        "b": torch.arange(5),
        "c": torch.tensor(True),
        "d": torch.randn(2).half(),
        "e": torch.zeros(0, 2),
    }
    save_file(given, tmp_path / "w.safetensors")
    read = read_safetensors(tmp_path / "w.safetensors")
    assert {name: (value.dtype, value.tolist()) for name, value in read.items()} == {
        name: (value.dtype, value.tolist()) for name, value in given.items()
    }
    content = (tmp_path / "w.safetensors").read_bytes()
    for cut in (0, 5, 40, len(content) - 1):
        (tmp_path / "cut.safetensors").write_bytes(content[:cut])
        with pytest.raises(ValueError, match=r"cut off|safetensors"):
            read_safetensors(tmp_path / "cut.safetensors")
