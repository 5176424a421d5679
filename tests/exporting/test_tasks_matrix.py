"""docs/export_matrix.md: every task stands there, and what it says of the quick ones is so."""

from __future__ import annotations

import re

import pytest
import tasks_matrix
from matrix import OF_TASKS, PAGE

pytest.importorskip("safetensors")
pytest.importorskip("onnxruntime")
TEXT = PAGE.read_text(encoding="utf-8").partition(OF_TASKS)[2]
LINES = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("|")]
SHIPPED = {path.stem for path in (PAGE.parents[1] / "conf" / "task").glob("*.yaml")}
TASKS = {row[0]: dict(zip(LINES[0][1:], row[1:], strict=True)) for row in LINES[2 : 2 + len(tasks_matrix.TASKS)]}


def test_the_page_has_every_task_and_every_family():
    assert TASKS.keys() == tasks_matrix.TASKS.keys()
    assert {re.split(r"\W", name)[0] for name in TASKS} == SHIPPED | {"texts"}
    assert {row[0].strip("`") for row in LINES[4 + len(TASKS) :]} == set(tasks_matrix.FAMILIES)


def test_a_form_that_a_students_inputs_do_not_fit_is_a_no_and_any_other_is_a_yes():
    assert [form for form, said in TASKS["texts"].items() if said == "no"] == ["onnx int8"]
    assert {cell for name, row in TASKS.items() if name != "texts" for cell in row.values()} == {"yes"}


@pytest.mark.slow
@pytest.mark.parametrize("task", ["multilabel", "regression", "texts"])
def test_what_the_page_says_of_a_task_is_so(task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (row,) = tasks_matrix.by_task([task], ["torchscript", "onnx"], ["fp32", "int8"])
    assert {key: row[key] for key in row if key != "task"} == {key: TASKS[task][key] for key in row if key != "task"}
