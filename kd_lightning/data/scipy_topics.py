"""Topics of SciPy's documentation: paragraphs of its docstrings, and the part of the library that they are from.

The texts are read from the installed SciPy (BSD-3-Clause), which scikit-learn needs: nothing to download. What a newer
SciPy says differs a little. Formulas, code, lists of parameters and the library's own name are left out; paragraphs of one
function stay together in what is split off.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kd_lightning.data.text import Columns, TextData
from kd_lightning.errors import UserError

TOPICS = (
    "fft", "integrate", "interpolate", "linalg", "ndimage", "optimize", "signal", "sparse", "spatial", "special", "stats",
)  # fmt: skip
LEAST_WORDS = 8

_SECTION = re.compile(r"^([A-Z][A-Za-z ]+)\n[-=~^]{3,}\s*$", re.MULTILINE)
_PROSE = ("", "Notes", "Description", "Extended Summary")
_MARKUP = re.compile(r":\w+:`[^`]*`|`[^`]*`|\$[^$]*\$|\.\. [\w:-]+::?|\bscipy(\.\w+)*|\[[\w.]+\]_?|\\\w+")


class ScipyTopics(TextData):
    """About 6,000 paragraphs in 11 topics.

    Args:
        topics: which of :data:`TOPICS`.
        settings: those of :class:`~kd_lightning.data.text.TextData`.
    """

    GIVEN_TO_BASE = ("text", "target", "id", "group")

    def __init__(self, topics: Sequence[str] = TOPICS, **settings: Any) -> None:
        unknown = [topic for topic in topics if topic not in TOPICS]
        if unknown or len(topics) < 2:
            raise UserError(f"data.topics: take two or more of {', '.join(TOPICS)}, got {', '.join(topics)}")
        self.topics = list(topics)
        super().__init__(text="text", target="label", id="id", group="function", **settings)

    def columns(self, split: str, path: str | None) -> Columns:
        """Paragraphs, each once, with topic and function; their identifiers are ``function#number``."""
        made: dict[str, list[str]] = {name: [] for name in ("text", "label", "function", "id")}
        seen: set[str] = set()
        for topic in self.topics:
            for function, docstring in docstrings(topic):
                for number, text in enumerate(paragraphs(docstring)):
                    if text not in seen:
                        seen.add(text)
                        for name, cell in zip(made, (text, topic, function, f"{function}#{number}"), strict=True):
                            made[name].append(cell)
        return made


def docstrings(topic: str) -> Iterator[tuple[str, str]]:
    """``(file:function, docstring)`` of a part of SciPy, read without importing it; in a fixed order."""
    spec = find_spec("scipy")
    if spec is None or spec.origin is None:
        raise UserError("data: these texts are SciPy's documentation, and it is not installed: pip install scipy")
    root = Path(spec.origin).parent / topic
    for path in sorted(root.rglob("*.py")):
        place = path.relative_to(root).as_posix()
        if "tests" in path.parts:
            continue
        for name, found in _of_statements(ast.parse(path.read_text(encoding="utf-8")).body):
            yield f"{topic}/{place}:{name}", found


def _of_statements(body: Sequence[ast.stmt]) -> Iterator[tuple[str, str]]:
    """Docstrings of functions, classes and methods, and of what is written in C (``add_newdoc``)."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found = ast.get_docstring(node)
            if found:
                yield node.name, found
            if isinstance(node, ast.ClassDef):
                yield from _of_statements(node.body)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            called = node.value
            texts = [
                part.value for part in called.args if isinstance(part, ast.Constant) and isinstance(part.value, str)
            ]
            if getattr(called.func, "id", "") == "add_newdoc" and len(texts) > 1:
                yield texts[0], inspect.cleandoc(texts[-1])


def paragraphs(docstring: str) -> Iterator[str]:
    """The paragraphs of prose in a docstring, on one line each, without markup; at least :data:`LEAST_WORDS` long."""
    parts = _SECTION.split("\n" + docstring)
    for title, body in zip(["", *parts[1::2]], parts[::2], strict=True):
        if title.strip() not in _PROSE:
            continue
        for paragraph in re.split(r"\n\s*\n", body):
            if re.match(r"\s*(>>>|\.\.|[-*] )", paragraph):
                continue
            text = " ".join(_MARKUP.sub(" ", " ".join(paragraph.split())).split())
            if sum(word.isalpha() for word in re.findall(r"\w+", text)) >= LEAST_WORDS:
                yield text
