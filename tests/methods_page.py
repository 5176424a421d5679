"""``docs/method_library.md``: every shipped method, from its YAML and its losses' docstrings.

Write it anew with ``python tests/methods_page.py``.
"""

from __future__ import annotations

import csv
import inspect
import re
import sys
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from method_builds import ALL, METHODS, built, networks, one_step, text_of
from omegaconf import OmegaConf
from torch import nn

from kd_lightning.terms import needs_teacher

TESTS = Path(__file__).resolve().parent
DOCS = TESTS.parent / "docs"
PAGE = DOCS / "method_library.md"
HEAD = """# The method library

Every method that ships: `method=NAME`. Written by `python tests/methods_page.py` from `conf/method/` and the docstrings
of `kd_lightning/losses/`, where reductions, deviations from the authors' code and references stand in full.

## What each computes

Weights are those of the YAML. "Needs": *logits*, *values* the teacher's answers (*values* of a regression; *unnormalised
logits* where probabilities are not enough), *taps* names of hidden layers (`method.taps.…`), *labels* class numbers, *two
views* further views of each sample (`data.extra_views`), *index* the sample's position, *heads* the models themselves or
their last linear layers, *bank* what it keeps from earlier batches (in the run's checkpoint), *adapter* what it learns
itself (left behind on export), *no teacher* that it runs without one.

| method | term and weight | loss | needs |
|---|---|---|---|
"""
SETTINGS = """
## Settings, what pins them, what they cost

- *Labels*: `weights.task`. *T*: `temperature`. *Others' settings*: what the YAML says of them.
- *Pinned by*: published code's values and gradients of the term's class, by file of [reference cases](golden.md) and how
  many; else the test of our own. Every method's YAML is held by `tests/test_method_configs.py` and
  `tests/test_method_contracts.py` too.
- *Published*: test accuracy in %, with a link to where the authors' repository (or one that lists it beside its own) says so:
  of a ResNet 8x4 taught by a ResNet 32x4 on CIFAR-100 (teacher 79.42, student alone 72.50), else as said in brackets. None of
  them was run here ([the pair's experiment](cifar100.md)); "-" where we found none stated. Soft targets
  with `optimizer=dot`: [75.12](https://github.com/megvii-research/mdistiller/blob/a08d46f10d6102bd6e3f258ca5ac880b020ea259/README.md).
  As rows: [published.tsv](published.tsv).
- *Cost*: a training step's time by that of `kd` on the same two small networks, 64 pictures of 8x8
  (`python benchmarks/methods.py`; {machine}). Networks of real size hide most of it: of a ResNet 8x4
  from a ResNet 32x4, pictures of 32x32 (`python benchmarks/methods.py --cifar NAME …`), {cifar}.
  `review`'s convolutions as the paper has them make {bound} by themselves: the ratio of operations, which the same command
  counts. The rest is memory traffic, of BatchNorms and gates on maps of 256 channels.

| method | labels | T | others' settings | pinned by | published | cost |
|---|---|---|---|---|---|---|
"""
COMMON = ("CIFAR-100, ResNet 32x4 to 8x4", "72.50")
"""What most papers report, and the student alone there."""


def first_formula(kind: type) -> str:
    """The formula of a loss's docstring, or its first line."""
    text = " ".join(inspect.cleandoc(kind.__doc__ or "").split())
    match = re.search(r"``(loss = .*?)``", text)
    return f"`{match[1].removeprefix('loss = ')}`" if match else text.split(". ")[0].rstrip(".")


def learning(path: Path) -> set[str]:
    """The terms that have parameters of their own once they have seen a student and a teacher of unlike widths."""
    method = built(path)
    if path in METHODS:
        torch.manual_seed(0)
        one_step(method, *networks(path), torch.randn(8, 1, 8, 8))
    return {name for name, term in method.terms.items() if any(p.requires_grad for p in term.parameters())}


def needs(term: nn.Module, asked: tuple[str, ...], taps: bool, learns: bool) -> list[str]:
    """What a term needs, as its members say it."""
    kind = type(term)
    source = inspect.getsource(kind)
    tap_or_logits = taps and "tap" in inspect.signature(kind).parameters and getattr(term, "tap", None) is not None
    read = set(getattr(term, "requires", set() if tap_or_logits and ".logits" not in source else {"logits"}))
    found = sorted(read - {"features"}) if needs_teacher(term) else ["no teacher"]
    found += ["taps"] if taps else []
    if re.search(r"mean_over_labelled|true_class\(|class_numbers", source):
        found.append("labels")
    found += [word for what, word in (("views", "two views"), ("index", "index")) if what in asked]
    found += [word for word, has in (("heads", hasattr(kind, "bind")), ("adapter", learns)) if has]
    if "EmbeddingQueue(" in source or "memory_student" in source or '"centre"' in source:
        found.append("bank")
    return found


