"""The name of a run in its sweep: readable, safe as a directory, and sorting as the numbers in it do.

``method.temperature=4 method.weights.kd=0.9 seed=0`` gives ``T04.0_kd0.90_s0``. A name is a function of the overrides
alone (not of the rest of the grid), so a sweep that is started again, or extended, finds the runs that it already has.

    component   = label + number          T04.0  kd0.90  lr0.0500  s0
                | option                  dkd    (of a config group)
                | label - text            precision-bf16-mixed
    name        = groups _ method's numbers _ others by key _ seed

Rules that make it unambiguous: ``_`` in a text becomes ``-``; a text with any other character than letters, digits,
``.`` and single ``_`` carries a hash of itself; numbers keep every digit. Rules that make it sort: a fixed number of
digits before and after the point for the usual keys, and one ``_`` for each digit more (``s9`` < ``s_10``, as ``_``
follows the digits).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation

from omegaconf import OmegaConf

GROUPS = frozenset(
    (
        *("data", "task", "teacher", "student", "method", "preset", "optimizer", "scheduler", "trainer"),
        *("experiment", "debug"),
    )
)
"""Config groups: of an override of one, the option's name says enough."""

NOT_IN_NAME = frozenset(
    ("run_dir", "sweep_dir", "sweep", "launcher", "max_fused", "name", "hydra", "logger", "paths", "callbacks", "debug")
)
"""Keys (and all below them) that say where or how a run runs, not what it computes."""

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
}
_WEIGHT = (1, 2)  # method.weights.<term>
_INTEGER = (3, 0)  # any other key
_REAL = (1, 4)
_PLAIN_TEXT = re.compile(r"[A-Za-z0-9.]+(_[A-Za-z0-9.]+)*\Z")


def run_name(overrides: Sequence[str], swept: Iterable[str] | None = None) -> str:
    """Name the run of one job of a sweep.

    Args:
        overrides: the job's overrides, ``key=value``, one value each.
        swept: the keys that the sweep varies (see :func:`swept_keys`): the others are left out, as they are equal in
            every run. None keeps every key but those of where and how to run (:data:`NOT_IN_NAME`).

    Returns:
        a name of letters, digits, ``.``, ``-`` and ``_``, at most 120 characters long; ``run`` if nothing is left.
    """
    pairs = [_split(override) for override in overrides if "=" in override]
    if swept is not None:
        keep = {key.lstrip("+~") for key in swept}
        pairs = [(key, value) for key, value in pairs if key in keep]
    else:
        pairs = [(key, value) for key, value in pairs if re.split(r"[./@]", key)[0] not in NOT_IN_NAME]
    pairs = sorted(dict(pairs).items(), key=lambda pair: _rank(pair[0]))
    labels = _labels([key for key, _ in pairs])
    name = "_".join(_component(key, label, value) for (key, value), label in zip(pairs, labels, strict=True))
    if len(name) > _MAX_LENGTH:
        name = f"{name[: _MAX_LENGTH - 13]}-{_hash(name, 12)}"
    return name or "run"


def swept_keys(overrides: Sequence[str], params: dict[str, object] | None = None) -> list[str]:
    """Return the keys to which a multirun command line (and ``hydra.sweeper.params``) gives more than one value."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    lines = [f"{key}={value}" for key, value in (params or {}).items()] + list(overrides)
    latest = {o.get_key_element(): o.is_sweep_override() for o in OverridesParser.create().parse_overrides(lines)}
    return [key.lstrip("+~") for key, is_swept in latest.items() if is_swept]


def register_resolver() -> None:
    """Make ``${kd_run_name:${hydra.overrides.task}}`` available in configs (``hydra.sweep.subdir``)."""
    OmegaConf.register_new_resolver("kd_run_name", _resolve, replace=True)


def _resolve(overrides: Sequence[str], swept: Sequence[str] | None = None) -> str:
    written = OmegaConf.to_container(overrides, resolve=False) if OmegaConf.is_config(overrides) else overrides
    return run_name([str(o) for o in written], None if swept is None else [str(k) for k in swept])


def _split(override: str) -> tuple[str, str]:
    key, _, value = override.partition("=")
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    return key.lstrip("+~").strip(), value.strip()


def _is_group(key: str) -> bool:
    return "." not in key and (key in GROUPS or "/" in key)


def _rank(key: str) -> tuple[int, str]:
    if _is_group(key):
        return 0, key
    if key.endswith("temperature"):
        return 1, key
    if key.startswith("method.weights."):
        return 2, key
    return (4, key) if key == "seed" else (3, key)


def _labels(keys: list[str]) -> list[str]:
    """Shortest labels that differ: the last component, with its parents where two would be alike."""
    paths = [re.split(r"[./@]", key) for key in keys]
    short = ["seed" if path[1:] and path[-1] == "seed" else _NUMBERS.get(path[-1], path[-1:])[0] for path in paths]
    return [
        _text(label) if short.count(label) == 1 and path[0] != "teacher" else "-".join(map(_text, [*path[:-1], label]))
        for path, label in zip(paths, short, strict=True)
    ]


def _component(key: str, label: str, value: str) -> str:
    if _is_group(key):
        return _text(value)
    number = _number(value)
    if number is None:
        return f"{label}-{_text(value)}"
    last = key.rpartition(".")[2]
    if key.startswith("method.weights."):
        before, after = _WEIGHT
    elif last in _NUMBERS:
        _, before, after = _NUMBERS[last]
    else:
        before, after = _INTEGER if number == number.to_integral_value() and "." not in value else _REAL
    return label + _digits(number, before, after)


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
