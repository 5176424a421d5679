"""docs/methods.md says which methods need another student than the default one, and which have their authors' weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "methods.md").read_text()


def student_taps(name: str) -> str:
    """The student's taps of a method, those of the files that it is made from included, as text."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "conf/method" / f"{name}.yaml").read_text()) or {}
    bases = [base for base in content.get("defaults", []) if isinstance(base, str) and base != "_self_"]
    own = (content.get("taps") or {}).get("student")
    return str(own) if own else "".join(student_taps(b) for b in bases if (ROOT / f"conf/method/{b}.yaml").is_file())


def listed(start: str, end: str) -> list[str]:
    return re.findall(r"`(\w+)`", TEXT[TEXT.index(start) : TEXT.index(end)])


@pytest.mark.parametrize(
    ("layer", "start", "end"),
    [
        ("blocks.", "The\ntap of `ab`", " is a map of a convolutional"),
        ("layer3", "that of `cat_kd`", " the last map"),
    ],
)
def test_the_page_names_the_methods_whose_taps_another_student_has(layer, start, end):
    methods = sorted(path.stem for path in (ROOT / "conf/method").glob("*.yaml"))
    assert listed(start, end) == [name for name in methods if layer in student_taps(name)]


def test_the_page_names_the_methods_that_have_a_preset_of_the_authors():
    shipped = sorted(path.stem for path in (ROOT / "conf/preset/authors").glob("*.yaml"))
    assert listed("there is one for `attention`", "and a line says so") == shipped
