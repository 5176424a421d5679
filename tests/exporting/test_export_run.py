"""A finished run's student leaves as files that answer as the checkpoint does; what does not is not kept."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from processes import run
from torch import nn

import kd_lightning as kd
from kd_lightning.errors import UserError
from kd_lightning.models.mlp import MLP

PAGE = Path(__file__).parents[2] / "docs" / "export.md"
QUICK = ("teacher=none", "method=none", "trainer.max_epochs=1", "trainer.accelerator=cpu", "pictures.every_n_epochs=0")

EXPORTERS = """
from my_forms import Npz


class Coarse(Npz):
    def open(self, path, model):
        opened = super().open(path, model)
        return lambda inputs: opened(inputs) + 0.01


class NoNumber(Npz):
    def open(self, path, model):
        return lambda inputs: model(inputs) * float("nan")


class OneAtATime(Npz):
    def open(self, path, model):
        return lambda inputs: super(OneAtATime, self).open(path, model)(inputs[:1])


class Breaks(Npz):
    def write(self, model, example, path):
        path.write_bytes(b"half")
        raise RuntimeError("out of luck\\nand more lines")


class Scatters(Npz):
    def write(self, model, example, path):
        super().write(model, example, path)
        path.with_name("weights.bin").write_bytes(b"0")


