"""The name of a run in its sweep: readable, safe as a directory, and sorting as the numbers in it do.

``method.temperature=4 method.weights.kd=0.9 seed=0`` gives ``T04.0_kd0.90_s0``. A name is a function of the overrides
alone (not of the rest of the grid), so a sweep that is started again, or extended, finds the runs that it already has.

    component   = label + number          T04.0  kd0.90  lr0.0500  s0
                | option                  dkd    (of a config group)
                | label - text            precision-bf16-mixed
    name        = groups _ method's numbers _ others by key _ seed

A mapping is its values: ``method.weights={kd:0.5,task:0.1}`` gives ``kd0.50_task0.10``, and a schedule's value is that
of the weight: ``method.weights.kd.to=8`` gives ``kd.to8.00``.

Rules that make it unambiguous: ``_`` in a text becomes ``-``; a text with any other character than letters, digits,
``.`` and single ``_`` (and ``+`` before a word, as in ``kd+rkd``) carries a hash of itself, and so does a quoted one that would be a number without its quotes;
numbers keep every digit, and a whole one written with a point (``1.0``) its point where it may mean something else.
Rules that make it sort: a fixed number of digits before and after the point for the usual keys, and one ``_`` for each
digit more (``s9`` < ``s_10``, as ``_`` follows the digits). Should two jobs get one name all the same, the launcher
adds digits of their fingerprints.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from kd_lightning.config.keys import KEYS, decides
from kd_lightning.config.replicates import flat

_MAX_LENGTH = 120
_NUMBERS: dict[str, tuple[str, int, int]] = {  # last component of the key -> label, digits before and after the point
    "temperature": ("T", 2, 1),
    "seed": ("s", 1, 0),
    "max_epochs": ("epochs", 3, 0),
    "batch_size": ("b", 4, 0),
    "train_size": ("n", 5, 0),
    "labelled": ("labelled", 5, 0),
    "lr": ("lr", 1, 4),
    "weight_decay": ("wd", 1, 5),
    "momentum": ("momentum", 1, 2),
    "mixup": ("mixup", 1, 2),
    "cutmix": ("cutmix", 1, 2),
    "erasing": ("erasing", 1, 2),
}
_WEIGHTS = "method.weights."
_WEIGHT = (1, 2)  # method.weights.<term>
_INTEGER = (3, 0)  # any other key
_REAL = (1, 4)
_PLAIN_TEXT = re.compile(r"[A-Za-z0-9.]+(_[A-Za-z0-9.]+)*(\+[A-Za-z][A-Za-z0-9.]*(_[A-Za-z0-9.]+)*)*\Z")


def run_name(overrides: Sequence[str], swept: Iterable[str] | None = None) -> str:
    """Name the run of one job of a sweep.

    Args:
        overrides: the job's overrides, ``key=value``, one value each.
        swept: the keys that the sweep varies (see :func:`swept_keys`): the others are left out, as they are equal in
            every run. None keeps every key that decides the result.

    Returns:
        a name of letters, digits, ``.``, ``-`` and ``_``, at most 120 characters long; ``run`` if nothing is left.
    """
    keep = None if swept is None else {key.lstrip("+~") for key in swept}
    parts: dict[str, _Part] = {}  # a key that is given again takes the place of what it had
    for override in overrides:
        key, separator, value = override.partition("=")
        key = key.lstrip("+~").strip()
        if separator and (decides(key) if keep is None else key in keep):
            parts |= {part.key: part for part in _opened(key, value.strip())}
    ordered = sorted(parts.values(), key=lambda part: _rank(part.key))
    labels = _labels(ordered)
    name = "_".join(_component(part, label) for part, label in zip(ordered, labels, strict=True))
    if len(name) > _MAX_LENGTH:
        name = f"{name[: _MAX_LENGTH - 13]}-{_hash(name, 12)}"
    return name or "run"


def swept_keys(overrides: Sequence[str], params: dict[str, object] | None = None) -> list[str]:
    """Return the keys to which a multirun command line (and ``hydra.sweeper.params``) gives more than one value."""
    lines = [f"{key}={value}" for key, value in (params or {}).items()] + list(overrides)
    latest = {o.get_key_element(): o.is_sweep_override() for o in OverridesParser.create().parse_overrides(lines)}
    return [key.lstrip("+~") for key, is_swept in latest.items() if is_swept]


def register_resolver() -> None:
    """Make ``${kd_run_name:${hydra.overrides.task}}`` available in configs (``hydra.sweep.subdir``)."""
    OmegaConf.register_new_resolver("kd_run_name", _resolve, replace=True)


def _resolve(overrides: Sequence[str], swept: Sequence[str] | None = None) -> str:
    written: Any = OmegaConf.to_container(overrides, resolve=False) if OmegaConf.is_config(overrides) else overrides
    return run_name([str(o) for o in written or []], None if swept is None else [str(k) for k in swept])


@dataclass(frozen=True)
class _Part:
    """A key with one value; ``below``: the part of the key that stood in a mapping, all of which is in the label."""

    key: str
    value: str
    below: str = ""


def _opened(key: str, value: str) -> list[_Part]:
    """The override as keys with one value each: a mapping is opened, text stays as it was written."""
    whole = _Part(key, value)
    if not (value.startswith("{") and value.endswith("}")) or _is_group(key):
        return [whole]
    try:
        parsed = OverridesParser.create().parse_override(f"{key}={value}").value()
    except HydraException:
        return [whole]
    leaves = list(flat(parsed)) if isinstance(parsed, dict) else []
    return [_Part(f"{key}.{name}", _written(leaf), name) for name, leaf in leaves] or [whole]


def _written(value: object) -> str:
    if isinstance(value, str) and value.count(".") > 1:
        return f"{value.rpartition('.')[2]}_{_hash(value, 6)}"
    if isinstance(value, str):
        return value if _is_text(value) else f"'{value}'"
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


def _is_group(key: str) -> bool:
    return "/" in key or ("." not in key and key in KEYS and KEYS[key].group)


def _rank(key: str) -> tuple[int, str]:
    if _is_group(key):
        return 0, key
    if key.endswith("temperature"):
        return 1, key
    if key.startswith(_WEIGHTS):
        return 2, key
    return (4, key) if key == "seed" else (3, key)


def _labels(parts: Sequence[_Part]) -> list[str]:
    """Shortest labels that differ: the last component, with its parents where two would be alike."""
    paths = [re.split(r"[./@]", part.key) for part in parts]
    short = [_short(part, path) for part, path in zip(parts, paths, strict=True)]
    return [
        _text(label) if short.count(label) == 1 and path[0] != "teacher" else "-".join(map(_text, [*path[:-1], label]))
        for path, label in zip(paths, short, strict=True)
    ]


def _short(part: _Part, path: list[str]) -> str:
    if path[1:] and path[-1] == "seed":
        return "seed"
    if part.key.startswith(_WEIGHTS):  # a schedule's argument is called as the weight that it makes
        return ".".join(p for p in path[2:] if p != "_target_")
    if len(path) > 2 and path[-2] == "temperature":
        return f"T.{path[-1]}"
    return part.below if "." in part.below else _NUMBERS.get(path[-1], path[-1:])[0]


def _component(part: _Part, label: str) -> str:
    key, value = part.key, part.value
    if _is_group(key):
        return _text(_bare(value))
    number = _number(value)
    if number is None:
        return f"{label}-{_text(_bare(value))}"
    last, above = key.rpartition(".")[2], key.rpartition(".")[0].rpartition(".")[2]
    if key.startswith(_WEIGHTS):
        before, after = _WEIGHT
    elif last in _NUMBERS or above == "temperature":
        _, before, after = _NUMBERS.get(last, _NUMBERS["temperature"])
    else:
        before, after = _INTEGER if re.fullmatch(r"[+-]?[\d_]+", value) else _REAL
    return label + _digits(number, before, after)


def _bare(value: str) -> str:
    """A text without its quotes; with them where it would be something else without."""
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        inner = value[1:-1]
        return inner if _is_text(inner) else value
    return value


def _is_text(value: str) -> bool:
    """Whether a text would be one without quotes too."""
    words = ("true", "false", "null", "", "nan", "inf", "-inf")
    return _number(value) is None and value.lower() not in words and value[0] not in "[{"


def _number(value: str) -> Decimal | None:
    try:
        number = Decimal(value)
    except InvalidOperation:
        return None
    return number if number.is_finite() and abs(number.adjusted()) < 12 else None


def _digits(number: Decimal, before: int, after: int) -> str:
    """``number`` with at least so many digits on both sides of the point; ``_`` for each digit more before it."""
    whole, _, fraction = format(abs(number), "f").partition(".")
    whole, fraction = whole.lstrip("0").rjust(before, "0"), fraction.rstrip("0").ljust(after, "0")
    sign = "-" if number < 0 else ""
    return sign + "_" * (len(whole) - before) + whole + ("." + fraction if fraction else "")


def _text(value: str) -> str:
    if _PLAIN_TEXT.match(value) and len(value) <= 40:
        return value.replace("_", "-")
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", value).strip("-.")[:24]
    return f"{readable}-{_hash(value, 6)}" if readable else _hash(value, 6)


def _hash(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]
