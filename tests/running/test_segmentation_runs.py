"""Masks distilled from end to end, on a folder of pictures and masks and on scenes."""

from __future__ import annotations

import json

import made_up_data
import numpy as np
import pytest
from PIL import Image

from kd_lightning.cli.predict import main as predict
from kd_lightning.cli.train import main

QUICK = (
    "teacher.train.max_epochs=1", "trainer.max_epochs=2", "trainer.accelerator=cpu", "baseline=false", "run_dir=run",
)  # fmt: skip
SMALL = ("teacher=small_lraspp", "teacher.model.channels=[8,8]", "student=small_lraspp", "student.channels=[4,4]")


@pytest.fixture
def kd_train(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[dict, str]:
        code = main([*words, *QUICK])
        told = "".join(capfd.readouterr())
        assert code == 0, told
        return json.loads((tmp_path / "run" / "result.json").read_text()), told

    return run


@pytest.fixture
def folder(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / "photos" / name).mkdir(parents=True)
    for number in range(30):
        random = np.random.default_rng(number)
        classes = np.kron(random.integers(0, 3, (4, 5)), np.ones((8, 8))).astype(np.uint8)
        Image.fromarray(np.stack([80 * classes, 255 - 80 * classes, classes], -1)).save(
            tmp_path / f"photos/images/{number}.jpg"
        )
        Image.fromarray(classes).save(tmp_path / f"photos/masks/{number}.png")
    return "photos"


@pytest.mark.parametrize("method", ["kd", "cwd_logits", pytest.param("crosskd", marks=pytest.mark.slow)])
def test_a_folder_of_pictures_and_masks(method, folder, kd_train, tmp_path):
    data = ["data=image_masks", f"data.root={folder}", "data.image_size=32", "data.val_size=4", "data.batch_size=4"]
    result, told = kd_train("task=segmentation", *data, *SMALL, f"method={method}")
    assert (result["task"], result["monitor"]) == ("segmentation", {"metric": "miou", "mode": "max"})
    assert 0 < result["metrics"]["test/miou"] <= 1
    assert {"test/miou", "test/pixel_acc", "val/miou"} <= result["teacher"].keys()
    assert "3 classes, labels of 32 x 32 0 to 2" in told


def test_a_method_for_one_answer_a_picture_is_refused_in_a_line(folder, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    data = ["data=image_masks", f"data.root={folder}", "data.image_size=32", "data.val_size=4", "data.batch_size=4"]
    assert main(["task=segmentation", *data, *SMALL, "method=dkd", *QUICK]) == 2
    told = capfd.readouterr().err
    assert "method=kd" in told.splitlines()[-1]
    assert "Error: " not in told


def test_torchvisions_networks_for_masks(folder, kd_train):
    torchvision = "torchvision.models.segmentation.lraspp_mobilenet_v3_large"
    data = ["data=image_masks", f"data.root={folder}", "data.image_size=32", "data.val_size=4", "data.batch_size=4"]
    teacher = ["teacher=deeplabv3", f"teacher.model._target_={torchvision}", "teacher.model.weights_backbone=null"]
    result, _ = kd_train(
        "task=segmentation", *data, *teacher, "student=lraspp", "method=kd", "+trainer.limit_train_batches=1"
    )
    assert result["metrics"]["test/agreement"] > 0


def test_answers_for_every_pixel_are_stored_and_read(kd_train, tmp_path, capfd):
    made_up_data.write_fashion_mnist(tmp_path / "data")
    scenes = ["data=fashion_scenes", "data.root=data", "data.existing=[]", "data.scenes=40", "data.test_scenes=8"]
    few = ["data.val_size=8", "data.batch_size=8", "data.canvas=32", "data.most_items=2"]
    result, told = kd_train("task=segmentation", *scenes, *few, *SMALL, "method=kd")
    assert "teacher cache: reading 1 view of 32 samples" in told
    assert result["teacher"]["cache"].startswith("reading")
    Image.new("L", (32, 32)).save(tmp_path / "a.png")
    assert predict(["run", "a.png", "output=masks.csv"]) == 2
    assert "the run answers with masks, not with rows of values: name a folder" in capfd.readouterr().err
    assert not (tmp_path / "masks.csv").exists()
