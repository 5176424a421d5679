"""Several teachers as one: the mean of what they say, or one of them at a time (You et al. 2017; Fukuda et al. 2017).

Each member is a teacher with a YAML of its own, trained or loaded like any other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from kd_lightning.batch import Batch
from kd_lightning.errors import UserError
from kd_lightning.joints import FEATURES, VALUES, Teacher
from kd_lightning.outputs import ModelOutput
from kd_lightning.teachers.kind import TeacherContext, build_kind

COMBINE = ("logits", "probabilities", "draw", "confidence")


class EnsembleTeacher:
    """Makes an :class:`Ensemble` of the teachers that ``members`` describe.

    Args:
        members: teachers by name, each with a node as under ``teacher``.
        combine: ``logits`` or ``probabilities`` are averaged, or one member answers: ``draw``, or who is more certain of a
            sample counts more: ``confidence``; see :class:`Ensemble`.
        weights: by member's name, >= 0; they are divided by their sum. None: equal.
        features: the member whose hidden layers a method sees; None: the first.
        seed: of the draws.
    """

    def __init__(
        self,
        members: Mapping[str, Mapping[str, Any]],
        combine: Literal["logits", "probabilities", "draw", "confidence"] = "logits",
        weights: Mapping[str, float] | None = None,
        features: str | None = None,
        seed: int = 0,
    ) -> None:
        if not members:
            raise UserError("teacher.members: an ensemble needs at least one member")
        if features is not None and features not in members:
            raise UserError(f"teacher.features: there is no member {features!r}: it is one of {', '.join(members)}")
        self.members = dict(members)
        self.combine, self.seed = combine, seed
        self.weights = _shares(weights, list(members))
        self.features = features or next(iter(members))
        self._kinds = {name: build_kind(node, f"teacher.members.{name}") for name, node in members.items()}

    @property
    def provides(self) -> frozenset[str]:
        common = frozenset.intersection(*(kind.provides for kind in self._kinds.values()))
        return (common - {FEATURES}) | (self._kinds[self.features].provides & {FEATURES})

    @property
    def labels_new_inputs(self) -> bool:
        return all(kind.labels_new_inputs for kind in self._kinds.values())

    def make(self, context: TeacherContext) -> Teacher:
        made: dict[str, Teacher] = {}
        for name, kind in self._kinds.items():
            layers = context.layers if name == self.features else ()
            member = kind.make(context.of_member(f"members.{name}", self.members[name], layers))
            if member is None:
                raise UserError(f"{context.where}.members.{name}: is no teacher; leave it out with ~{context.where}.…")
            made[name] = member
        mixing = getattr(context.datamodule, "mixing", None)
        if self.combine == "confidence" and mixing is not None:
            raise UserError(
                f"{context.where}.combine=confidence weighs the members by the sample's label, a mixed sample has two: leave "
                f"out {mixing.keys}, or set combine=probabilities"
            )
        values = VALUES in context.task.provides or all(VALUES in member.provides for member in made.values())
        if values and self.combine == "probabilities":
            raise UserError(
                f"{context.where}.combine=probabilities: the members answer with values: set combine=logits"
            )
        return Ensemble(made, self.combine, self.weights, self.features, self.seed, context.name, values)


class Ensemble:
    """Teachers that answer together.

    Averaged logits are ``sum_m w_m z_m``; averaged probabilities ``log sum_m w_m softmax(z_m)``, as logits. With
    ``draw`` each training sample is answered by one member, chosen with probability ``w_m`` by a function of (seed,
    view, position in the data set): the same in every run, whatever batch the sample is in, so that stored answers stay
    exact. Where samples have a single view, a sample keeps its member. With ``confidence`` (after CA-MKD, Zhang et al. 2022,
    arXiv:2201.00007, eq. 3) the probabilities of a training sample are averaged with weights in proportion to
    ``w_m (1 - exp(e_m) / sum_j exp(e_j))``, ``e_m`` the member's cross-entropy with the label, or the entropy of its own
    answer where the sample has none. Evaluation gets the averaged probabilities.

    Values are averaged as logits are, with ``draw`` in evaluation too. Where every member has a spread, that of the average
    is the mixture's, ``v = sum_m w_m (v_m + (mu_m - mu)^2)``, which counts how far the members are apart as well
    (Lakshminarayanan, Pritzel & Blundell 2017, arXiv:1612.01474, section 2.4).

    Args:
        members: teachers by name.
        combine: one of :data:`COMBINE`.
        weights: by name, with sum 1.
        features: the member whose features the output has.
        seed: of the draws.
        name: for messages and tables.
        values: the members answer with values instead of classes.
    """

    def __init__(
        self,
        members: Mapping[str, Teacher],
        combine: str,
        weights: Mapping[str, float],
        features: str,
        seed: int = 0,
        name: str = "ensemble",
        values: bool = False,
    ) -> None:
        if combine not in COMBINE:
            raise UserError(f"teacher.combine: got {combine!r}, choose one of {', '.join(COMBINE)}")
        self.members, self.combine, self.weights = dict(members), combine, dict(weights)
        self.features, self.seed, self._name, self._values = features, seed, name, values

    @property
    def name(self) -> str:
        return self._name

    @property
    def provides(self) -> frozenset[str]:
        common = frozenset.intersection(*(member.provides for member in self.members.values()))
        return (common - {FEATURES}) | (self.members[self.features].provides & {FEATURES})

    @property
    def labels_new_inputs(self) -> bool:
        return all(member.labels_new_inputs for member in self.members.values())

    def __call__(self, batch: Batch) -> ModelOutput:
        if not self.provides - {FEATURES}:  # some member knows other classes: only the features are of use
            return self.members[self.features](batch)
        outputs = {name: member(batch) for name, member in self.members.items()}
        logits = [output.logits for output in outputs.values()]
        weights, features = list(self.weights.values()), outputs[self.features].features
        if self.combine == "draw" and batch.split == "train":
            spreads = [output.spread for output in outputs.values() if output.spread is not None]
            spread = self._drawn(spreads, batch) if len(spreads) == len(logits) else None
            return ModelOutput(self._drawn(logits, batch), features, spread)
        if self.combine == "logits" or self._values:
            combined = sum_of(logits, weights)
            return ModelOutput(combined, features, mixture_spread(list(outputs.values()), combined, weights))
        if self.combine == "confidence" and batch.split == "train":
            return ModelOutput(self._by_confidence(torch.stack(logits), batch.target), features)
        shares = [z.log_softmax(1) + math.log(w) for z, w in zip(logits, weights, strict=True) if w]
        return ModelOutput(torch.logsumexp(torch.stack(shares), 0), features)

    def _drawn(self, logits: Sequence[Tensor], batch: Batch) -> Tensor:
        if batch.index is None:
            raise UserError("teacher.combine=draw needs the samples' positions: let the data set yield (…, …, index)")
        chosen = torch.bucketize(draws(batch.index, batch.view, self.seed), self._bounds(), right=True)
        rows = torch.stack(list(logits))
        return rows[chosen.to(rows.device), torch.arange(rows.shape[1], device=rows.device)]

    def _by_confidence(self, logits: Tensor, target: Any) -> Tensor:
        """Logits (M, N, C) of the members as one (N, C): logarithms of averaged probabilities."""
        logs = logits.float().log_softmax(dim=2)
        doubt = -(logs.exp() * logs).sum(dim=2)
        if isinstance(target, Tensor) and target.ndim == 1 and not target.is_floating_point():
            numbers = target.to(logs.device)
            chosen = numbers.clamp(min=0)[None, :, None].expand(len(logs), -1, 1)
            doubt = torch.where(numbers >= 0, -logs.gather(2, chosen).squeeze(2), doubt)
        shares = (1 - doubt.softmax(dim=0)) * torch.tensor(list(self.weights.values()), device=logs.device)[:, None]
        shares = shares / shares.sum(dim=0).clamp(min=1e-12) if len(logs) > 1 else torch.ones_like(shares)
        return torch.logsumexp(logs + shares.clamp(min=1e-30).log()[:, :, None], dim=0)

    def _bounds(self) -> Tensor:
        """Upper ends of the members' shares of [0, 1), without the last."""
        return torch.tensor(list(self.weights.values()), dtype=torch.float64).cumsum(0)[:-1]

    def to(self, device: torch.device | str) -> Ensemble:
        for member in self.members.values():
            member.to(device)
        return self

    def verify(self) -> None:
        for member in self.members.values():
            member.verify()

    def cache_parts(self) -> dict[str, Any]:
        own: dict[str, Any] = {"combine": self.combine, "weights": self.weights}
        if self.combine == "draw":
            own["seed"] = self.seed
        return {**own, "members": {name: member.cache_parts() for name, member in self.members.items()}}

    def describe(self) -> dict[str, Any]:
        members = {name: member.describe() for name, member in self.members.items()}
        summed = {
            key: sum(described[key] for described in members.values())
            for key in ("parameters", "bytes")
            if all(isinstance(described.get(key), int) for described in members.values())
        }
        return {"name": self.name, **summed, "members": members}


