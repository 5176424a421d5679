"""What ``open_run(...).predict`` answers is what the run's own test loader leads to."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from processes import run

import kd_lightning as kd
from kd_lightning.data.digits import DigitsData
from kd_lightning.data.image_folder import ImageFolderData
from kd_lightning.errors import UserError
from kd_lightning.running.predict_inputs import GivenInputs
from kd_lightning.task_parts import TaskParts

QUICK = ("teacher=none", "method=none", "trainer.max_epochs=1", "trainer.accelerator=cpu", "pictures.every_n_epochs=0",
         "data.num_threads=1")  # fmt: skip
FOLDER = {"train_dir": None, "image_size": 16, "resize": 20, "batch_size": 8}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with pictures, and two finished runs: ``digits`` and ``folder``."""
    folder = tmp_path_factory.mktemp("predict")
    for label, name in enumerate(("cats", "dogs")):
        (folder / "pictures" / name).mkdir(parents=True)
        for k in range(20):
            noise = np.random.RandomState(k).randint(0, 99, (40, 48 + k, 3)) + 150 * label
            Image.fromarray(noise.astype(np.uint8)).save(
                folder / "pictures" / name / f"{k:03}.{'png' if k % 2 else 'jpg'}"
            )
    for name, words in {
        "digits": ("student=mlp", "student.hidden=[16]"),
        "folder": ("data=image_folder", "data.root=pictures", "data.train_dir=null", "data.image_size=16",
                   "data.resize=20", "data.batch_size=8", "student=small_cnn"),
    }.items():  # fmt: skip
        ended = run(folder, *words, *QUICK, f"run_dir={name}")
        assert ended.code == 0, ended.text
    return folder


def first_test_batch(data) -> torch.Tensor:
    loader = data.test_dataloader()
    inputs = next(iter(loader)).inputs.clone()
    loader.close()
    return inputs


def read(opened, paths) -> torch.Tensor:
    return torch.stack([sample.read() for sample in GivenInputs(opened, paths)])


@torch.no_grad()
def probabilities(opened, inputs: torch.Tensor) -> torch.Tensor:
    return opened.student(inputs).softmax(1)


def test_pictures_of_the_test_split_become_the_test_loaders_inputs_to_the_last_bit(place):
    opened = kd.open_run(place / "folder")
    data = ImageFolderData(str(place / "pictures"), **FOLDER)
    inputs = first_test_batch(data)
    made = read(opened, data.build_test().files)
    assert torch.equal(made, inputs)
    assert torch.allclose(opened.predict(made), probabilities(opened, inputs), atol=1e-6)


def test_digits_as_picture_files_and_as_bytes_become_the_test_loaders_inputs_to_the_last_bit(place, tmp_path):
    opened = kd.open_run(place / "digits")
    inputs = first_test_batch(DigitsData())[:40]
    pixels = DigitsData().test_data()[0][:40]
    files = []
    for k, picture in enumerate(pixels):
        files.append(str(tmp_path / f"{k:03}.png"))
        white_is_255 = (picture[0].float() * 255 / 16).round().to(torch.uint8)
        Image.fromarray(white_is_255.numpy()).save(files[-1])
    assert torch.equal(read(opened, files), inputs)
    assert torch.equal(opened.preprocessing(pixels), inputs)
    wanted = probabilities(opened, inputs)
    assert torch.allclose(opened.predict(pixels), wanted, atol=1e-6)
    assert torch.allclose(opened.predict(pixels.numpy(), batch_size=7), wanted, atol=1e-6)
    assert torch.allclose(opened.predict(inputs.double()), wanted, atol=1e-6)


def test_a_colour_picture_is_grey_for_a_run_of_one_channel_and_of_its_size(place, tmp_path):
    given = GivenInputs(kd.open_run(place / "digits"), [str(place / "pictures" / "cats" / "001.png")])
    assert not given.notes
    assert next(iter(given)).read().shape == (1, 8, 8)
    assert "resized to 8 x 8" in given.notes[0]


def test_an_array_of_raw_pixels_that_are_no_bytes_is_told(place, tmp_path):
    opened = kd.open_run(place / "digits")
    raw = np.random.default_rng(0).integers(0, 17, (5, 1, 8, 8)).astype(np.uint8)
    inputs = opened.preprocessing(torch.from_numpy(raw)).numpy()
    told = {}
    for name, values in {"bytes": raw, "normalised": inputs, "shares": raw / 16, "wide": raw.astype(np.int64)}.items():
        np.save(tmp_path / f"{name}.npy", values)
        given = GivenInputs(opened, [str(tmp_path / f"{name}.npy")])
        assert len(list(given)) == 5
        told[name] = given.notes
    assert told["bytes"] == told["normalised"] == []
    assert "numbers from 0 to 1 were taken as normalised inputs, which go from about -0.81 to 1.8" in told["shares"][0]
    assert "numbers from 0 to 16 were taken as normalised inputs" in told["wide"][0]


def test_predict_neither_trains_nor_follows_gradients(place):
    opened = kd.open_run(place / "digits")
    opened.student.train()
    answer = opened.predict(opened.example_inputs(3))
    assert not opened.student.training
    assert not answer.requires_grad
    assert torch.allclose(answer.sum(1), torch.ones(3))


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        (
            torch.zeros(1, 8, 8),
            "the run's inputs are N x 1 x 8 x 8, got 1 x 8 x 8; a single sample needs a dimension more",
        ),
        (torch.zeros(2, 1, 9, 9), "the run's inputs are N x 1 x 8 x 8, got 2 x 1 x 9 x 9"),
        (torch.full((1, 1, 8, 8), 255, dtype=torch.uint8), "raw pixels go up to 16, got bytes up to 255"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "pixels are (N, 1, H, W) in this run, got 1 x 3 x 8 x 8"),
        (torch.zeros(0, 1, 8, 8), "one or more samples"),
    ],
)
def test_inputs_of_another_form_are_told_with_the_runs(place, inputs, told):
    with pytest.raises(UserError) as caught:
        kd.open_run(place / "digits").predict(inputs)
    assert told in str(caught.value)


class SaysNothing(TaskParts):
    name = "own"


def changed(run_dir: Path, to: Path, data: dict | None = None, **fields: object) -> Path:
    shutil.copytree(run_dir, to)
    result = json.loads((to / "result.json").read_text())
    result |= {**fields, "data": {**result["data"], **(data or {})}}
    (to / "result.json").write_text(json.dumps(result))
    return to


@pytest.mark.parametrize("unknown", [{"mean": None, "std": None}, {"reading": None}])
def test_pictures_are_refused_where_the_run_does_not_say_how_they_were_made(place, tmp_path, unknown):
    opened = kd.open_run(changed(place / "digits", tmp_path / "run", unknown))
    with pytest.raises(UserError, match=r"does not say how pictures become its inputs .*use kd\.open_run"):
        GivenInputs(opened, [str(place / "pictures")])


def test_bytes_are_refused_where_the_run_does_not_say_how_it_normalised(place, tmp_path):
    opened = kd.open_run(changed(place / "digits", tmp_path / "run", {"mean": None, "std": None, "scale": None}))
    with pytest.raises(UserError, match="give inputs as your data set makes them"):
        opened.predict(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))


def test_a_task_that_says_nothing_of_its_outputs_answers_them_as_they_are(place):
    opened = replace(kd.open_run(place / "digits"), problem=SaysNothing())
    inputs = torch.randn(5, 1, 8, 8)
    with torch.no_grad():
        assert torch.allclose(opened.predict(inputs), opened.student(inputs), atol=1e-6)
