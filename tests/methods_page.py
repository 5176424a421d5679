"""``docs/method_library.md``: every shipped method, from its YAML and its losses' docstrings.

Write it anew with ``python tests/methods_page.py``.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from hydra.utils import get_object
from method_builds import ALL, OF_VALUES, built, text_of
from omegaconf import OmegaConf

PAGE = Path(__file__).resolve().parents[1] / "docs" / "method_library.md"
HEAD = """# The method library

Every method that ships: `method=NAME`. Written by `python tests/methods_page.py` from `conf/method/` and the docstrings
of `kd_lightning/losses/`, where reductions, deviations from the authors' code and references stand in full. Values and
gradients are compared with published code, case by case: [golden.md](golden.md). Weights are those of the YAML; the
first lines of each YAML say where they come from.

"Needs": *taps* names of hidden layers in both models (`method.taps.…`), *labels* class numbers, *views* further views of
each sample (`data.extra_views`), *index* the sample's position, *heads* the models' last linear layers, *memory* what it
keeps from earlier batches (in the run's checkpoint), *adapter* what it learns itself (left behind on export).

| method | term and weight | loss | needs |
|---|---|---|---|
"""


def first_formula(kind: type) -> str:
    """The formula of a loss's docstring, or its first line."""
    text = " ".join(inspect.cleandoc(kind.__doc__ or "").split())
    match = re.search(r"``(loss = .*?)``", text)
    return f"`{match[1].removeprefix('loss = ')}`" if match else text.split(". ")[0].rstrip(".")


def needs(kind: type, source: str, asked: tuple[str, ...], taps: bool) -> list[str]:
    """What a term needs beside logits."""
    found = ["taps"] if taps else []
    if re.search(r"mean_over_labelled|true_class\(|class_numbers", source):
        found.append("labels")
    found += [what for what in ("views", "index") if what in asked]
    found += [
        word for word, member in (("heads", "bind"), ("adapter", "prepare")) if callable(getattr(kind, member, None))
    ]
    if "EmbeddingQueue(" in source or "memory_student" in source or '"centre"' in source:
        found.append("memory")
    return found


def page() -> str:
    """The page's text."""
    lines = []
    for path in ALL:
        if path.stem == "none":
            continue
        node, method = OmegaConf.load(path), built(path)
        paper = text_of(path).splitlines()[0].removeprefix("# ")
        paper = re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[\1](https://arxiv.org/abs/\1)", paper.split("; ")[0])
        for number, (name, term) in enumerate(node.terms.items()):
            kind = get_object(term._target_)
            source = inspect.getsource(kind)
            taps = any(str(tap) in str(OmegaConf.to_container(term, resolve=False)) for tap in node.taps.student)
            wanted = needs(kind, source, method.asks.get(name, ()), taps)
            first = f"`{path.stem}`: {paper}" if number == 0 else ""
            loss = first_formula(kind).replace("|", "\\|")
            lines.append(
                f"| {first} | `{name}` {node.weights[name]:g} | {loss} | {', '.join(wanted) or ('values' if path.stem in OF_VALUES else 'logits')} |"
            )
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
