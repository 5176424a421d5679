"""``kd-predict`` of a segmentation: masks of the pictures' sizes, from a run and from its ONNX file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import kd_lightning as kd
from kd_lightning.cli.predict import main as predict
from kd_lightning.cli.train import main
from kd_lightning.data.image_masks import ImageMaskFiles
from kd_lightning.data.mask_values import read_mask
from kd_lightning.running.whole_pictures import classes_of, squares_of

WORDS = (
    "task=segmentation", "data=image_masks", "data.root=photos", "data.image_size=32", "data.val_size=4", "data.batch_size=8",
    "data.class_names=[sky,tree,road]", "teacher=none", "method=none", "student=small_lraspp", "student.channels=[8,8]",
    "trainer.max_epochs=1", "trainer.accelerator=cpu", "pictures.every_n_epochs=0", "data.num_threads=1", "run_dir=run",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A finished run on pictures of 32 x 40 pixels, and further pictures of other sizes."""
    folder = tmp_path_factory.mktemp("masks")
    for name in ("photos/images", "photos/masks", "new/far"):
        (folder / name).mkdir(parents=True)
    for number in range(24):
        random = np.random.default_rng(number)
        classes = np.kron(random.integers(0, 3, (4, 5)), np.ones((8, 8))).astype(np.uint8)
        picture = Image.fromarray(np.stack([80 * classes, 255 - 80 * classes, classes], -1))
        picture.save(folder / f"photos/images/{number}.png")
        Image.fromarray(classes).save(folder / f"photos/masks/{number}.png")
    picture.crop((0, 0, 32, 32)).save(folder / "new/square.png")
    picture.resize((150, 61)).save(folder / "new/far/wide.jpg")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(list(WORDS)) == 0
    return folder


@pytest.fixture
def said(place, monkeypatch, capfd):
    monkeypatch.chdir(place)

    def command(*words: str) -> tuple[int, str]:
        code = predict(list(words))
        return code, "".join(capfd.readouterr())

    return command


@pytest.mark.slow
def test_a_mask_has_its_pictures_size_and_says_what_its_numbers_mean(said):
    code, told = said("run", "new", "output=masks", "overlay=true")
    assert (code, told) == (0, "2 masks in masks; what their numbers mean: classes.json there\n")
    with Image.open("masks/far/wide.png") as mask, Image.open("masks/overlays/far/wide.png") as overlay:
        assert (mask.mode, mask.size) == ("P", (150, 61))
        assert (overlay.mode, overlay.size) == ("RGB", (150, 61))
        colours = np.array(mask.convert("RGB"))
    listed = json.loads(Path("masks/classes.json").read_text())["classes"]
    assert [(one["number"], one["name"]) for one in listed] == [(0, "sky"), (1, "tree"), (2, "road")]
    numbers = read_mask("masks/far/wide.png")  # as a mask to train on
    assert (colours == np.array([one["colour"] for one in listed])[numbers]).all()


@pytest.mark.slow
def test_a_picture_of_the_runs_size_is_what_evaluation_saw(said):
    data = ImageMaskFiles("photos", image_size=32)
    run = kd.open_run("run")
    for number in range(3):
        name = Path(data.pairs[number][0])
        with Image.open(name) as picture:
            picture.crop((4, 0, 36, 32)).save(f"middle_{name.stem}.png")
        squares, _ = squares_of(np.array(Image.open(f"middle_{name.stem}.png")), 3, 32, 1.0)
        torch.testing.assert_close(run.preprocessing(squares)[0], data[number][0])
        assert said("run", f"middle_{name.stem}.png", "output=same")[0] == 0
        probabilities = run.predict(data[number][0][None])
        assert torch.allclose(probabilities.sum(1), torch.ones(1, 32, 32))
        assert (read_mask(f"same/middle_{name.stem}.png") == probabilities[0].argmax(0).numpy()).all()


def test_pieces_cover_a_picture_and_are_put_together_where_they_were():
    picture = np.random.default_rng(0).integers(0, 256, (40, 130, 3)).astype(np.uint8)
    squares, places = squares_of(picture, 1, 40, 255.0)
    assert [left for _, left in places] == [0, 30, 60, 90]
    classes = torch.arange(40 * 130).reshape(40, 130) * 7 % 3
    answers = torch.stack([
        torch.nn.functional.one_hot(classes[:, left : left + 40], 3).permute(2, 0, 1).float() for _, left in places
    ])  # fmt: skip
    assert torch.equal(classes_of(answers, places, (40, 130)), classes)
    assert classes_of(answers, places, (80, 260)).shape == (80, 260)
    grey = torch.from_numpy(np.array(Image.fromarray(picture).convert("L"))).float()
    assert torch.equal(squares[1, 0], grey[:, 30:70])


@pytest.mark.slow
def test_an_array_gets_masks_by_number(said):
    np.save("some.npy", np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32))
    assert said("run", "some.npy", "output=of_array")[0] == 0
    expected = kd.open_run("run").predict(np.load("some.npy")).argmax(1).numpy()
    assert all((read_mask(f"of_array/some/{k}.png") == expected[k]).all() for k in (0, 1))


@pytest.mark.slow
def test_the_exported_file_gives_the_same_masks(said):
    pytest.importorskip("onnxruntime")
    kd.export("run", ["onnx"])
    assert said("run", "new", "output=by_run")[0] == 0
    assert said("run/export/student.onnx", "new", "output=by_file")[0] == 0
    for name in ("square.png", "far/wide.png"):
        assert (read_mask(f"by_run/{name}") != read_mask(f"by_file/{name}")).mean() < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("new",), "the run answers with masks: say into which folder, output=FOLDER"),
        (("new", "output=masks", "top=2"), "top=2: is for rows"),
        (("new", "output=masks", "overlay=maybe"), "overlay must be true or false, got 'maybe'"),
        (("new/square.png", "output=new"), "its mask would take its place"),
        (("new/square.png", "new", "output=masks"), "masks of both would be called square"),
        (("new", "output=new/square.png"), "is a file; masks go into a folder"),
    ],
)
def test_what_cannot_be_is_one_line(words, told, said):
    code, text = said("run", *words)
    assert code == 2
    assert text.startswith("error: ")
    assert told in text
    assert text.count("\n") == 1


@pytest.mark.slow
def test_a_picture_that_cannot_be_read_is_named_and_left_out(said):
    Path("bad.jpg").write_bytes(b"no picture")
    code, text = said("run", "bad.jpg", "new/square.png", "output=some")
    assert code == 1
    assert "skipped: bad.jpg" in text
    assert "1 mask in some" in text
