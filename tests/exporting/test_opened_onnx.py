"""``kd-predict FILE.onnx``: an exported file answers as its run does, from its folder alone; a file that is none is one line."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import run

import kd_lightning as kd
from kd_lightning.errors import UserError
from kd_lightning.exporting.opened_onnx import open_onnx

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def exported(convolutional, tmp_path_factory) -> Path:
    """Folders ``floats`` and ``bytes`` with an exported file each, and a run beside them."""
    folder = tmp_path_factory.mktemp("onnx")
    for name, preprocess in (("floats", False), ("bytes", True)):
        run_dir = shutil.copytree(convolutional, folder / "runs" / name)
        kd.export(run_dir, ["onnx"], preprocess=preprocess)
        shutil.copytree(run_dir / "export", folder / name)
    return folder


@pytest.mark.parametrize("form", ["floats", "bytes"])
def test_it_answers_as_the_run_does_for_pixels_and_for_inputs(exported, form):
    opened, whole = open_onnx(exported / form / "student.onnx"), kd.open_run(exported / "runs" / form)
    pixels = torch.randint(0, 17, (5, 1, 8, 8), dtype=torch.uint8)
    torch.testing.assert_close(opened.predict(pixels), whole.predict(pixels), atol=1e-5, rtol=0)
    inputs = whole.preprocessing(pixels)
    torch.testing.assert_close(opened.predict(inputs, batch_size=2), whole.predict(inputs), atol=1e-5, rtol=0)
    assert opened.class_names == whole.class_names


def test_the_command_takes_a_file_in_place_of_a_run(exported, tmp_path):
    np.save(tmp_path / "d.npy", np.full((2, 1, 8, 8), 9, np.uint8))
    of_file = run(tmp_path, str(exported / "bytes" / "student.onnx"), "d.npy", "top=1", program="predict")
    assert of_file.code == 0, of_file.text
    rows = list(csv.DictReader(io.StringIO(of_file.text)))
    expected = kd.open_run(exported / "runs" / "bytes").predict(torch.full((1, 1, 8, 8), 9, dtype=torch.uint8))[0]
    assert [row["class"] for row in rows] == [str(int(expected.argmax()))] * 2
    assert float(rows[0]["probability"]) == pytest.approx(float(expected.max()), abs=1e-4)


HOSTILE = {
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:3000]),
    "empty": lambda file: file.write_bytes(b""),
    "a text": lambda file: file.write_text("hello"),
    "a pickle that would run code": lambda file: file.write_bytes(b"cos\nsystem\n(S'touch ran'\ntR."),
    "nothing beside it": lambda file: file.with_name("preprocessing.json").unlink(),
    "damaged JSON beside it": lambda file: file.with_name("preprocessing.json").write_text("{"),
    "other JSON beside it": lambda file: file.with_name("preprocessing.json").write_text("[1]"),
    "not there": lambda file: file.unlink(),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_file_that_is_none_is_one_line_and_nothing_is_run(kind, exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path(shutil.copytree(exported / "floats", tmp_path / "export"))
    HOSTILE[kind](folder / "student.onnx")
    with pytest.raises(UserError, match=r"student\.onnx|preprocessing\.json") as told:
        open_onnx(folder / "student.onnx")
    assert "\n" not in str(told.value)
    assert not (tmp_path / "ran").exists()


def test_a_graph_of_other_inputs_than_its_folder_says_is_one_line(exported, tmp_path):
    folder = Path(shutil.copytree(exported / "floats", tmp_path / "export"))
    beside = folder / "preprocessing.json"
    beside.write_text(beside.read_text().replace('"shape": [\n    1,\n    8,\n    8\n  ]', '"shape": [1, 9, 9]'))
    with pytest.raises(UserError, match=r"does not answer for \(2, 1, 9, 9\)") as told:
        open_onnx(folder / "student.onnx").predict(torch.zeros(2, 1, 9, 9))
    assert "\n" not in str(told.value)


def test_a_file_of_another_run_beside_this_ones_words_is_warned_of(exported, tmp_path, recwarn):
    open_onnx(exported / "floats" / "student.onnx")
    assert not [str(w.message) for w in recwarn if "was written with" in str(w.message)]
    shutil.copy(exported / "bytes" / "student.onnx", tmp_path)
    shutil.copy(exported / "floats" / "preprocessing.json", tmp_path)
    with pytest.warns(
        UserWarning, match=r"student\.onnx: is not the file that preprocessing\.json beside it was written with"
    ):
        open_onnx(tmp_path / "student.onnx")
