"""Stored answers of somebody else's model as a teacher: found by position or identifier, checked, said what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from teacher_runs import TINY, refused, train

from kd_lightning.cli.evaluate import main as evaluate
from kd_lightning.cli.train import main
from kd_lightning.data.digits import DigitsData
from kd_lightning.errors import UserError
from kd_lightning.teachers.answer_file import by_class, read_answers
from kd_lightning.teachers.class_order import require_class_order

NAMES = ["bird", "cat", "dog"]
ROWS = 1200  # of the digits' training data as they are given


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    return tmp_path


@pytest.fixture(scope="module")
def soft():
    """Probabilities for the digits' 1,200 and 597 images, mostly right."""
    data = DigitsData()
    made = []
    for _, targets in (data.train_data(), data.test_data()):
        noise = torch.randn(len(targets), 10, generator=torch.Generator().manual_seed(0))
        made.append((noise + 4 * torch.nn.functional.one_hot(targets, 10)).softmax(1).numpy())
    return made


def csv_file(path: str, rows: np.ndarray, names: list[str], ids: list[str] | None = None) -> str:
    lines = [",".join([*(["id"] if ids else []), *names])]
    for k, row in enumerate(rows):
        lines.append(",".join([*([ids[k]] if ids else []), *(f"{p:.6g}" for p in row)]))
    Path(path).write_text("\n".join(lines) + "\n")
    return path


DIGITS = [f"p{k}" for k in range(10)]


def test_a_csv_of_probabilities_by_position_teaches_what_it_says(folder, soft):
    csv_file("probabilities.csv", soft[0], DIGITS)
    result = train("teacher=stored", "teacher.file=probabilities.csv")
    assert result["status"] == "finished"
    assert "test/agreement" not in result["metrics"]  # nobody said what it says of the test data
    np.save("test.npy", soft[1])
    words = ("teacher=stored", "teacher.file=probabilities.csv", "teacher.test_file=test.npy", "run_dir=b")
    assert main(["--config-dir", "mine", *TINY, *words]) == 0
    measured = json.loads(Path("b/result.json").read_text())
    targets = DigitsData().test_data()[1].numpy()
    assert measured["teacher"]["test/acc"] == pytest.approx((soft[1].argmax(1) == targets).mean(), abs=1e-9)
    assert evaluate(["b"]) == 0


def test_each_training_sample_gets_the_row_at_its_own_position(folder, soft):
    from kd_lightning.teachers.answers import StoredTeacher

    np.save("rows.npy", soft[0])
    data = DigitsData(val_size=200, train_size=300)
    teacher = StoredTeacher("rows.npy").make(context(data))
    batch = next(iter(data.train_dataloader()))
    images, _ = data.train_data()
    given = data.array(images, torch.zeros(len(images), dtype=torch.long), "all").gather(torch.arange(ROWS), 0)[0]
    for inputs, answer in zip(batch.inputs, teacher(batch).logits.softmax(1), strict=True):
        row = next(k for k in range(ROWS) if torch.equal(given[k], inputs))
        assert np.allclose(answer.numpy(), soft[0][row], atol=1e-6)


def context(data):
    from kd_lightning.teachers.kind import TeacherContext

    task = {"_target_": "kd_lightning.tasks.classification.ClassificationTask"}
    return TeacherContext({"teacher": {"name": "x"}, "task": task}, data, frozenset(), lambda spec: {})


def test_identifiers_find_rows_in_any_order_and_missing_ones_are_named(folder, soft, capfd):
    order = np.random.default_rng(0).permutation(ROWS)
    csv_file("shuffled.csv", soft[0][order], DIGITS, [str(k) for k in order])
    csv_file("straight.csv", soft[0], DIGITS)
    by_key = train("teacher=stored", "teacher.file=shuffled.csv", "teacher.key=id", "run_dir=run")
    words = ("teacher=stored", "teacher.file=straight.csv", "run_dir=position")
    assert main(["--config-dir", "mine", *TINY, *words]) == 0
    by_position = json.loads(Path("position/result.json").read_text())
    assert by_key["teacher"]["fingerprint"] == by_position["teacher"]["fingerprint"]
    csv_file("few.csv", soft[0][:900], DIGITS, [str(k) for k in range(900)])
    error = refused(capfd, "teacher=stored", "teacher.file=few.csv", "teacher.key=id", "run_dir=few")
    assert "of 200 training samples have no row, the first: id '" in error


