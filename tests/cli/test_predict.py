"""``kd-predict``: rows for files, lines for what is wrong with them, exit codes."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from processes import run

import kd_lightning as kd
from kd_lightning.cli.predict import main

MINE = """
import torch
from torch import nn
from torch.utils.data import TensorDataset
from torchmetrics import MeanSquaredError

from kd_lightning.tasks.collection import CollectionTask

def values():
    made = torch.randn(80, 4, generator=torch.Generator().manual_seed(0))
    return TensorDataset(made, made[:, :2] * 3)

class Task(CollectionTask):
    def __init__(self):
        super().__init__("regression", nn.MSELoss(), {"mse": MeanSquaredError()}, monitor="mse")
"""
QUICK = ("teacher=none", "method=none", "trainer.max_epochs=1", "trainer.accelerator=cpu", "pictures.every_n_epochs=0",
         "data.num_threads=1", "student=mlp", "student.hidden=[8]")  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with ``digits`` and ``table``, two finished runs, and pictures in ``pictures``."""
    folder = tmp_path_factory.mktemp("kd_predict")
    (folder / "predict_mine.py").write_text(MINE)
    (folder / "mine" / "task").mkdir(parents=True)
    (folder / "mine" / "task" / "regression.yaml").write_text("_target_: predict_mine.Task\n")
    (folder / "pictures" / "more").mkdir(parents=True)
    for name in ("b.png", "a.PNG", "more/c.png"):
        noise = np.random.RandomState(len(name)).randint(0, 255, (8, 8))
        Image.fromarray(noise.astype(np.uint8)).save(folder / "pictures" / name)
    (folder / "pictures" / "notes.txt").write_text("no picture")
    table = ("--config-dir", "mine", "task=regression", "data=dataset", "data.train._target_=predict_mine.values",
             "data.batch_size=16")  # fmt: skip
    for name, words in {"outputs/digits": (), "table": table}.items():
        ended = run(folder, *words, *QUICK, f"run_dir={name}")
        assert ended.code == 0, ended.text
    return folder


@pytest.fixture
def said(place, monkeypatch, capsys):
    """Runs the command in the folder: exit code, stdout, stderr."""
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))

    def command(*words: str) -> tuple[int, str, str]:
        code = main(list(words))
        out, err = capsys.readouterr()
        return code, out, err

    return command


def test_a_folders_pictures_are_rows_in_sorted_order(said):
    code, out, err = said("outputs/digits", "pictures")
    rows = list(csv.DictReader(out.splitlines()))
    assert (code, err) == (0, "")
    assert [row["input"] for row in rows] == ["pictures/a.PNG", "pictures/b.png", "pictures/more/c.png"]
    opened = kd.open_run("outputs/digits")
    pixels = torch.from_numpy(np.array(Image.open("pictures/a.PNG"))).float().mul(16 / 255).round().to(torch.uint8)
    wanted = opened.predict(pixels[None, None])[0]
    assert rows[0]["class"] == str(int(wanted.argmax()))
    assert float(rows[0]["probability"]) == pytest.approx(float(wanted.max()), abs=2e-6)
    assert float(rows[0]["probability_3"]) == pytest.approx(float(wanted.sort(descending=True).values[2]), abs=2e-6)