class Unfit:
    suffix = ".bin"
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A finished run of digits, a plain MLP."""
    folder = tmp_path_factory.mktemp("export")
    ended = run(folder, "student.hidden=[16]", *QUICK, "run_dir=run")
    assert ended.code == 0, ended.text
    return folder / "run"


@pytest.fixture
def run_dir(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def exporters(tmp_path, monkeypatch):
    """A user's own file of exporters, and the one that docs/export.md shows."""
    shown = PAGE.read_text().partition("# my_forms.py\n")[2].partition("```")[0]
    (tmp_path / "my_forms.py").write_text(shown)
    (tmp_path / "export_forms.py").write_text(EXPORTERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    for name in ("export_forms", "my_forms"):
        sys.modules.pop(name, None)


def content(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def refused(run_dir: Path, *formats: str, **settings: object) -> str:
    """The error's one line; nothing in the run's directory may have changed."""
    before = content(run_dir)
    with pytest.raises(UserError) as caught:
        kd.export(run_dir, formats, **settings)
    assert "\n" not in str(caught.value)
    assert content(run_dir) == before
    return str(caught.value)


def test_torch_export_answers_as_the_checkpoint_for_any_number_of_samples(run_dir):
    exported = kd.export(run_dir, ["torch_export"])
    figures = exported.report["files"]["student.pt2"]
    assert figures["largest_difference"] <= 1e-4
    assert figures["equal_decisions"] == 1
    assert figures["metrics"] == pytest.approx(exported.report["checkpoint"]["metrics"])
    assert set(figures["latency_ms"]) == {"1", "32"}
    assert figures["bytes"] == (run_dir / "export" / "student.pt2").stat().st_size
    opened = torch.export.load(run_dir / "export" / "student.pt2").module()
    for samples in (1, 7):
        assert opened(torch.zeros(samples, 1, 8, 8)).shape == (samples, 10)
    assert "student.pt2" in str(exported)
    assert exported.report == json.loads((run_dir / "export" / "export.json").read_text())
    tested = json.loads((run_dir / "result.json").read_text())["metrics"]["test/acc"]
    assert exported.report["checkpoint"]["metrics"]["acc"] == pytest.approx(tested)


def test_safetensors_go_into_the_plain_model_class(run_dir):
    load_file = pytest.importorskip("safetensors.torch").load_file
    kd.export(run_dir, ["safetensors"])
    student = MLP(in_features=64, num_classes=10, hidden=[16])
    student.load_state_dict(load_file(run_dir / "export" / "student.safetensors"))
    opened = kd.open_run(run_dir)
    inputs = torch.randn(5, *opened.example_shape)
    assert torch.equal(student.eval()(inputs), opened.student(inputs))


def test_the_card_and_the_preprocessing_say_what_the_student_is(run_dir):
    kd.export(run_dir, ["torch_export"])
    known = json.loads((run_dir / "export" / "preprocessing.json").read_text())
    assert (known["shape"], known["dtype"], known["scale"]) == ([1, 8, 8], "float32", 16.0)
    assert known["class_names"] == [str(digit) for digit in range(10)]
    assert known["inputs"] == {"student.pt2": "normalised"}
    _, metadata, text = (run_dir / "export" / "README.md").read_text().split("---\n", 2)
    said = yaml.safe_load(metadata)
    accuracy = json.loads((run_dir / "result.json").read_text())["metrics"]["test/acc"]
    assert said["pipeline_tag"] == "image-classification"
    assert said["model-index"][0]["results"][0]["metrics"][0]["value"] == pytest.approx(accuracy)
    assert "kd-train 'student.hidden=[16]'" in text
    assert "student.pt2" in text


def test_onnx_runs_without_torch_on_raw_pixels(run_dir):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    kd.export(run_dir, ["onnx"], preprocess=True)
    opened = kd.open_run(run_dir)
    pixels = torch.randint(0, 17, (9, *opened.example_shape), dtype=torch.uint8)
    np.save(run_dir / "pixels.npy", pixels.numpy())
    code = (
        "import sys, numpy, onnxruntime\n"
        "session = onnxruntime.InferenceSession('export/student.onnx', providers=['CPUExecutionProvider'])\n"
        "(logits,) = session.run(None, {'inputs': numpy.load('pixels.npy')})\n"
        "assert 'torch' not in sys.modules and 'kd_lightning' not in sys.modules\n"
        "numpy.save('logits.npy', logits)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=run_dir, check=True)
    with torch.no_grad():
        expected = opened.student(opened.preprocessing(pixels)).numpy()
    np.testing.assert_allclose(np.load(run_dir / "logits.npy"), expected, atol=1e-4)
    assert json.loads((run_dir / "export" / "preprocessing.json").read_text())["inputs"] == {"student.onnx": "uint8"}


def test_a_users_own_exporter_is_one_class_and_what_was_exported_before_stays_in_the_report(run_dir, exporters):
    kd.export(run_dir, ["torch_export"])
    exported = kd.export(run_dir, ["my_forms.Npz"])
    assert exported.files == (run_dir / "export" / "student.npz",)
    assert set(exported.report["files"]) == {"student.pt2", "student.npz"}
    assert exported.report["files"]["student.npz"]["largest_difference"] == 0
    assert set(np.load(run_dir / "export" / "student.npz").files) == set(kd.open_run(run_dir).student.state_dict())


def test_an_export_that_is_not_equal_changes_nothing(run_dir, exporters):
    kd.export(run_dir, ["my_forms.Npz"])
    assert "differ from the checkpoint's by up to 0.01, beyond" in refused(run_dir, "export_forms.Coarse")
    assert "by up to nan" in refused(run_dir, "torch_export", "export_forms.NoNumber")
    assert "answers in the shape (1, 10)" in refused(run_dir, "export_forms.OneAtATime")
    assert "MLP cannot be written: RuntimeError: out of luck" in refused(run_dir, "export_forms.Breaks")
    assert "wrote more than one file (weights.bin)" in refused(run_dir, "export_forms.Scatters")
    shutil.rmtree(run_dir / "export")
    refused(run_dir, "export_forms.Breaks")
    assert not (run_dir / "export").exists()


def test_a_student_that_cannot_be_traced_is_one_line(run_dir, monkeypatch):
    def branching(self: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        return inputs.flatten(1)[:, :10] if inputs.sum() > 0 else inputs.flatten(1)[:, 10:20]

    monkeypatch.setattr(MLP, "forward", branching)
    text = refused(run_dir, "torch_export")
    assert text.startswith("format=torch_export: MLP cannot be written: ")
    assert text.endswith("format=safetensors needs no graph")


@pytest.mark.parametrize(
    ("formats", "text"),
    [
        (["onx"], "format=onx: no such form of export; did you mean 'onnx'?"),
        ([], "names no form of export"),
        (["export_forms.Nothing"], "export_forms has no 'Nothing'"),
        (["export_forms.Unfit"], "a Unfit is no exporter"),
        (
            ["my_forms.Npz", "export_forms.Coarse"],
            "writes a file with the suffix .npz, and so does my_forms.Npz",
        ),
    ],
)
def test_a_form_that_is_none_is_told(run_dir, exporters, formats, text):
    assert text in refused(run_dir, *formats)


@pytest.mark.parametrize("form", ["onnx", "safetensors"])
def test_a_missing_package_is_told_with_the_command_that_installs_it(run_dir, monkeypatch, form):
    monkeypatch.setitem(sys.modules, form, None)
    text = refused(run_dir, form)
    assert text.startswith(f"format={form}: {form}")
    assert text.endswith('is not installed: pip install "kd-lightning[export]"')


def test_what_cannot_be_exported_is_told(run_dir, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds no result.json" in refused(tmp_path / "empty", "torch_export")
    assert f"is no run, it holds 1: give one of them, {run_dir}" in refused(tmp_path, "torch_export")
    result = json.loads((run_dir / "result.json").read_text())
    (run_dir / "result.json").write_text(json.dumps({**result, "data": {**result["data"], "mean": None}}))
    assert "did not say how they normalise" in refused(run_dir, "torch_export", preprocess=True)
    (run_dir / "result.json").write_text(json.dumps({**result, "status": "interrupted"}))
    assert "the run is interrupted" in refused(run_dir, "torch_export")


def test_a_place_that_cannot_be_written_is_told_and_a_full_disk_leaves_what_was_there(run_dir, monkeypatch):
    kd.export(run_dir, ["torch_export"])

    def full(self: Path, text: str, **_: object) -> int:
        raise OSError(28, "No space left on device", str(self))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        assert "No space left on device" in refused(run_dir, "torch_export")

    def full_copy(self: object, model: object, example: object, path: Path) -> None:
        raise OSError(28, "No space left on device", "/scratch/whole.onnx", None, str(path))

    with monkeypatch.context() as patched:
        patched.setattr("kd_lightning.exporting.torch_export_file.TorchExportExporter.write", full_copy)
        assert refused(run_dir, "torch_export").startswith(f"export: {run_dir / 'export'}")
    shutil.rmtree(run_dir / "export")
    (run_dir / "export").write_text("in the way")
    assert "File exists" in refused(run_dir, "torch_export")


@pytest.mark.slow
def test_what_the_pages_tab_for_python_says_runs(trained, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    shutil.copytree(trained, tmp_path / "outputs" / "first")
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"^    ```python\n(.*?)^    ```$", PAGE.read_text(), re.M | re.S)
    exec(compile(textwrap.dedent(block), str(PAGE), "exec"), {})
    assert "largest difference" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "outputs/first/export").glob("*.onnx")} == {
        "student.onnx", "student.fp16.onnx", "student.int8.onnx",
    }  # fmt: skip