@pytest.mark.parametrize("holds", ["logits", "labels"])
def test_logits_and_labels_do_where_the_method_reads_no_more(folder, soft, holds, capfd):
    if holds == "logits":
        np.save("a.npy", np.log(soft[0]) + 3)
        assert train("teacher=stored", "teacher.file=a.npy", "teacher.holds=logits", "method=logits_mse")
        return
    np.save("a.npy", soft[0].argmax(1))
    words = ("teacher=stored", "teacher.file=a.npy", "teacher.holds=labels")
    assert "stored provides labels, the method reads its logits" in refused(capfd, *words)
    assert train(*words, "method=hard_label")["status"] == "finished"


def test_probabilities_that_are_called_logits_are_told(folder, soft, capfd):
    np.save("a.npy", soft[0])
    train("teacher=stored", "teacher.file=a.npy", "teacher.holds=logits", "method=logits_mse")
    assert "if so, set teacher.holds=probabilities" in capfd.readouterr().out


@pytest.mark.parametrize("shuffled", [True, False])
def test_rows_in_another_order_are_told_before_anything_is_trained(folder, soft, shuffled, capfd):
    order = np.random.default_rng(0).permutation(ROWS) if shuffled else np.arange(ROWS)
    csv_file("shuffled.csv", soft[0][order], DIGITS)
    train("teacher=stored", "teacher.file=shuffled.csv")
    said = capfd.readouterr().out
    told = "no better than one class for all of them would"
    assert (told in said) == shuffled
    if shuffled:
        assert said.index(told) < said.index("epoch 1/")


def write(kind: str, soft) -> str:
    rows = soft[0].copy()
    if kind == "sums":
        rows[7] *= 1.5
    elif kind == "negative":
        rows[3, 0] = -0.25
    elif kind == "short":
        rows = rows[:1000]
    elif kind == "permuted":
        rows = rows[:, ::-1]
    elif kind == "narrow":
        rows = rows[:, :7]
    np.save("bad.npy", rows)
    return "bad.npy"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("sums", "sums to 1.5: rows of probabilities sum to 1"),
        ("negative", "holds -0.25, which is no probability"),
        ("short", "has 1,000 rows, the training data as they were given have 1,200 samples"),
        ("permuted", "its classes are in another order than the data's"),
        ("narrow", "has 7 columns of numbers"),
    ],
)
def test_rows_that_are_not_what_they_are_said_to_be_are_one_line(folder, soft, capfd, kind, said):
    words = ("data.train_size=null", "data.batch_size=64")
    assert said in refused(capfd, "teacher=stored", f"teacher.file={write(kind, soft)}", *words)
    assert not Path("run/result.json").exists()


def test_the_order_that_is_offered_is_the_right_one(soft):
    targets = DigitsData().train_data()[1]
    logits = torch.from_numpy(soft[0][:, [9, 0, 1, 2, 3, 4, 5, 6, 7, 8]]).log()
    with pytest.raises(UserError, match=r"columns=\[1,2,3,4,5,6,7,8,9,0\]"):
        require_class_order(logits, targets, None, "teacher.file=x")
    require_class_order(logits[:, [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]], targets, None, "teacher.file=x")
    require_class_order(
        torch.randn(len(targets), 10), targets, None, "teacher.file=x"
    )  # a poor teacher is no other order


def table(path: str, columns: dict[str, list]) -> str:
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    Path(path).write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    "columns",
    [
        {"dog": [0.1], "cat": [0.2], "bird": [0.7]},
        {"id": [9], "p_dog": [0.1], "p_bird": [0.7], "p_cat": [0.2], "note": ["x"]},
        {"0": [0.7], "1": [0.2], "2": [0.1]},
        {"class2": [0.1], "class0": [0.7], "class1": [0.2]},
    ],
)
def test_columns_are_found_by_the_names_of_the_classes(folder, columns):
    file = read_answers(table("t.csv", columns), "teacher.file")
    assert file.numbers(by_class(file, None, NAMES, 3), "teacher.columns")[0].tolist() == [0.7, 0.2, 0.1]


def test_columns_that_nobody_can_tell_apart_are_refused(folder):
    file = read_answers(table("t.csv", {"ant": [0.7], "bee": [0.2], "fly": [0.1]}), "teacher.file")
    with pytest.raises(UserError, match="ant, bee, fly are not called as the data's classes"):
        by_class(file, None, NAMES, 3)
    assert by_class(file, ["fly", "bee", "ant"], NAMES, 3) == ["fly", "bee", "ant"]


