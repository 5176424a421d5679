"""Half precision and eight bits: what is lost is measured and told, and too much is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import warnings

import numpy as np
import pytest
import torch

import kd_lightning as kd
from kd_lightning.errors import UserError
from kd_lightning.exporting import precision
from kd_lightning.exporting.precision import forms

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def lowered(convolutional, tmp_path_factory):
    """All forms in all precisions, of one run."""
    run_dir = shutil.copytree(convolutional, tmp_path_factory.mktemp("lowered") / "run")
    formats, precisions = ["onnx", "torchscript", "safetensors"], ["fp32", "fp16", "int8", "int8_dynamic"]
    return run_dir, kd.export(run_dir, formats, preprocess=True, precision=precisions, max_loss=0.5)


def test_every_form_in_every_precision_it_can_be_written_in_stands_in_one_table(lowered):
    run_dir, exported = lowered
    files = exported.report["files"]
    assert set(files) == {
        *(f"student{name}.onnx" for name in ("", ".fp16", ".int8", ".int8_dynamic")),
        *(f"student{name}.{form}" for name in ("", ".fp16") for form in ("torchscript", "safetensors")),
    }
    assert {figures["precision"] for figures in files.values()} == {"fp32", "fp16", "int8", "int8_dynamic"}
    checkpoint = exported.report["checkpoint"]["metrics"]["acc"]
    for figures in files.values():
        assert figures["lost"] == pytest.approx(checkpoint - figures["metrics"]["acc"])
        assert set(figures["latency_ms"]) == {"1", "32"}
    assert files["student.fp16.onnx"]["largest_difference"] > files["student.onnx"]["largest_difference"]
    assert files["student.int8.onnx"]["largest_difference"] > files["student.fp16.onnx"]["largest_difference"]
    assert files["student.int8.onnx"]["tolerance"] is None
    for text in (str(exported), (run_dir / "export" / "README.md").read_text()):
        assert "student.int8.onnx" in text
        assert "lost" in text


def test_lowered_files_are_opened_as_any_other(lowered):
    run_dir, _ = lowered
    pixels = torch.randint(0, 17, (3, 1, 8, 8), dtype=torch.uint8)
    opened = kd.open_run(run_dir)
    with torch.no_grad():
        expected = opened.student(opened.preprocessing(pixels))
    file = run_dir / "export" / "student.int8.onnx"
    (logits,) = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(
        None, {"inputs": pixels.numpy()}
    )
    assert np.abs(logits - expected.numpy()).max() < 0.2 * max(1, expected.abs().max())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        scripted = torch.jit.load(str(run_dir / "export" / "student.torchscript"))
    assert torch.allclose(scripted(pixels), expected, atol=1e-4)


def weights_of(path) -> list[np.dtype]:
    return [onnx.numpy_helper.to_array(weight).dtype for weight in onnx.load(str(path)).graph.initializer]


def test_the_files_hold_what_their_precision_says(lowered):
    safe_open = pytest.importorskip("safetensors").safe_open
    folder = lowered[0] / "export"
    assert np.float16 in weights_of(folder / "student.fp16.onnx")
    for name in ("int8", "int8_dynamic"):
        kinds = {kind for kind in weights_of(folder / f"student.{name}.onnx") if kind.itemsize == 1}
        assert kinds
    with safe_open(folder / "student.fp16.safetensors", "pt") as stored:
        assert {stored.get_tensor(name).dtype for name in stored.keys()} >= {torch.float16}  # noqa: SIM118  (no mapping)


def test_the_ranges_of_activations_come_from_training_samples(cnn, monkeypatch):
    seen = []
    original = precision.calibration
    monkeypatch.setattr(
        "kd_lightning.exporting.export_run.calibration", lambda *given: seen.append(original(*given)) or seen[-1]
    )
    kd.export(cnn, ["onnx"], precision=["int8"], max_loss=0.5)
    (samples,) = seen
    assert samples.shape == (512, 1, 8, 8)
    data = kd.open_run(cnn).spec.config["data"]
    from kd_lightning.config.build import build_datamodule

    training = build_datamodule({"data": data}).train_dataset()
    known = {training[i][0].numpy().tobytes() for i in range(len(training))}
    assert {sample.numpy().tobytes() for sample in samples} <= known


def test_too_much_lost_is_refused_and_nothing_is_kept(cnn, monkeypatch):
    monkeypatch.setitem(precision.LOWERED, "int8", spoiled)
    with pytest.raises(UserError, match=r"format=onnx precision=int8: the test accuracy is worse by .* max_loss=0\.05"):
        kd.export(cnn, ["onnx"], precision=["fp32", "int8"])
    assert not (cnn / "export").exists()
    kd.export(cnn, ["onnx"], precision=["int8"], max_loss=1.0)
    assert json.loads((cnn / "export" / "export.json").read_text())["files"]["student.int8.onnx"]["lost"] > 0


@pytest.fixture
def transformer():
    """A vision transformer of torchvision's parts, and its form in half precision."""
    vision_transformer = pytest.importorskip("torchvision.models").VisionTransformer
    model = vision_transformer(32, 16, num_layers=1, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=10).eval()
    torch.nn.init.normal_(model.heads.head.weight)  # torchvision's is zero
    return model, *forms(["onnx"], ["fp16"]).values()


@pytest.mark.slow
def test_a_vision_transformer_in_half_precision_answers_as_in_full(transformer, tmp_path):
    model, form = transformer
    inputs = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        form.write(model, inputs, tmp_path / "half.onnx", lambda: inputs, tmp_path)
        expected = model(inputs)
    answered = form.exporter.open(tmp_path / "half.onnx", model)(inputs)
    assert (answered - expected).abs().max() < 0.02 * expected.abs().max()


@pytest.mark.slow
def test_a_file_of_which_onnxruntime_dies_is_told(transformer, tmp_path, monkeypatch):
    model, form = transformer
    code = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    monkeypatch.setattr(
        precision.subprocess,
        "run",
        lambda command, original=subprocess.run, **how: original([command[0], "-c", code], **how),
    )
    inputs = torch.randn(2, 3, 32, 32)
    with torch.no_grad(), pytest.raises(RuntimeError, match="onnxruntime dies of signal 11 while it opens the file"):
        form.write(model, inputs, tmp_path / "half.onnx", lambda: inputs, tmp_path)


def spoiled(whole, path, samples) -> None:
    model = onnx.load(str(whole))
    for weight in model.graph.initializer:
        values = onnx.numpy_helper.to_array(weight)
        if values.dtype == np.float32:
            weight.CopyFrom(onnx.numpy_helper.from_array(np.zeros_like(values), weight.name))
    onnx.save(model, str(path))


@pytest.mark.parametrize(
    ("formats", "precisions", "line"),
    [
        (["onnx"], ["int4"], "precision=int4: no such precision; did you mean 'int8'"),
        (["safetensors"], ["int8"], "format=safetensors: cannot be written with precision=int8; there is fp32, fp16"),
        (["safetensors"], ["fp32", "int8"], "precision=int8: is for format=onnx"),
        (["onnx"], [], "precision: names none"),
    ],
)
def test_a_precision_that_is_none_is_told(formats, precisions, line):
    pytest.importorskip("safetensors")
    with pytest.raises(UserError, match=line):
        forms(formats, precisions)
