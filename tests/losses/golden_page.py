"""``docs/golden.md``: which class and arguments each reference case is, seen by building and computing it.

Write it anew with ``python tests/losses/golden_page.py``.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))

import golden_logits  # noqa: F401  (these four fill the table)
import golden_logits_more  # noqa: F401
import golden_maps  # noqa: F401
import golden_samples  # noqa: F401
import golden_variants  # noqa: F401
from golden_cases import all_cases, assert_equals_reference, entry
from golden_table import NOT_OURS, ours, reason

import kd_lightning.losses

PAGE = Path(__file__).resolve().parents[2] / "docs" / "golden.md"
HEAD = """# Reference cases

Which class and arguments each case of `tests/golden` is: {compared} of {all} in {files} files. Each row is compared by
`tests/losses/test_reference_values.py` in float64, losses to 1e-9 relative, gradients (of what the loss learns itself
too) to 1e-7 of the largest; where a case stands under "Not compared" below, the reason is given. `x` stands for the
name of a tap. The page is written by `python tests/losses/golden_page.py`.

Arguments are those that differ from the defaults. Weighted sums and cross-entropy with the labels, which some of the
references add, are left out.

Whole trainings, step by step (`tests/config/test_trajectories.py`, by configuration alone; three epochs of six batches,
losses to 1e-9, weights to 1e-8): RepDistiller's loop with soft targets and with attention transfer, mdistiller's DKD with its
warm-up. DOT's and DeepKD's optimizers: `tests/optimizers/test_separate_momenta.py`.
"""


def loss_classes() -> list[type[nn.Module]]:
    """Every class of ``kd_lightning.losses`` that is a module."""
    found = []
    for module in pkgutil.iter_modules(kd_lightning.losses.__path__, "kd_lightning.losses."):
        for value in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(value) and issubclass(value, nn.Module) and value.__module__ == module.name:
                found.append(value)
    return found


@contextlib.contextmanager
def recorded() -> Iterator[list[str]]:
    """What is constructed inside, as it could be written."""
    made: list[str] = []
    depth = 0
    originals = {kind: kind.__dict__["__init__"] for kind in loss_classes() if "__init__" in kind.__dict__}

    def patched(kind: type, original: Any) -> Any:
        def __init__(self: Any, *given: Any, **named: Any) -> None:
            nonlocal depth
            depth += 1
            try:
                original(self, *given, **named)
            finally:
                depth -= 1
            if depth == 0:
                made.append(written(type(self), original, (self, *given), named))

        return __init__

    for kind, original in originals.items():
        kind.__init__ = patched(kind, original)
    try:
        yield made
    finally:
        for kind, original in originals.items():
            kind.__init__ = original


def written(kind: type, original: Any, given: tuple[Any, ...], named: dict[str, Any]) -> str:
    """``losses.module.Class(argument=value)`` with the arguments that are not the defaults."""
    signature = inspect.signature(original)
    bound = signature.bind(*given, **named)
    parts = []
    for name, value in list(bound.arguments.items())[1:]:
        if value == signature.parameters[name].default:
            continue
        shown = (
            f"{type(value).__name__}(…)"
            if isinstance(value, nn.Module)
            else f"{value:g}"
            if isinstance(value, float)
            else repr(value)
        )
        parts.append(f"{name}={shown}")
    return f"{kind.__module__.removeprefix('kd_lightning.losses.')}.{kind.__name__}({', '.join(parts)})"


def page() -> str:
    """The page's text."""
    compared = [case for case in all_cases() if reason(*case) is None]
    counts = {"compared": len(compared), "all": len(all_cases()), "files": len({file for file, _ in all_cases()})}
    lines = [HEAD.format(**counts)]
    current = ""
    for file, case in sorted(all_cases()):
        if reason(file, case) is not None:
            continue
        if file != current:
            current = file
            lines.append(f"\n## {file}.npz\n\n| case | repository | class and arguments |\n|---|---|---|")
        torch.manual_seed(0)
        with recorded() as made:
            comparison = ours(file, case)
            assert comparison is not None
            assert_equals_reference(file, case, comparison.loss, **comparison.options)
        shown = ", ".join(f"`{text}`" for text in dict.fromkeys(made)) or "a function of the loss's module"
        lines.append(f"| {case} | {entry(file, case).get('repo') or 'none'} | {shown} |")
    lines.append("\n## Not compared\n\n| case | reason |\n|---|---|")
    lines += [f"| {pattern.replace('*', '…')} | {text} |" for pattern, text in NOT_OURS.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