def test_parquet_is_read_as_csv_is(folder):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame({"id": ["a", "b"], "cat": [0.25, 0.5], "dog": [0.75, 0.5]})
    frame.to_parquet("t.parquet")
    frame.to_csv("t.csv", index=False)
    parquet, text = (read_answers(name, "teacher.file") for name in ("t.parquet", "t.csv"))
    assert list(parquet.columns) == list(text.columns)
    assert parquet.numbers(["cat", "dog"], "k").tolist() == text.numbers(["cat", "dog"], "k").tolist()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("a,b\n", "has no rows"),
        ("a,a\n1,2\n", "two columns are called 'a'"),
        ("a,b\n1,2\n1\n", "line 3 has 1 cells, the first line 2"),
        ("0.5,0.25\n0.5,0.5\n", "its first line holds numbers"),
    ],
)
def test_a_file_that_is_no_table_is_one_line(folder, text, said):
    Path("t.csv").write_text(text)
    with pytest.raises(UserError, match="teacher.file=t.csv: .*" + said):
        read_answers("t.csv", "teacher.file")


def test_identifiers_with_zeros_in_front_stay_as_they_are(folder):
    assert read_answers(table("t.csv", {"id": ["007", "010"], "x": [1, 2]}), "k").columns["id"].tolist() == [
        "007",
        "010",
    ]


def test_an_array_of_objects_is_not_unpickled(folder):
    np.save("t.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="cannot be read"):
        read_answers("t.npy", "teacher.file")


def top(rows: list[dict[int, float]], k: int) -> dict[str, list]:
    made: dict[str, list] = {}
    for place in range(k):
        for row in rows:
            given = list(row.items())
            number, share = given[place] if place < len(given) else ("", "")
            made.setdefault(f"class_{place + 1}", []).append(number)
            made.setdefault(f"probability_{place + 1}", []).append(share)
    return made


def test_the_top_k_keep_their_probabilities_and_the_rest_is_shared_by_the_others(folder):
    from kd_lightning.teachers.top_k import spread_out

    rows = [{3: 0.6, 1: 0.3}, {0: 1.0}]
    file = read_answers(table("t.csv", top(rows, 2)), "teacher.file")
    answers = spread_out(file, np.arange(2), str, None, 6).softmax(1)
    assert answers[0].tolist() == pytest.approx([0.025, 0.3, 0.025, 0.6, 0.025, 0.025], abs=1e-6)
    assert answers[1].tolist() == pytest.approx([1, 0, 0, 0, 0, 0], abs=1e-6)
    np.savez("t.npz", classes=np.array([[3, 1], [0, -1]]), probabilities=np.array([[0.6, 0.3], [1.0, 0.0]]))
    again = spread_out(read_answers("t.npz", "teacher.file"), np.arange(2), str, None, 6).softmax(1)
    assert torch.allclose(answers, again)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{3: 0.6, 9: 0.3}], "names the class '9'"),
        ([{3: 0.8, 1: 0.7}], "sums to 1.5: the probabilities of the top k sum to at most 1"),
        ([{3: -0.1, 1: 0.7}], "holds a probability that is none"),
    ],
)
def test_top_k_rows_that_cannot_be_are_one_line(folder, rows, said):
    from kd_lightning.teachers.top_k import spread_out

    file = read_answers(table("t.csv", top(rows, 2)), "teacher.file")
    with pytest.raises(UserError, match=said):
        spread_out(file, np.arange(1), str, None, 6)


def test_top_k_answers_are_not_softened(folder, soft, capfd):
    best = [{int(k): float(row[k]) for k in row.argsort()[:-4:-1]} for row in soft[0]]
    table("top.csv", top(best, 3))
    words = ("teacher=stored", "teacher.file=top.csv", "teacher.holds=top_k")
    assert (
        "teacher.holds: top_k: the largest of the logits do not do for method.terms.kd, which softens them"
        in refused(capfd, *words)
    )
    assert train(*words, "method.temperature=1")["status"] == "finished"


def test_a_method_that_looks_at_hidden_layers_refuses_stored_answers(folder, soft, capfd):
    np.save("a.npy", soft[0])
    hints = ("method=fitnet", "method.taps.teacher.hint=0", "method.taps.student.hint=hidden.0")
    error = refused(capfd, "teacher=stored", "teacher.file=a.npy", *hints)
    assert "stored provides probabilities, the method reads its features" in error


def test_what_cannot_be_meant_is_one_line(folder, capfd):
    assert "teacher.file: no such file: gone.csv" in refused(capfd, "teacher=stored", "teacher.file=gone.csv")
    assert "teacher.file" in refused(capfd, "teacher=stored")
