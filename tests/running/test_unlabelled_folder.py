"""A user's journey: a folder of pictures without any label, an encoder from torchvision, a small student, fine-tuning it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from kd_lightning.cli.train import main

pytestmark = pytest.mark.slow

SMALL = (
    "data.image_size=32", "data.resize=36", "data.batch_size=16", "data.val_size=16", "trainer.accelerator=cpu",
    "trainer.max_epochs=1", "pictures.every_n_epochs=1",
)  # fmt: skip
PAGE = Path(__file__).parents[2] / "docs" / "image_folder.md"
SMALLER = {"resnet50": "resnet18", "mobilenet_v3_small": "shufflenet_v2_x0_5", "RUN_DIR": "run"}


def documented(word: str) -> list[str]:
    """The words of the page's command that has this one, with networks that a test has time for."""
    (line,) = [line for line in PAGE.read_text().splitlines() if line.startswith("kd-train ") and word in line]
    for large, small in SMALLER.items():
        line = line.replace(large, small)
    return line.split()[1:]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """80 pictures at three depths, in folders that are no classes, and an encoder's weights beside them."""
    place = tmp_path_factory.mktemp("user")
    random = np.random.default_rng(0)
    for number in range(80):
        folder = place / "photos" / ("", "2024", "2024/summer at the sea")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        pixels[:, :, number % 3] //= 3
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (place / "photos" / "notes.txt").write_text("no picture")
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), place / "resnet18.pt")
    return place


@pytest.fixture(scope="module")
def distilled(photos, request) -> tuple[Path, dict, str]:
    """The journey's first line, run once."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(photos)
        words = [*documented("data.labels=none"), *SMALL]
        words.remove("baseline=false")
        # on a machine with a network: teacher.model.model.weights=DEFAULT, which is the default
        words += ["teacher.checkpoint=resnet18.pt", "teacher.model.model.weights=null", "run_dir=run"]
        capture.read_global_capture()
        code = main(words)
        told = "".join(capture.read_global_capture())
    assert code == 0, told
    return photos, json.loads((photos / "run" / "result.json").read_text()), told


def test_a_folder_without_labels_and_any_two_encoders_are_one_line(distilled):
    _, result, told = distilled
    assert (result["status"], result["task"]) == ("finished", "representation")
    assert result["data"]["samples"] == {"train": 48, "labelled": 0, "val": 16}
    assert result["data"]["class_names"] is None
    assert result["monitor"]["metric"] == "agreement"
    assert 0 < result["metrics"]["test/agreement"] <= 1
    assert "knn" not in str(result["metrics"])  # there is nothing to score against
    assert "1 files left out by suffix (.txt 1)" in told
    assert result["baseline"] is None
    assert (
        "task: representation has no loss of its own, student_alone has nothing to learn from: baseline=false" in told
    )


def test_the_encoder_was_that_of_the_file(distilled):
    _, result, told = distilled
    assert result["teacher"]["checkpoint"] == "resnet18.pt"
    assert "not used: backbone.fc.weight" in told


def test_the_backbone_goes_into_torchvisions_network_by_its_own_names(distilled):
    folder, _, _ = distilled
    state = torch.load(folder / "run" / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    start = "student.backbone."
    weights = {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}
    whole = torchvision.models.shufflenet_v2_x0_5(weights=None)
    missing, unexpected = whole.load_state_dict(weights, strict=False)
    assert (missing, unexpected) == (["fc.weight", "fc.bias"], [])


def test_the_backbone_is_fine_tuned_with_a_new_classifier(distilled, monkeypatch, capsys):
    folder, _, _ = distilled
    monkeypatch.chdir(folder)
    for number, file in enumerate(sorted((folder / "photos").glob("*.png"))):
        place = folder / "sorted" / ("cats", "dogs")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / file.name).write_bytes(file.read_bytes())
    words = [word.replace("data.root=split", "data.root=sorted") for word in documented("init_from=")]
    few = ["data.train_dir=null", "data.val_size=2", "data.batch_size=8"]
    kept = [word for word in SMALL if not word.startswith(("data.val_size", "data.batch_size"))]
    code = main([*words, *kept, *few, "run_dir=tuned"])
    told = capsys.readouterr()
    assert code == 0, told.err
    assert "not in the file: fc." in told.out + told.err
    assert json.loads((folder / "tuned" / "result.json").read_text())["data"]["class_names"] == ["cats", "dogs"]


def test_a_folder_with_train_and_test_keeps_them_apart(distilled, monkeypatch, tmp_path):
    from kd_lightning.data.image_folder import ImageFolderData

    folder, _, _ = distilled
    files = sorted((folder / "photos").rglob("*.png"))
    for number, file in enumerate(files[:20]):
        place = tmp_path / ("train" if number < 15 else "test") / "deep"
        place.mkdir(parents=True, exist_ok=True)
        (place / file.name).write_bytes(file.read_bytes())
    data = ImageFolderData(str(tmp_path), labels="none", image_size=8, resize=8, val_size=3, batch_size=4)
    data.setup("fit")
    assert (data.train_samples, data.val_samples, len(data.build_test())) == (12, 3, 5)
    for path in (tmp_path / "test" / "deep").iterdir():
        path.unlink()
    (tmp_path / "test" / "deep").rmdir()
    (tmp_path / "test").rmdir()
    alone = ImageFolderData(str(tmp_path), labels="none", image_size=8, resize=8, val_size=3, batch_size=4)
    alone.setup("fit")
    assert (alone.train_samples, alone.val_samples, len(alone.build_test())) == (9, 3, 3)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["data.root=nowhere"], "data.root: there is no directory nowhere: set it to one that holds images"),
        (["data.labels=some"], "data.labels: must be one of"),
    ],
)
def test_what_is_wrong_with_a_folder_is_one_line(words, says, photos, monkeypatch, capfd):
    monkeypatch.chdir(photos)
    given = {word.partition("=")[0] for word in words}
    kept = [word for word in documented("data.labels=none") if word.partition("=")[0] not in given]
    assert main([*kept, *SMALL, *words]) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert says in errors[0]
