"""Where in a checkpoint a model's tensors lie, and behind which words in front of their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from kd_lightning.runs.checkpoint import fits, shape_of

WRAPPERS = frozenset({"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Words that torch.compile, DataParallel, FSDP and activation checkpointing put into names, at any depth."""
CONTAINERS = ("state_dict", "model", "model_state_dict", "net", "student", "weights", "model_state", "params")
"""Where weights usually lie, and what modules usually call the one that they wrap: the first that fits is taken."""
OTHERWISE_USUAL = ("backbone", "encoder", "network", "architecture", "teacher", "classifier", "_forward_module")
AVERAGED = re.compile(r"(^|_)(ema|swa|shadow|averaged?|averaging)(_|\d|$)", re.IGNORECASE)
ASIDE = (
    "optim",
    "scheduler",
    "scaler",
    "callbacks",
    "loops",
    "hyper_parameters",
    "hparams",
    "args",
    "config",
    "training",
)
HARMLESS = ("num_batches_tracked", "total_ops", "total_params", "n_averaged")
"""Last words of counters: in the file or in the model alone, they change nothing."""
NO_MODEL = re.compile(
    r"(^|_)(criterion|loss|metrics?|acc|accuracy|auroc|precision|recall|confusion)(_|\d|$)", re.IGNORECASE
)
"""What LightningModules keep beside their layers."""


@dataclass(frozen=True)
class Match:
    """One place in a checkpoint, held against a model.

    Attributes:
        place: the place's keys and the words in front of its names, joined by dots; empty: the names as they are.
        found: model's name -> tensor, of those that fit.
        missing: names of the model that are not there.
        shaped: names that have another shape there, with it.
        unused: names in the file, beside those of the model, that no part of the model took.
        foreign: of these, those that lie among the model's own: another architecture has them.
        share: part of the tensors at this place that lie under its words.
    """

    place: str
    found: Mapping[str, Tensor]
    missing: tuple[str, ...]
    shaped: Mapping[str, tuple[int, ...]]
    unused: tuple[str, ...]
    foreign: tuple[str, ...]
    share: float

    @property
    def fits(self) -> bool:
        """Whether it fills the whole model, and is of the same one as far as names and shapes tell."""
        return bool(self.found) and not self.missing and not self.shaped and not self.foreign

    @property
    def expected(self) -> bool:
        """Whether it lies where weights lie, or is most of what is there: one layer of a large model is no small model."""
        known = {*CONTAINERS, *OTHERWISE_USUAL, *WRAPPERS}
        return not self.words or self.words[-1] in known or self.share >= 0.5

    @property
    def words(self) -> list[str]:
        return self.place.split(".") if self.place else []

    @property
    def averaged(self) -> bool:
        return any(AVERAGED.search(word) for word in self.words)

    @property
    def rank(self) -> tuple[bool, int]:
        """Raw weights before averaged ones, usual places before others."""
        known = [CONTAINERS.index(word) if word in CONTAINERS else len(CONTAINERS) for word in self.words]
        return self.averaged, max(known, default=-1)


def all_matches(model: nn.Module, content: Mapping[str, Any]) -> list[Match]:
    """Every place in a checkpoint that has names of the model, as they are or behind other words."""
    return _distinct(_matches(model, content))


def _matches(model: nn.Module, content: Mapping[str, Any]) -> Iterator[Match]:
    own = model.state_dict()
    for path, tensors in places(content):
        seen = set()
        for rename in (_as_it_is, _without_wrappers):
            named = {rename(name): name for name in tensors}
            if len(named) < len(tensors) or tuple(named) in seen:
                continue
            seen.add(tuple(named))
            for prefix in _prefixes(own, named):
                yield _match(model, own, path, {name: tensors[stored] for name, stored in named.items()}, prefix)
        stem = _common_word(own)
        if stem:  # the model wraps the one that was saved
            renamed = {f"{stem}.{name}": value for name, value in tensors.items()}
            if any(name in own for name in renamed):
                yield _match(model, own, path, renamed, "")


def _distinct(matches: Iterable[Match]) -> list[Match]:
    """Of several ways to come to the same tensors the first."""
    kept: dict[frozenset[int], Match] = {}
    for match in matches:
        kept.setdefault(frozenset(id(tensor) for tensor in match.found.values()), match)
    return list(kept.values())


def _match(
    model: nn.Module, own: Mapping[str, Tensor], path: Sequence[str], tensors: Mapping[str, Tensor], prefix: str
) -> Match:
    inside = {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
    found = {name: inside[name] for name in own if name in inside and fits(own[name], inside[name])}
    filled = {_memory(own[name]) for name in found} - {None}
    missing = [
        name
        for name in own
        if name not in inside
        and name.rpartition(".")[2] not in HARMLESS
        and _memory(own[name]) not in filled  # shared with one that is there, as a head with its embedding
    ]
    extra = [name for name in inside if name not in own]
    outside = [name for name in tensors if not name.startswith(prefix)]
    left_out = tuple(f"{name}." for name in getattr(model, "left_out", ()))  # layers that a model says it goes without
    harmless = [
        n
        for n in extra
        if n.rpartition(".")[2] in HARMLESS or NO_MODEL.search(n.partition(".")[0]) or n.startswith(left_out)
    ]
    return Match(
        place=".".join([*path, *prefix.rstrip(".").split(".")]) if prefix else ".".join(path),
        found=found,
        missing=tuple(missing),
        shaped={name: shape_of(inside[name]) for name in own if name in inside and name not in found},
        unused=tuple(outside + extra),
        foreign=tuple(name for name in extra if name not in harmless),
        share=len(inside) / max(1, len(tensors)),
    )


def places(
    content: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """The mappings in a checkpoint that hold tensors by name, from the outside in."""
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if tensors:
        yield path, tensors
    for name, value in content.items():
        deeper = isinstance(value, Mapping) and isinstance(name, str) and len(path) < 3
        if deeper and not any(word in name.lower() for word in ASIDE):
            yield from places(value, (*path, name))


def _prefixes(own: Mapping[str, Tensor], named: Mapping[str, str]) -> list[str]:
    """Words in front of the model's names in a file, those with most names first; none at all before any."""
    counted: dict[str, int] = {}
    by_ending: dict[str, list[str]] = {}
    for name in own:
        by_ending.setdefault(name.rpartition(".")[2], []).append(name)
    for stored in named:
        for name in by_ending.get(stored.rpartition(".")[2], ()):
            if stored == name or stored.endswith(f".{name}"):
                prefix = stored[: len(stored) - len(name)]
                counted[prefix] = counted.get(prefix, 0) + 1
    best = sorted(counted, key=lambda prefix: -counted[prefix])[:8]
    return sorted(best, key=lambda prefix: (prefix != "", -counted[prefix]))


def _common_word(own: Mapping[str, Tensor]) -> str:
    firsts = {name.partition(".")[0] for name in own}
    return firsts.pop() if len(firsts) == 1 and all("." in name for name in own) else ""


def _as_it_is(name: str) -> str:
    return name


def _without_wrappers(name: str) -> str:
    return ".".join(word for word in name.split(".") if word not in WRAPPERS)


def _memory(tensor: Tensor) -> tuple[int, torch.Size] | None:
    """Equal for two names of one tensor; None where that cannot be told."""
    return None if is_lazy(tensor) or not tensor.data_ptr() else (tensor.data_ptr(), tensor.shape)
