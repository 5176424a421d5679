"""Looks at a distillation while it runs and says, once a run, what spoils it and what to do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytorch_lightning as pl
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from kd_lightning.callbacks.checks.agreement import Agreement
from kd_lightning.callbacks.checks.check import Check, Seen, Warned
from kd_lightning.callbacks.checks.features import ConstantFeatures
from kd_lightning.callbacks.checks.gradients import Gradients
from kd_lightning.callbacks.checks.soft_targets import SoftTargets
from kd_lightning.distiller import Distiller
from kd_lightning.joints import Teacher
from kd_lightning.member import Member
from kd_lightning.method import Method
from kd_lightning.method_arguments import TASK

log = logging.getLogger(__name__)

CHECKS: tuple[Callable[[], Check], ...] = (SoftTargets, ConstantFeatures, Agreement)


class Doctor(pl.Callback):
    """Warns in the log and through the members' recorders; changes no result to the last bit.

    It sees each member's method and terms being called (forward hooks) and each validation's figures, and draws no random
    number. A warning is said once a run, for all members that have it alike in one line; a recorder that knows it from
    before an interruption keeps it silent.

    Args:
        gradients_every: measure the gradient of each part of the loss every so many steps
            (:class:`kd_lightning.callbacks.checks.gradients.Gradients`), in one process; 0: never.
        verifies: ask the teacher at the end whether it is still what it was (``verify``); a run of ``kd-train`` does so itself.
        checks: what makes each further check, for every member anew.
    """

    def __init__(
        self, gradients_every: int = 0, *, verifies: bool = True, checks: Sequence[Callable[[], Check]] = CHECKS
    ) -> None:
        self._verifies = verifies
        self._gradients_every = gradients_every
        self._make = list(checks)
        self._checks: dict[int, list[Check]] = {}
        self._hooks: list[RemovableHandle] = []
        self._said: set[tuple[int, str]] = set()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        distiller = _distiller(pl_module)
        for i, member in enumerate(distiller.members):
            self._checks[i] = [make() for make in self._make]
            if self._gradients_every and trainer.world_size == 1:
                self._checks[i].append(Gradients(self._gradients_every))
            self._hooks += _watch(member, self._checks[i], lambda: distiller.global_step)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        distiller = _distiller(pl_module)
        for i, checks in self._checks.items():
            for check in checks:
                if figures := check.take_figures():
                    distiller.log_of(i, dict(figures))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for checks in self._checks.values():
            for check in checks:
                check.begin_epoch()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._ask(trainer, pl_module, lambda i, member, check: check.end_epoch(member))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        figures = _distiller(pl_module).validated
        if trainer.sanity_checking:
            return
        self._ask(
            trainer, pl_module, lambda i, member, check: check.validated(member, figures[i]) if i in figures else ()
        )

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        teacher = _distiller(pl_module).teacher
        if not self._verifies or not isinstance(teacher, Teacher):
            return
        try:
            teacher.verify()
        except RuntimeError as error:
            moved = Warned("teacher moved", " ".join(str(error).split()))
            first = {i: checks[0] for i, checks in self._checks.items() if checks}
            self._ask(trainer, pl_module, lambda i, member, check: [moved] if check is first[i] else ())

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._checks = [], {}

    def _ask(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        ask: Callable[[int, Member, Check], Iterable[Warned]],
    ) -> None:
        """Put a question to every check of every member that still trains, and say what is new."""
        distiller = _distiller(pl_module)
        told: dict[str, list[str]] = {}
        for i, checks in self._checks.items():
            if i not in distiller.active:
                continue
            for check in checks:
                for kind, text in ask(i, distiller.members[i], check):
                    if (i, kind) in self._said:
                        continue
                    self._said.add((i, kind))
                    if distiller.recorders[i].warned(kind, text):
                        told.setdefault(text, []).append(distiller.members[i].name)
        for text, names in told.items() if trainer.is_global_zero else ():
            log.warning("WARNING: %s: %s", ", ".join(names), text)


def _watch(member: Member, checks: Sequence[Check], step: Callable[[], int]) -> list[RemovableHandle]:
    """Hooks on the member's method and its terms. Closures: a copy of the module (weight averaging) copies nothing of them."""
    values: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda term, given, value: values.__setitem__(name, value)

    def hook(method: Method, given: tuple[Any, ...], named: dict[str, Any], made: Any) -> None:
        student, teacher, target, task_loss = given
        weights = method.weights
        weighted = {TASK: weights[TASK] * task_loss} if weights[TASK] > 0 else {}
        weighted |= {name: weights[name] * value.reshape(()) for name, value in values.items()}
        values.clear()
        seen = Seen(member, student, teacher, target, weighted, step())
        for check in checks:
            check.step(seen)

    hooks = [term.register_forward_hook(keep(name)) for name, term in member.method.terms.items()]
    return [*hooks, member.method.register_forward_hook(hook, with_kwargs=True)]


def _distiller(module: pl.LightningModule) -> Distiller:
    if not isinstance(module, Distiller):
        raise TypeError(f"the doctor looks at a Distiller, this is a {type(module).__name__}")
    return module
