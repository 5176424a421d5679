"""What the plain keys of a configuration may hold: every key that is not an argument of some ``_target_``.

Arguments of targets need no declaration: their names and types are those of the callable's signature. For numbers that
have the same meaning wherever they stand (a learning rate, a probability), :data:`RANGES` says which values make sense.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kd_lightning.config.suggestions import did_you_mean

_KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "flag": "true or false",
    "text": "a text",
    "list": "a list",
    "mapping": "a mapping",
}


@dataclass(frozen=True)
class Rule:
    """What a key may hold.

    Args:
        kind: one of "integer", "number", "flag", "text", "list", "mapping".
        null: null is a value too.
        low, high: bounds that are allowed themselves; above, below: bounds that are not.
        choices: the texts that are allowed; empty for any.
    """

    kind: str
    null: bool = False
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with ``value``, None if nothing is."""
        if value is None:
            return None if self.null else f"must be {_KINDS[self.kind]}, got null"
        alike = {"number": ("integer",), "text": ("integer", "number")}  # YAML reads precision: 32 as a number
        if kind_of(value) not in (self.kind, *alike.get(self.kind, ())):
            return f"must be {_KINDS[self.kind]}{' or null' if self.null else ''}, got {show(value)}"
        if self.kind in ("integer", "number"):
            return self._out_of_range(value)
        if self.choices and str(value) not in self.choices:
            near = did_you_mean(str(value), self.choices, show=0)
            return f"must be one of {', '.join(self.choices)}, got {show(value)}{near}"
        return None

    def _out_of_range(self, value: float) -> str | None:
        bounds = (
            (self.low, ">=", self.low is None or value >= self.low),
            (self.above, ">", self.above is None or value > self.above),
            (self.high, "<=", self.high is None or value <= self.high),
            (self.below, "<", self.below is None or value < self.below),
        )
        if all(holds for _, _, holds in bounds):  # nan holds in none
            return None
        wanted = " and ".join(f"{sign} {bound:g}" for bound, sign, _ in bounds if bound is not None)
        return f"must be {wanted}, got {show(value)}"


def kind_of(value: Any) -> str:
    """Name the kind of a plain value, as :class:`Rule` does ("null" for None)."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "text"
    return "mapping" if isinstance(value, Mapping) else "list" if isinstance(value, Sequence) else type(value).__name__


def show(value: Any) -> str:
    """``value`` for an error line: as YAML would write it, cut short."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


_PROBABILITY = Rule("number", low=0, high=1)
_COUNT = Rule("integer", low=1)

PLAIN: dict[str, Rule] = {
    "name": Rule("text"),
    "seed": Rule("integer", low=0),
    "baseline": Rule("flag"),
    "run_dir": Rule("text"),
    "sweep_dir": Rule("text", null=True),
    "early_stopping.patience": Rule("integer", null=True, low=1),
    "early_stopping.min_delta": Rule("number", low=0),
    "checkpoint.every_n_steps": Rule("integer", null=True, low=1),
    "pictures.every_n_epochs": Rule("integer", low=0),
    "pictures.samples": _COUNT,
    "log_every_n_steps": _COUNT,
    "compile": Rule("flag"),
    "channels_last": Rule("flag"),
    "max_fused": Rule("integer", null=True, low=1),
    "paths.output_dir": Rule("text"),
    "paths.data_dir": Rule("text"),
    "paths.teacher_dir": Rule("text"),
    "paths.cache_dir": Rule("text"),
    "logger.tensorboard.flush_secs": Rule("number", above=0),
    "teacher.name": Rule("text"),
    "teacher.checkpoint": Rule("text", null=True),
    "teacher.checkpoint_key": Rule("text", null=True),
    "teacher.train.max_epochs": _COUNT,
    "teacher.train.seed": Rule("integer", low=0),
    "teacher.train.scheduler_interval": Rule("text", choices=("step", "epoch")),
    "teacher.normalization.mean": Rule("list"),
    "teacher.normalization.std": Rule("list"),
    "teacher.precision": Rule("text", choices=("32", "bf16", "fp16")),
    "teacher.channels_last": Rule("flag"),
    "teacher.compile": Rule("flag"),
    "teacher.cache": Rule("text"),
    "teacher.cache_precision": Rule("text", choices=("fp16", "bf16", "fp32")),
    "teacher.cache_limit_gb": Rule("number", null=True, above=0),
    "teacher.cache_top_k": Rule("integer", null=True, low=1),
}
"""Keys by their dotted name. A key that is a prefix of others is a mapping with just those keys."""

NULLABLE = frozenset(
    {"teacher.train", "teacher.normalization", "teacher.model", "scheduler", "teacher.train.scheduler"}
)
"""Mappings and targets that may be null as a whole."""

_TEACHERS = ("teacher.model", "teacher.train.optimizer", "teacher.train.scheduler")
TARGETS = frozenset(("launcher", "data", "task", "student", "method", "optimizer", "scheduler", *_TEACHERS))
"""Keys that hold a ``_target_`` with its arguments."""

MODELS = frozenset({"student", "teacher.model"})
"""Targets whose sizes are taken from the data where they are ``auto`` or not given."""

TARGET_MAPPINGS = frozenset({"logger", "callbacks"})
"""Keys that hold targets by name; null leaves one out."""

OWN_LOGGERS = frozenset({"logger.tensorboard"})
"""Members of :data:`TARGET_MAPPINGS` that are no targets: options of what every run has."""

BESIDE_TARGET: dict[str, dict[str, Rule]] = {
    "scheduler": {"interval": Rule("text", choices=("step", "epoch"))},
    "teacher.train.scheduler": {"interval": Rule("text", choices=("step", "epoch"))},
}
"""Keys that stand beside a target's arguments without being one."""

RANGES: dict[str, Rule] = {
    "temperature": Rule("number", null=True, above=0),
    "lr": Rule("number", above=0),
    "max_lr": Rule("number", above=0),
    "weight_decay": Rule("number", low=0),
    "momentum": Rule("number", low=0, below=1),
    "dropout": Rule("number", low=0, below=1),
    "label_smoothing": Rule("number", low=0, below=1),
    "pct_start": _PROBABILITY,
    "final_fraction": _PROBABILITY,
    "batch_size": _COUNT,
    "eval_batch_size": _COUNT,
    "seed": Rule("integer", low=0),
    "split_seed": Rule("integer", low=0),
    "val_size": Rule("number", above=0),
    "train_size": Rule("integer", null=True, low=1),
    "labelled": Rule("integer", null=True, low=0),
    "views": Rule("integer", null=True, low=0),
    "num_threads": Rule("integer", null=True, low=0),
    "prefetch": _COUNT,
    "timeout": Rule("number", null=True, above=0),
    "max_epochs": _COUNT,
    "max_steps": Rule("integer", low=-1),
    "accumulate_grad_batches": _COUNT,
    "gradient_clip_val": Rule("number", null=True, above=0),
}
"""Ranges of arguments that mean the same wherever they stand, by the last component of the key."""

TRAINER_ELSEWHERE = {
    "logger": "the group logger (logger=NAME)",
    "callbacks": "the group callbacks (+callbacks.NAME=...)",
    "default_root_dir": "run_dir",
    "log_every_n_steps": "the top-level key log_every_n_steps",
    "overfit_batches": "data.train_size=NUMBER (debug=overfit does)",
}
"""Arguments of Lightning's Trainer that have their own place in our configuration."""