@cache
def pins() -> dict[str, dict[str, int]]:
    """By class of a loss: how many reference cases of which file are computed with it."""
    found: dict[str, dict[str, int]] = {}
    for part in (DOCS / "golden.md").read_text(encoding="utf-8").split("\n## ")[1:]:
        file = part.split(".npz")[0]
        for line in part.splitlines():
            for name in set(re.findall(r"`\w+\.(\w+)\(", line)):
                found.setdefault(name, {}).setdefault(file, 0)
                found[name][file] += 1
    return found


def pinned_by(term: nn.Module) -> str:
    """The file of reference cases with most of the term's class, or the tests of ours that name it."""
    files = pins().get(type(term).__name__)
    if files:
        file = max(files, key=lambda name: (files[name], name))
        others = sum(files.values()) - files[file]
        return f"[{file}](golden.md#{file}npz) {files[file]}" + (f" and {others} more" if others else "")
    name = rf"\b{type(term).__name__}\b"
    own = {path: len(re.findall(name, text_of(path))) for path in sorted(TESTS.rglob("test_*.py"))}
    path = max(own, key=lambda path: own[path])
    return f"`{path.relative_to(TESTS.parent)}`" if own[path] else ""


@cache
def on_cifar() -> dict[str, list[str]]:
    """By method: ratios of time and of operations on networks of real size."""
    _, *lines = (TESTS.parent / "benchmarks" / "methods_cifar.txt").read_text(encoding="utf-8").splitlines()
    return {line.split()[0]: line.split()[1:] for line in lines}


@cache
def costs() -> tuple[str, dict[str, float]]:
    """Where the costs were measured, and the ratio by method."""
    first, *lines = (TESTS.parent / "benchmarks" / "methods.txt").read_text(encoding="utf-8").splitlines()
    return first.removeprefix("# "), {line.split()[0]: float(line.split()[1]) for line in lines}


@cache
def published() -> dict[str, dict[str, str]]:
    """By method: its row of docs/published.tsv."""
    with (DOCS / "published.tsv").open(encoding="utf-8", newline="") as file:
        return {row["method"]: row for row in csv.DictReader(file, delimiter="\t")}


def published_cell(method: str) -> str:
    """The published figure with its source, and the setting where it is not the common one."""
    row = published().get(method)
    if row is None:
        return "-"
    where = [row["setting"]] if (row["setting"], row["alone"]) != COMMON else []
    alone = [f"alone {row['alone']}"] if where and row["alone"] else []
    return f"[{row['accuracy']}]({row['source']})" + (f" ({'; '.join(where + alone)})" if where else "")


def stated(path: Path) -> str:
    """What the head of a YAML says of others' weights."""
    lines = [line.removeprefix("# ") for line in text_of(path).splitlines() if line.startswith("# ")]
    said = [part.strip(" .") for line in lines for part in re.split(r"[.;] ", line)]
    return "; ".join(part for part in said if re.search(r"authors|usual |preset=|paper's", part))


def settings(path: Path) -> str:
    """A method's row in the second table."""
    node, method = OmegaConf.load(path), built(path)
    found = list(dict.fromkeys(pinned_by(term) for term in method.terms.values()))
    cost = costs()[1].get(path.stem)
    cells = [
        f"`{path.stem}`",
        f"{node.weights.task:g}",
        "-" if node.temperature is None else f"{node.temperature:g}",
        stated(path) or "-",
        ", ".join(text for text in found if text),
        published_cell(path.stem),
        "-" if cost is None else f"{cost:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def page() -> str:
    """The page's text."""
    lines = []
    shown = [path for path in ALL if path.stem != "none"]
    for path in shown:
        node, method, learns = OmegaConf.load(path), built(path), learning(path)
        paper = text_of(path).splitlines()[0].removeprefix("# ")
        paper = re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[\1](https://arxiv.org/abs/\1)", paper.split("; ")[0])
        paper += ")" * (paper.count("(") - paper.count(")"))
        for number, (name, term) in enumerate(method.terms.items()):
            tapped = OmegaConf.to_container(node.terms[name], resolve=False)
            taps = any(str(tap) in str(tapped) for tap in node.taps.student)
            wanted = needs(term, method.asks.get(name, ()), taps, name in learns)
            first = f"`{path.stem}`: {paper}" if number == 0 else ""
            loss = first_formula(type(term)).replace("|", "\\|")
            lines.append(f"| {first} | `{name}` {node.weights[name]:g} | {loss} | {', '.join(wanted)} |")
    rows = [settings(path) for path in shown]
    said = {
        "machine": costs()[0],
        "cifar": ", ".join(f"`{name}` {time}" for name, (time, _) in on_cifar().items() if name != "kd"),
        "bound": on_cifar()["review"][1],
    }
    return HEAD + "\n".join(lines) + "\n" + SETTINGS.format(**said) + "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
