"""Are the classes that weights were trained for called as the data's, in their order? A run and an exported file say their names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from kd_lightning.errors import UserError
from kd_lightning.runs.directory import checkpoint_in

_SHOWN = 8


def names_beside(path: Path | str) -> list[str] | None:
    """What ``preprocessing.json`` beside an exported file, or ``result.json`` of a checkpoint's run, calls its classes."""
    folder = checkpoint_in(str(path)).parent
    for file, part in ((folder / "preprocessing.json", None), (folder.parent / "result.json", "data")):
        try:
            known = json.loads(file.read_text(encoding="utf-8"))
            names = (known if part is None else known[part])["class_names"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if isinstance(names, list):
            return [str(name) for name in names]
    return None


def other_classes(path: Path | str, ours: Sequence[str] | None, where: str, key: str = "checkpoint") -> str | None:
    """What to say of a teacher's weights whose classes are not called as the data's; None where they are, or nobody knows.

    Args:
        path: of the weights, a file or a run's directory.
        ours: names of the data's classes, in their order.
        where: the teacher's key.
        key: within it, that names the weights.

    Raises:
        UserError: they are the same in another order.
    """
    theirs = names_beside(path)
    if theirs is None or ours is None or len(theirs) != len(ours) or _plain(theirs) == _plain(ours):
        return None  # of another number: does not fit, which is told elsewhere
    told = f"{where}.{key}={path}: {_both(theirs, ours)}"
    if same_in_another_order(theirs, ours):
        order = ",".join(str(_plain(theirs).index(name)) for name in _plain(ours))
        raise UserError(f"{told}, the same in another order: {where}.classes=[{order}]")
    return f"{told}: taken for these in this order ({where}.classes=[…] gives another)"


def start_in_another_order(path: Path | str, ours: Sequence[str] | None) -> str | None:
    """What to say of a student that starts from a head of the same classes in another order; of other classes it learns new ones."""
    theirs = names_beside(path)
    if theirs is None or ours is None or not same_in_another_order(theirs, ours):
        return None
    return f"init_from={path}: {_both(theirs, ours)}, the same in another order: its last layer starts as if they were mixed up"


def same_in_another_order(theirs: Sequence[str], ours: Sequence[str]) -> bool:
    """Whether both name the same classes, each at another place."""
    return _plain(theirs) != _plain(ours) and sorted(_plain(theirs)) == sorted(_plain(ours))


def _plain(names: Sequence[str]) -> list[str]:
    return [str(name).strip().casefold() for name in names]


def _both(theirs: Sequence[str], ours: Sequence[str]) -> str:
    return f"its classes are {_listed(theirs)}, the data's {_listed(ours)}"


def require_different(classes: Sequence[int] | None) -> None:
    """Raise a UserError where ``teacher.classes`` gives one of the teacher's classes to two of the data's."""
    twice = next((k for k in classes or () if list(classes or ()).count(k) > 1), None)
    if twice is not None:
        raise UserError(
            f"teacher.classes: {twice} stands twice: each class of the data needs one of the teacher's of its own, got "
            f"{list(classes or ())}"
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(str, names[:_SHOWN])) + (", …" if len(names) > _SHOWN else "")