def test_json_lines_go_to_a_file_with_as_many_classes_as_asked(said, tmp_path):
    code, out, _ = said("latest", "pictures/b.png", f"output={tmp_path / 'rows.jsonl'}", "top=2", "batch_size=1")
    row = json.loads((tmp_path / "rows.jsonl").read_text())
    assert (code, out) == (0, "")
    assert row["input"] == "pictures/b.png"
    assert row["top"][0] == {"class": row["class"], "probability": row["probability"]}
    assert len(row["top"]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_damaged_files_are_named_and_left_out_and_the_others_written(said, tmp_path):
    whole = Path("pictures/b.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no picture")
    code, out, err = said("outputs/digits", str(tmp_path), "pictures/b.png")
    assert code == 1
    assert [row["input"] for row in csv.DictReader(out.splitlines())] == ["pictures/b.png"]
    assert [line.split(" is ")[0] for line in err.splitlines()] == [
        f"skipped: {tmp_path / name}" for name in ("cut.png", "text.png")
    ]
    assert "data.on_bad_image" not in err


def test_a_tables_rows_and_an_arrays_are_inputs_and_a_regressions_outputs_are_columns(said, tmp_path):
    (tmp_path / "a.csv").write_text("w,x,y,z\n1,2,3,4\n\n-1,0.5,2e-1,0\n1,2,3\n1,2,x,4\n1,2,nan,4\n")
    np.save(tmp_path / "b.npy", np.array([[1, 2, 3, 4]]))
    code, out, err = said("table", str(tmp_path / "a.csv"), str(tmp_path / "b.npy"))
    rows = list(csv.DictReader(out.splitlines()))
    wanted = kd.open_run("table").predict(torch.tensor([[1, 2, 3, 4], [-1, 0.5, 0.2, 0]]))
    names = [f"{tmp_path}/a.csv:2", f"{tmp_path}/a.csv:4", f"{tmp_path}/b.npy:0"]
    assert [row["input"] for row in rows] == names
    for row, values in zip(rows, wanted[[0, 1, 0]], strict=True):
        assert [float(row[f"output_{k}"]) for k in range(2)] == pytest.approx(values.tolist(), abs=1e-6)
    assert code == 1
    assert [line.removeprefix(f"skipped: {tmp_path}/") for line in err.splitlines()] == [
        "a.csv:5 has 3 columns, the run's inputs have 4",
        "a.csv:6 has 'x', which is no finite number",
        "a.csv:7 has 'nan', which is no finite number",
    ]


def test_a_sample_of_an_array_that_is_not_finite_is_named_and_left_out(said, tmp_path):
    values = np.ones((3, 4), dtype=np.float32)
    values[1, 2] = np.nan
    np.save(tmp_path / "a.npy", values)
    code, out, err = said("table", str(tmp_path / "a.npy"))
    assert [row["input"] for row in csv.DictReader(out.splitlines())] == [f"{tmp_path}/a.npy:0", f"{tmp_path}/a.npy:2"]
    assert err == f"skipped: {tmp_path}/a.npy:1 holds values that are no finite numbers\n"
    assert code == 1


def test_an_array_of_bytes_is_raw_pixels(said, tmp_path):
    pixels = np.arange(2 * 64, dtype=np.uint8).reshape(2, 1, 8, 8) % 17
    np.save(tmp_path / "raw.npy", pixels)
    np.save(tmp_path / "wrong.npy", pixels[:, :, :4])
    code, out, err = said("outputs/digits", str(tmp_path / "raw.npy"), str(tmp_path / "wrong.npy"), "top=1")
    wanted = kd.open_run("outputs/digits").predict(torch.from_numpy(pixels))
    assert code == 1
    assert [row["class"] for row in csv.DictReader(out.splitlines())] == [str(int(k)) for k in wanted.argmax(1)]
    assert (
        err == f"skipped: {tmp_path}/wrong.npy holds 2 x 1 x 4 x 8 uint8, the run's inputs are N x 1 x 8 x 8 numbers\n"
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "give a run's directory and at least one input"),
        (("outputs/digits",), "give a run's directory and at least one input"),
        (("mine", "pictures"), "mine: holds no result.json"),
        (("outputs/digits", "nowhere.png"), "nowhere.png: there is no such file or folder"),
        (("outputs/digits", "mine"), "mine: no pictures in this folder or below it"),
        (("outputs/digits", "pictures", "tpo=3"), "unknown option 'tpo'; did you mean 'top'?"),
        (("outputs/digits", "pictures", "--top"), "unknown option '--top'"),
        (("outputs/digits", "pictures", "top=0"), "top must be >= 1, got 0"),
        (("outputs/digits", "pictures", "batch_size=x"), "batch_size must be a whole number, got 'x'"),
        (("outputs/digits", "pictures", "format=xml"), "format must be csv or json, got 'xml'"),
        (("outputs/digits", "pictures", "output=no/such/rows.csv"), "output=no/such/rows.csv cannot be written"),
        (("table", "pictures"), "table does not say how pictures become its inputs"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(said, words, told):
    code, out, err = said(*words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert told in err
    assert err.count("\n") == 1


def test_help_answers_without_loading_torch():
    code = (
        "import sys\nfrom kd_lightning.cli.predict import main\n"
        "try:\n    main(['--help'])\nfinally:\n    assert not {'torch', 'numpy', 'pytorch_lightning'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "batch_size=64" in done.stdout
