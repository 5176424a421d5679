"""What a Distiller has to know of the Trainer it runs under: how long the run is, a batch to look at, what cannot go together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import StochasticWeightAveraging, Timer, WeightAveraging
from torch import nn
from torch.utils.data import IterableDataset

from kd_lightning.batch import Batch, as_batch, unnamed
from kd_lightning.errors import UserError
from kd_lightning.joints import FEATURES, LOGITS
from kd_lightning.member import Member
from kd_lightning.outputs import ModelOutput
from kd_lightning.rng import RngStream
from kd_lightning.schedules.learning_rate import RunLength


def run_length(trainer: pl.Trainer, accumulate: int) -> RunLength:
    """The length that ``max_epochs`` and ``max_steps`` give, whichever ends first, if no epoch is cut short.

    Args:
        trainer: in ``fit``.
        accumulate: batches per optimizer step.
    """
    trainer.fit_loop.setup_data()
    batches = trainer.num_training_batches  # infinite for a stream of unknown length
    ends: list[int] = []
    if trainer.max_steps >= 0:
        ends.append(trainer.max_steps)
    steps = math.ceil(batches / accumulate) if math.isfinite(batches) else None
    if steps is not None and trainer.max_epochs is not None and trainer.max_epochs >= 0:
        ends.append(steps * trainer.max_epochs)
    total = max(1, min(ends)) if ends else None
    per_epoch = steps if steps is not None else total if total is not None else 1
    return RunLength(total, max(1, per_epoch if total is None else min(per_epoch, total)))


def ends_by_time(trainer: pl.Trainer) -> bool:
    """Whether ``max_time`` may end the run before its length in epochs or steps does."""
    return any(
        isinstance(callback, Timer) and callback.time_remaining() is not None for callback in _callbacks(trainer)
    )


def example_batch(trainer: pl.Trainer) -> Batch:
    """A batch of the training data, to infer shapes from; drawing it changes no order and no random number.

    Raises:
        UserError: there is none.
    """
    data: Any = getattr(trainer, "datamodule", None)  # there in a fit with a LightningDataModule only
    if hasattr(data, "example_batch"):
        return as_batch(data.example_batch())
    trainer.fit_loop.setup_data()
    loader: Any = trainer.train_dataloader
    dataset = getattr(loader, "dataset", None)
    with RngStream(0):
        if dataset is None or isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
            found = next(iter(loader), None)
        elif getattr(loader, "batch_size", None) is None:
            found = dataset[0]
        else:
            samples = [dataset[i] for i in range(min(2, len(dataset)))]
            found = loader.collate_fn(samples)
    if found is None:
        raise UserError("the training loader is empty: there is no batch to infer the shapes of a method's layers from")
    return as_batch(found)


def complete_methods(
    trainer: pl.Trainer, members: Sequence[Member], teacher: Callable[[Batch], ModelOutput] | None
) -> None:
    """Prepare and bind the members' methods where nobody has done it yet."""
    waiting = [member for member in members if member.method.needs_preparing]
    if waiting:
        batch = example_batch(trainer)
        answer = None if teacher is None else teacher(unnamed(batch))
        for member in waiting:
            member.prepare(batch, answer)
    for member in members:
        member.method.bind(member.student, teacher_module(teacher))


def at_end(trainer: pl.Trainer) -> bool:
    """At the end of an epoch: whether it was the last one."""
    epochs, steps = trainer.max_epochs, trainer.max_steps
    over = (epochs is not None and 0 <= epochs <= trainer.current_epoch + 1) or 0 <= steps <= trainer.global_step
    return over or trainer.should_stop


def averages_weights(trainer: pl.Trainer) -> bool:
    """Whether a callback puts averaged weights in place for a validation."""
    return any(isinstance(callback, WeightAveraging) for callback in _callbacks(trainer))


def _callbacks(trainer: pl.Trainer) -> Sequence[pl.Callback]:
    return trainer.callbacks  # type: ignore[attr-defined]  # set by a connector


def teacher_module(teacher: Callable[[Batch], Any] | None) -> nn.Module | None:
    """The network inside a teacher, for terms that look at its layers; None where it is none."""
    module = getattr(
        teacher, "module", None
    )  # of a teacher behind another: isinstance sees the property, not what it finds
    return module if isinstance(module, nn.Module) else None


def answers_evaluation(teacher: Callable[[Batch], Any]) -> bool:
    """Whether there is something to compare a student's answers with: logits, for samples of any split."""
    provides: frozenset[str] = getattr(teacher, "provides", frozenset({LOGITS}))
    anybody = bool(getattr(teacher, "labels_new_inputs", True))
    stored: frozenset[str] = getattr(teacher, "splits", frozenset())
    return bool(provides - {FEATURES}) and (anybody or {"val", "test"} <= stored)


def refuse_settings(trainer: pl.Trainer) -> None:
    """Stop where the Trainer was given what is each member's own.

    Raises:
        UserError: one line that says where to give it instead.
    """
    given = {
        "accumulate_grad_batches": (trainer.accumulate_grad_batches, 1),
        "gradient_clip_val": (trainer.gradient_clip_val, None),
        "precision": (trainer.precision, "32-true"),
    }
    for name, (value, default) in given.items():
        if value != default and not (name == "gradient_clip_val" and not value):
            raise UserError(
                f"Trainer({name}={value!r}): each member has its own, give it there: Member(..., {name}={value!r})"
            )
    for callback in _callbacks(trainer):
        if isinstance(callback, StochasticWeightAveraging):
            raise UserError(
                "StochasticWeightAveraging drives Lightning's own optimization, which a Distiller does not use: take "
                "pytorch_lightning.callbacks.WeightAveraging"
            )
