"""No room but the tasks' and the metrics' own names a metric or asks which task it is: what they need is declared."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import kd_lightning
from kd_lightning.tasks.classification import ClassificationTask

PACKAGE = Path(kd_lightning.__file__).parent
FREE = {"tasks", "losses", "metrics"}
NAMES = {metric.name for metric in ClassificationTask.metrics} | {"rmse", "classification", "regression", "accuracy"}
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.relative_to(PACKAGE).parts[0] not in FREE]


def texts(path: Path) -> list[tuple[int, str]]:
    """The texts in a file's code, without its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [(node.lineno, node.value) for node in found if id(node) not in docstrings]


def last_part(text: str) -> str:
    return text.rsplit("/", 1)[-1].removeprefix("val_")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_other_file_names_a_metric_or_a_task(path):
    named = [(line, text) for line, text in texts(path) if last_part(text) in NAMES or text == "teacher_"]
    assert named == []


@pytest.mark.parametrize("path", sorted((PACKAGE / "report").rglob("*.js")), ids=lambda path: path.name)
def test_no_script_of_the_page_names_a_metric(path):
    text = path.read_text(encoding="utf-8")
    assert [name for name in NAMES if f'"{name}"' in text or f'/{name}"' in text] == []
