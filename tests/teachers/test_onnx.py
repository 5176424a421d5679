"""ONNX files as teachers: inputs that fit, any batch size, outputs of several kinds, one line for what does not suit."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from teacher_runs import refused, train

from kd_lightning.cli.evaluate import main as evaluate
from kd_lightning.data.digits import DigitsData
from kd_lightning.errors import UserError
from kd_lightning.joints import Teacher
from kd_lightning.teachers.kind import TeacherContext
from kd_lightning.teachers.onnx import OnnxTeacher
from kd_lightning.teachers.onnx_session import OnnxSession

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    return tmp_path


@pytest.fixture(scope="module")
def digits():
    data = DigitsData(val_size=200, train_size=400, batch_size=50)
    data.setup("fit")
    return data


def batch_of(data):
    return next(iter(data.train_dataloader()))


@pytest.fixture(scope="module")
def weights(digits):
    """Of a linear classifier that is right about most digits: (64, 10) and (10,)."""
    index = torch.arange(len(digits.train_views_dataset))
    inputs, target = digits.train_views_dataset.read(index, 0)
    rows = torch.cat([inputs.flatten(1), torch.ones(len(inputs), 1)], 1)
    wanted = 4 * torch.nn.functional.one_hot(target, 10).float()
    solved = torch.linalg.lstsq(rows.T @ rows + torch.eye(65), rows.T @ wanted).solution
    return solved[:-1].numpy(), solved[-1].numpy()


def model_file(
    path: str, weights, shape=("N", 1, 8, 8), softmax=False, second=False, kind=None, name="image", order=None
) -> str:
    helper, types = onnx.helper, onnx.TensorProto
    matrix, bias = weights if order is None else (weights[0][:, order], weights[1][order])
    nodes = [
        helper.make_node("Cast", [name], ["cast"], to=types.FLOAT),
        helper.make_node("Flatten", ["cast"], ["rows"]),
        helper.make_node("Gemm", ["rows", "matrix", "bias"], ["scores"]),
        helper.make_node("Softmax" if softmax else "Identity", ["scores"], ["answer"]),
    ]
    outputs = ["answer", "scores"] if second else ["answer"]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info(name, kind or types.FLOAT, list(shape))],
        [helper.make_tensor_value_info(out, types.FLOAT, [shape[0], 10]) for out in outputs],
        [onnx.numpy_helper.from_array(np.ascontiguousarray(v), n) for n, v in (("matrix", matrix), ("bias", bias))],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(made, path)
    return path


def made(data, **arguments):
    task = {"_target_": "kd_lightning.tasks.classification.ClassificationTask"}
    context = TeacherContext({"teacher": {"name": "file"}, "task": task}, data, frozenset(), lambda spec: {})
    return OnnxTeacher(**arguments).make(context)


def test_its_answers_are_those_of_the_computation_in_the_file(folder, digits, weights):
    teacher = made(digits, file=model_file("m.onnx", weights))
    batch = batch_of(digits)
    expected = batch.inputs.flatten(1) @ torch.from_numpy(weights[0]) + torch.from_numpy(weights[1])
    assert torch.allclose(teacher(batch).logits, expected, atol=1e-4)
    assert isinstance(teacher, Teacher)


def test_a_file_with_a_fixed_batch_answers_batches_of_any_size(folder, digits, weights):
    batch = batch_of(digits)
    any_size, three = (made(digits, file=model_file(f"{n}.onnx", weights, (n, 1, 8, 8))) for n in ("N", 3))
    assert torch.allclose(any_size(batch).logits, three(batch).logits, atol=1e-5)


def test_images_are_given_as_rows_to_a_file_that_takes_rows(folder, digits, weights):
    batch = batch_of(digits)
    images, rows = (made(digits, file=model_file(f"{len(s)}.onnx", weights, s)) for s in (("N", 1, 8, 8), ("N", 64)))
    assert torch.allclose(images(batch).logits, rows(batch).logits, atol=1e-5)


def test_probabilities_are_taken_as_what_they_are(folder, digits, weights, caplog):
    file = model_file("m.onnx", weights, softmax=True)
    batch = batch_of(digits)
    plain = made(digits, file=model_file("plain.onnx", weights))
    said = made(digits, file=file, outputs="probabilities")
    assert torch.allclose(said(batch).logits, plain(batch).logits.log_softmax(1), atol=1e-3)
    assert said.provides == {"probabilities", "logits"}
    with caplog.at_level(logging.WARNING):
        made(digits, file=file)
    assert "set teacher.outputs=probabilities" in caplog.text


def test_which_of_several_outputs_is_meant_has_to_be_clear(folder, digits, weights):
    file = model_file("m.onnx", weights, second=True)
    with pytest.raises(UserError, match=r"which output is meant\? teacher\.output=…, one of answer, scores"):
        made(digits, file=file)
    assert made(digits, file=file, output="scores")(batch_of(digits)).logits.shape == (50, 10)
    with pytest.raises(UserError, match=r"teacher\.output=x: .* has the outputs answer, scores"):
        made(digits, file=file, output="x")


@pytest.mark.parametrize(
    ("shape", "kind", "said"),
    [
        (("N", 3, 8, 8), None, r"takes image: float \(N, 3, 8, 8\), the data's input is float32 \(N, 1, 8, 8\)"),
        (("N", 1, 32, 32), None, r"\(N, 1, 8, 8\): teacher\.image_size=32 scales the images"),
        (("N", 2048), "INT32", r"takes image: int32 \(N, 2048\), the data's input is float32"),
        (("N", 100), None, r"takes image: float \(N, 100\)"),
    ],
)
def test_inputs_that_do_not_fit_are_one_line_with_both_forms(folder, digits, weights, shape, kind, said):
    weights = np.zeros((int(np.prod(shape[1:])), 10), np.float32), weights[1]
    file = model_file("m.onnx", weights, shape, kind=kind and getattr(onnx.TensorProto, kind))
    with pytest.raises(UserError, match=said):
        made(digits, file=file)


def test_classes_in_another_order_are_refused_and_put_right_by_what_the_message_says(folder, digits, weights):
    file = model_file("m.onnx", weights, order=[9, 0, 1, 2, 3, 4, 5, 6, 7, 8])
    with pytest.raises(UserError, match=r"in another order.*teacher\.classes=\[1,2,3,4,5,6,7,8,9,0\]"):
        made(digits, file=file)
    right = made(digits, file=file, classes=[1, 2, 3, 4, 5, 6, 7, 8, 9, 0])
    plain = made(digits, file=model_file("plain.onnx", weights))
    batch = batch_of(digits)
    assert torch.allclose(right(batch).logits, plain(batch).logits, atol=1e-5)


def test_it_teaches_from_the_command_line_and_the_result_is_measured_again(folder, weights, capfd):
    model_file("m.onnx", weights)
    result = train("teacher=onnx", "teacher.file=m.onnx")
    assert result["teacher"]["test/acc"] > 0.8
    assert result["teacher"]["bytes"] == Path("m.onnx").stat().st_size
    assert evaluate(["run"]) == 0
    Path("m.onnx").write_bytes(b"no such thing")
    error = refused(capfd, "teacher=onnx", "teacher.file=m.onnx", "run_dir=b")
    assert "teacher.file=m.onnx: is no ONNX file that can be run" in error
    assert "teacher.file: no such file: gone.onnx" in refused(capfd, "teacher=onnx", "teacher.file=gone.onnx")


def test_inputs_by_name_go_to_the_inputs_of_the_file(folder, weights):
    session = OnnxSession(model_file("m.onnx", weights, name="pixels"), "teacher.file=m.onnx", None, "logits", {})
    both = {"pixels": torch.zeros(2, 1, 8, 8), "other": torch.zeros(2, 3)}
    assert np.allclose(session(both), np.tile(weights[1], (2, 1)), atol=1e-6)
    with pytest.raises(UserError, match=r"takes pixels: .*the data's inputs are a, b: .*teacher\.inputs="):
        session({"a": torch.zeros(2, 1, 8, 8), "b": torch.zeros(2, 3)})
    named = OnnxSession("m.onnx", "teacher.file=m.onnx", None, "logits", {"pixels": "a"})
    assert named({"a": torch.zeros(2, 1, 8, 8), "b": torch.zeros(2, 3)}).shape == (2, 10)
    with pytest.raises(UserError, match=r"teacher\.inputs\.x: .* has no such input, it has pixels"):
        OnnxSession("m.onnx", "teacher.file=m.onnx", None, "logits", {"x": "a"})


@pytest.mark.parametrize("kind", ["INT32", "UINT8", "INT64"])
def test_whole_numbers_are_given_in_the_files_kind_and_never_wrapped(folder, weights, kind):
    file = model_file("m.onnx", weights, ("N", 64), kind=getattr(onnx.TensorProto, kind), name="bytes")
    session = OnnxSession(file, "teacher.file=m.onnx", None, "logits", {})
    numbers = torch.randint(256, (5, 64), generator=torch.Generator().manual_seed(0))
    expected = numbers.float() @ torch.from_numpy(weights[0]) + torch.from_numpy(weights[1])
    student_reads = torch.zeros(5, 3)
    for given in (numbers, numbers.int()):
        found = session({"bytes": given, "histogram": student_reads})
        assert torch.allclose(torch.from_numpy(found), expected, atol=1e-2)
    if kind == "UINT8":
        with pytest.raises(UserError, match=r"takes bytes: uint8 \(N, 64\), the data's input holds 256"):
            session({"bytes": numbers.clamp_min(1) * 0 + 256})


def test_a_classifier_of_scikit_learn_answers_through_its_file(folder, digits):
    skl2onnx = pytest.importorskip("skl2onnx")
    from sklearn.linear_model import LogisticRegression

    batch = batch_of(digits)
    rows, target = batch.inputs.flatten(1).numpy(), batch.target.numpy()
    model = LogisticRegression(max_iter=200).fit(rows, target)
    with open("m.onnx", "wb") as file:  # its answers are a dictionary a sample, unless it is told otherwise
        file.write(skl2onnx.to_onnx(model, rows[:1]).SerializeToString())
    teacher = made(digits, file="m.onnx", outputs="probabilities")
    assert np.allclose(teacher(batch).logits.exp().numpy(), model.predict_proba(rows), atol=1e-5)
    labels = made(digits, file="m.onnx", outputs="labels")
    assert labels(batch).logits.argmax(1).tolist() == model.predict(rows).tolist()
    assert labels.provides == {"labels"}
