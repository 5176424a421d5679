"""Class numbers that cannot be meant, refused in one line that says what to type."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kd_lightning.errors import UserError

IGNORED = (-100, 255)  # what torch's cross_entropy and segmentation masks write for "no label"
LISTED = 12
SUSPICIOUS = 20  # so many labels that are (almost) all different are positions, identifiers or the inputs themselves
ALMOST_ALL = 0.9


def ignored_numbers(frequency: dict[int, int], num_classes: int | None) -> tuple[int, ...]:
    """Numbers that cannot be classes beside the others and are written for "no label" by convention."""
    others = [number for number in frequency if number not in IGNORED]
    largest = max(others, default=0)
    far = {-100: True, 255: bool(others) and (num_classes <= 255 if num_classes else 2 * largest + 2 < 255)}
    return tuple(number for number in IGNORED if number in frequency and far[number])


def refuse(present: list[int], samples: int, key: str, num_classes: int | None, dense: bool) -> None:
    """Stop at labels that cannot be meant."""
    low, high = present[0], present[-1]
    listed = ", ".join(map(str, present[:LISTED])) + (", …" if len(present) > LISTED else "")
    remedy = f"data.classes=[{','.join(map(str, present))}] numbers them from 0" if len(present) <= LISTED else ""
    if low < 0:
        raise UserError(
            f"{key}: labels are {listed}: class numbers count from 0, and -1 marks no label; {remedy}".rstrip("; ")
        )
    if len(present) == 1 and not dense:
        raise UserError(
            f"{key}: all {samples} labelled samples have the label {low}: there is nothing to learn; give the target's "
            "name or position with data.target, or, without labels, data.target=none"
        )
    if not dense and len(present) == samples >= SUSPICIOUS:
        raise UserError(
            f"{key}: {samples} samples have {samples} different labels, from {low} to {high}: these are positions or "
            "values; choose another element with data.target, or set data.target_type=values"
        )
    if num_classes is not None and high >= num_classes:
        more = f"; {remedy}" if low > 0 and remedy else ""
        raise UserError(f"data.num_classes={num_classes}, but a target is {high}: classes count from 0{more}")
    if num_classes is None and not dense and (low > 0 or high + 1 >= 2 * len(present) + 2):
        what = "count from 1" if low == 1 and high == len(present) else "leave numbers out"
        raise UserError(
            f"{key}: labels {what} ({listed}): {remedy + ', ' if remedy else ''}data.num_classes={high + 1} takes them as "
            "they are, data.target_type=values as values"
        )


def nearly_equal(names: Sequence[str]) -> str | None:
    """What is worth a warning of class names that differ by capitals or blanks only; single letters may (``a`` and ``A``)."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(" ".join(name.split()).casefold(), []).append(name)
    found = [group for plain, group in alike.items() if len(group) > 1 and len(plain) > 1]
    if not found:
        return None
    listed = "; ".join(", ".join(map(repr, group)) for group in found[:LISTED])
    return f"classes that differ by capitals or blanks only are classes of their own: {listed}: write them alike if they are one"


def check_count(width: int, num_classes: int | None, key: str) -> None:
    if num_classes is not None and num_classes != width:
        raise UserError(f"data.num_classes={num_classes}, but a target of {key} has {width} columns")


def refuse_infinite(values: Tensor, key: str, rows: Tensor | None = None) -> None:
    """Stop at values that are infinite, or would be as float32: one spoils every figure that it is part of.

    Args:
        values: shape (N, ...).
        key: config key of the data.
        rows: where these samples stand in the data set; None: they are all of it.
    """
    odd = values.to(torch.float32).isinf() if values.is_floating_point() else torch.zeros(0, dtype=torch.bool)
    if not bool(odd.any()):
        return
    first = odd.nonzero()[0]
    place = int(first[0]) if rows is None else int(rows[first[0]])
    within = f" at position {first[1:].tolist()}" if len(first) > 1 else ""
    raise UserError(
        f"{key}: the target of sample {place} (the first is 0) is {float(values[tuple(first)]):g}{within}: values must be "
        "finite as float32; nan says that nobody knows one"
    )