def sum_of(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted sum of tensors of one shape."""
    total = tensors[0] * weights[0]
    for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
        total = total + tensor * weight
    return total


def mixture_spread(outputs: Sequence[ModelOutput], mean: Tensor, weights: Sequence[float]) -> Tensor | None:
    """Log-variance of the mixture of Gaussians whose mean is ``mean``; None unless every member has a spread."""
    moments = []
    for output in outputs:
        if output.spread is None:
            return None
        moments.append(output.spread.exp() + (output.logits - mean).square())
    return sum_of(moments, weights).log()


def draws(index: Tensor, view: int | Tensor, seed: int) -> Tensor:
    """A number in [0, 1) for each position (N,), float64: a function of position, view and seed only."""
    state = index.cpu().long() + 1
    view = view.cpu() if isinstance(view, Tensor) else view
    for salt in (view + 1, seed + 1):
        state = state * 0x9E3779B1 + salt * 0x85EBCA6B
        state = (state ^ (state >> 15)) & 0xFFFFFFFF
        state = (state * 0x2C1B3C6D) & 0xFFFFFFFF
        state = (state ^ (state >> 12)) & 0xFFFFFFFF
    return state.double() / 2**32


def _shares(weights: Mapping[str, float] | None, names: Sequence[str]) -> dict[str, float]:
    given = dict(weights or dict.fromkeys(names, 1.0))
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise UserError(f"teacher.weights.{unknown[0]}: there is no such member: they are {', '.join(names)}")
    values = {name: float(given.get(name, 0.0)) for name in names}
    total = sum(values.values())
    if min(values.values()) < 0 or not 0 < total < math.inf:
        raise UserError(f"teacher.weights: must be numbers >= 0, one of them above 0, got {given}")
    return {name: value / total for name, value in values.items()}
