"""A distillation method: named loss terms with explicit weights, and the layers that they look at."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from kd_lightning.batch import Batch
from kd_lightning.errors import UserError
from kd_lightning.joints import LOGITS, Clock, View, Weight, Wrap
from kd_lightning.losses.mixed import takes_mixed
from kd_lightning.method_arguments import (
    TASK,
    checked_taps,
    checked_weights,
    scheduled_attributes,
    start_temperature,
    weight_schedules,
)
from kd_lightning.outputs import ModelOutput
from kd_lightning.schedules.values import START, as_schedule, value_now
from kd_lightning.terms import asked_for, disown, given, highest_temperature, needs_teacher


class Method(nn.Module):
    """The weighted sum ``total = weights.task * task loss + sum_k weights.<k> * term_k``.

    Weights are absolute: none is derived from another, none is normalised. A term whose weight is 0 is not computed.
    What a term learns itself (an adapter) is found by ``parameters()``, trained with the student, and left behind on
    export; what it keeps (a bank, a moving average) are its buffers, which travel in the run's checkpoint.

    A weight and the temperature may be schedules (:mod:`kd_lightning.schedules`). ``weights`` and ``temperature`` hold
    the values of the current step; so do the attributes of terms that were given a schedule
    (``temperature: ${method.temperature}``). A term that is scheduled is active even while its weight is 0.

    Args:
        terms: name -> loss term, an ``nn.Module`` called as ``term(student, teacher, target)`` that returns a scalar;
            further parameters of its ``forward`` ask for something by name (:class:`kd_lightning.joints.Term`).
        weights: name -> weight >= 0 or schedule, for ``task`` and for each term; at least one must be > 0 some time.
        temperature: softening T > 0 that the terms share (terms get it by interpolation), None where there is none.
        taps: ``{"student": {tap: layer}, "teacher": {tap: layer}}``: features that the terms need, see
            :mod:`kd_lightning.taps`. In a configuration, "auto": pairs of layers are chosen before training.
        wrap: makes another student of the student, where the method changes what is exported
            (:class:`kd_lightning.joints.Wrap`; :mod:`kd_lightning.models.teacher_classifier` is one). None: the student
            stays as it is.

    Raises:
        UserError: names or values of terms, weights, temperature or taps that cannot be meant, naming the config key.
    """

    def __init__(
        self,
        terms: Mapping[str, nn.Module] | None,
        weights: Mapping[str, Weight],
        temperature: Weight | None = None,
        taps: Mapping[str, Mapping[str, str]] | str | None = None,
        wrap: Wrap | None = None,
    ) -> None:
        super().__init__()
        self.wrap = wrap
        terms = dict(terms or {})
        self.terms = nn.ModuleDict()
        self._asks: dict[str, tuple[str, ...]] = {}
        for name, term in terms.items():
            if name == TASK or not str(name).isidentifier():
                raise UserError(f"method.terms.{name}: a term's name must be an identifier other than {TASK!r}")
            if not isinstance(term, nn.Module):
                raise UserError(f"method.terms.{name} must be an nn.Module (set its _target_), got {term!r}")
            self.terms[name] = term
            self._asks[name] = asked_for(name, term)
        self._weight_schedules = weight_schedules(weights)
        self.weights = checked_weights(weights, [TASK, *terms], self._weight_schedules)
        self._temperature_schedule = as_schedule(temperature)
        self.temperature = start_temperature(temperature, self._temperature_schedule)
        self.taps = checked_taps(taps)
        self._highest = {name: highest_temperature(term) for name, term in self.terms.items()}
        self._following = scheduled_attributes(self.terms)
        self.prepared = False
        self.keep_weighted = False
        """Keep each weighted part of the last loss, with its graph, until :meth:`take_weighted` (for optimizers that
        tell the parts' gradients apart)."""
        self._weighted: dict[str, Tensor] = {}
        self._bound = False
        self._at(START)

    # -- what it asks of others ----------------------------------------------------------------------------------
    @property
    def active(self) -> list[str]:
        """Names of the terms that count: those whose weight is above 0, now or by a schedule."""
        return [name for name in self.terms if self.weights[name] > 0 or name in self._weight_schedules]

    @property
    def needs_teacher(self) -> bool:
        """False if no active term uses a teacher: then it need not run."""
        return any(needs_teacher(self.terms[name]) for name in self.active)

    @property
    def requires(self) -> frozenset[str]:
        """What the active terms read of the teacher's output (``logits``, ``features``, …); empty without a teacher."""
        wanted: frozenset[str] = frozenset()
        for name in self.active:
            if needs_teacher(self.terms[name]):
                wanted |= frozenset(getattr(self.terms[name], "requires", {LOGITS}))
        return wanted

    @property
    def highest_temperatures(self) -> dict[str, float]:
        """By active term: :func:`kd_lightning.terms.highest_temperature`."""
        return {name: self._highest[name] for name in self.active}

    @property
    def asks(self) -> dict[str, tuple[str, ...]]:
        """By active term: what its ``forward`` asks for beyond student, teacher and target."""
        return {name: self._asks[name] for name in self.active if self._asks[name]}

    def refuse_mixed(self, keys: str) -> None:
        """Stop where an active term looks at the target, of which mixed samples have two.

        Raises:
            UserError: naming the term, and ``keys``, what mixes the samples.
        """
        for name in self.active:
            if not takes_mixed(self.terms[name]):
                raise UserError(
                    f"method.terms.{name}: {type(self.terms[name]).__name__} looks at the sample's label, a mixed sample "
                    f"has two: leave out {keys}, or this term (one that does not look at it says takes_mixed = True)"
                )

    @property
    def differentiating(self) -> list[str]:
        """The active terms that differentiate the student's output by its features (``differentiates``)."""
        return list(self._optional("differentiates"))

    @property
    def wants_views(self) -> bool:
        """Whether an active term asks for the further views of the samples."""
        return any("views" in asked for asked in self.asks.values())

    def attention(self) -> contextlib.AbstractContextManager[None]:
        """What the student's forward pass has to run in: fused attention is off where a term differentiates twice."""
        if self.differentiating:
            return sdpa_kernel(SDPBackend.MATH)
        return contextlib.nullcontext()

    @property
    def wants_inputs(self) -> bool:
        """Whether an active term asks for the batch, and so may look at its inputs."""
        return any("batch" in asked for asked in self.asks.values())

    @property
    def wants_clock(self) -> bool:
        """Whether anything here depends on where the run stands."""
        scheduled = bool(self._weight_schedules or self._temperature_schedule or self._following)
        return scheduled or any("clock" in a for a in self.asks.values()) or bool(self._optional("after_step"))

    @property
    def scheduled(self) -> dict[str, float]:
        """The current values of what is scheduled, for logs: ``weight_<term>`` and ``temperature``."""
        now = {f"weight_{name}": self.weights[name] for name in self._weight_schedules}
        if self._temperature_schedule is not None and self.temperature is not None:
            now["temperature"] = self.temperature
        return now

    # -- before and after steps ----------------------------------------------------------------------------------
    @property
    def needs_preparing(self) -> bool:
        """Whether an active term waits for :meth:`prepare`."""
        return not self.prepared and bool(self._optional("prepare"))

    def prepare(self, student: ModelOutput, teacher: ModelOutput | None) -> None:
        """Let the active terms build what depends on feature shapes; call once, before the optimizer is made.

        Args:
            student: the student's output on any batch, with its taps' features; only shapes matter.
            teacher: the teacher's output on the same batch; None if ``needs_teacher`` is False.
        """
        for prepare in self._optional("prepare").values():
            prepare(student, teacher)
        self.prepared = True

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        """Show the models to the active terms that want them (``bind``); a second call changes nothing.

        A model that a term keeps as an attribute stays the model's own: it is neither trained nor stored with the term.
        """
        if self._bound:
            return
        self._bound = True
        for name, bind in self._optional("bind").items():
            bind(student, teacher)
            disown(self.terms[name], (student, teacher))

    def after_step(self, student: nn.Module, clock: Clock) -> None:
        """Tell the active terms that want it (``after_step``) that the optimizer has stepped."""
        for after_step in self._optional("after_step").values():
            after_step(student, clock)

    # -- the loss ------------------------------------------------------------------------------------------------
    def forward(
        self,
        student: ModelOutput,
        teacher: ModelOutput | None,
        target: Tensor,
        task_loss: Tensor,
        *,
        clock: Clock | None = None,
        batch: Batch | None = None,
        views: Sequence[View] = (),
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The total loss of one batch, and each part of it.

        Args:
            student: output with logits (N, C) and the taps' features.
            teacher: output for the same batch; None only if ``needs_teacher`` is False.
            target: ground truth, shape (N, ...), handed to the terms.
            task_loss: scalar, the loss against the ground truth.
            clock: where the run stands; needed if ``wants_clock``.
            batch: for terms that ask for it or its index.
            views: outputs of student and teacher on the further views, for terms that ask for them.

        Returns:
            The scalar to differentiate, and the detached, unweighted scalars by name: ``task``, and each term whose
            weight is above 0 now.
        """
        if clock is not None:
            self._at(clock)
        parts = {TASK: task_loss.detach()}
        # A weight of 0 leaves the loss out instead of multiplying it: 0 * nan would be nan.
        total = self.weights[TASK] * task_loss if self.weights[TASK] > 0 else None
        weighted = {} if total is None else {TASK: total}
        for name, asked in self._asks.items():
            weight = self.weights[name]
            if not weight > 0:
                continue
            if asked:
                further = {what: given(name, what, clock, batch, views) for what in asked}
                value = self.terms[name](student, teacher, target, **further)
            else:
                value = self.terms[name](student, teacher, target)
            if not isinstance(value, Tensor) or value.numel() != 1:
                raise UserError(f"method.terms.{name} must return a scalar tensor, got {_described(value)}")
            value = value.reshape(())
            parts[name] = value.detach()
            weighted[name] = weight * value
            total = weighted[name] if total is None else total + weighted[name]
        if self.keep_weighted:
            self._weighted = weighted
        if total is None:  # every weight is 0 for now: nothing to learn from in this step
            total = 0.0 * student.logits.sum()
        return total, parts

    def take_weighted(self) -> dict[str, Tensor]:
        """The weighted parts of the last loss by name, ``task`` and terms; afterwards they are forgotten."""
        weighted, self._weighted = self._weighted, {}
        return weighted

    def extra_repr(self) -> str:
        return f"weights={self.weights}, temperature={self.temperature}"

    # -- helpers -------------------------------------------------------------------------------------------------
    def _at(self, clock: Clock) -> None:
        """Bring weights, temperature and the terms' scheduled attributes to their values at this moment."""
        for name, schedule in self._weight_schedules.items():
            self.weights[name] = value_now(schedule, clock, f"method.weights.{name}")
        if self._temperature_schedule is not None:
            self.temperature = value_now(self._temperature_schedule, clock, "method.temperature", above=True)
        for module, attribute, schedule, key in self._following:
            setattr(module, attribute, value_now(schedule, clock, key, above=attribute == "temperature"))

    def _optional(self, member: str) -> dict[str, Callable[..., Any]]:
        """A member that not every term has, by active term."""
        found = {name: getattr(self.terms[name], member, None) for name in self.active}
        return {name: value for name, value in found.items() if value is not None}


def _described(value: Any) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
