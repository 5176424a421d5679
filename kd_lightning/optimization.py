"""How one member's parameters move: optimizer, learning-rate schedule, clipping, accumulation, loss scale.

Each member of a group has its own, so that one's overflow, clipping or schedule never touches another's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from kd_lightning.errors import UserError
from kd_lightning.optimizers.separate import SeparateMomenta
from kd_lightning.schedules.learning_rate import RunLength, make_scheduler, wants_metric


class Optimization:
    """Turns a loss into a step.

    Args:
        optimizer: called with the parameters (or groups of them), returns an optimizer.
        scheduler: called with the optimizer; None keeps the learning rate constant.
        scheduler_interval: "step", "epoch", or None: see :class:`kd_lightning.member.Member`.
        gradient_clip_val: largest norm of the gradient; None does not clip.
        accumulate_grad_batches: batches per optimizer step.
        scales_loss: multiply the loss by a growing factor before the backward pass, as fp16 needs.
        name: of the member, for messages.

    Raises:
        UserError: an argument is none that can be used.
    """

    def __init__(
        self,
        optimizer: Callable[..., Optimizer],
        *,
        scheduler: Callable[..., Any] | None = None,
        scheduler_interval: str | None = None,
        gradient_clip_val: float | None = None,
        accumulate_grad_batches: int = 1,
        scales_loss: bool = False,
        name: str = "student",
    ) -> None:
        if not callable(optimizer):
            raise UserError(
                f"optimizer is a {type(optimizer).__name__}, which knows some parameters already: give what makes it, "
                "functools.partial(torch.optim.SGD, lr=...)"
            )
        if scheduler_interval not in (None, "step", "epoch"):
            raise UserError(f"scheduler.interval={scheduler_interval!r}: use 'step' or 'epoch'")
        if gradient_clip_val is not None and not gradient_clip_val > 0:
            raise UserError(f"trainer.gradient_clip_val={gradient_clip_val}: must be > 0, or null for none")
        if accumulate_grad_batches < 1:
            raise UserError(f"trainer.accumulate_grad_batches={accumulate_grad_batches}: must be at least 1")
        self.accumulate = accumulate_grad_batches
        self.scheduler: Any = None
        self.scaler: torch.amp.GradScaler | None = None
        self.follows_metric = False
        self.separate: SeparateMomenta | None = None
        """The optimizer, if it takes the gradient of each part of the loss by itself."""
        self._make_optimizer = optimizer
        self._make_scheduler = scheduler
        self._interval = scheduler_interval
        self._clip = gradient_clip_val
        self._scales_loss = scales_loss
        self._name = name
        self._optimizer: Optimizer | None = None
        self._pending: dict[str, Any] | None = None

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer; there is one as soon as :meth:`make_optimizer` was called."""
        if self._optimizer is None:
            raise RuntimeError(f"{self._name} has no optimizer yet: configure() makes it")
        return self._optimizer

    def make_optimizer(self, groups: Sequence[Any]) -> Optimizer:
        """The optimizer of these parameters or groups of them."""
        self._optimizer = self._make_optimizer(groups)
        self.separate = self._optimizer if isinstance(self._optimizer, SeparateMomenta) else None
        if self.separate is not None and (self._clip is not None or self._scales_loss):
            raise UserError(
                f"optimizer: {type(self.separate).__name__} takes several gradients a step, which "
                "trainer.gradient_clip_val and trainer.precision=16-mixed do not know: leave them out (bf16-mixed works)"
            )
        return self._optimizer

    def configure(self, length: RunLength, *, mode: str, device: torch.device) -> None:
        """Make schedule and scaler of the optimizer; continue all three where a state was loaded.

        Args:
            length: of the run.
            mode: "min" or "max": the better end of the metric that a schedule may follow.
            device: that trains.
        """
        self.scheduler = make_scheduler(self._make_scheduler, self.optimizer, self._interval or "step", length, mode)
        self.follows_metric = self.scheduler is not None and wants_metric(self.scheduler)
        if self.follows_metric and self._interval == "step":
            raise UserError(
                f"scheduler.interval=step: {type(self.scheduler).__name__} follows the validation metric: use epoch"
            )
        # a scaler of its own: fp16's loss scale is state, and one member's overflow must not halve another's
        self.scaler = torch.amp.GradScaler(device.type) if self._scales_loss else None
        if self._pending is not None:
            self._restore(self._pending)
            self._pending = None

    def backward(self, total: Tensor, backward: Callable[..., Any]) -> None:
        """The gradient of the weighted total, added to what earlier batches of the step left."""
        backward(self.scaled(total))

    def scaled(self, total: Tensor) -> Tensor:
        """What is differentiated of a batch's loss: its share of the step, times the loss scale."""
        share = total if self.accumulate == 1 else total / self.accumulate
        return share if self.scaler is None else self.scaler.scale(share)

    def backward_by_part(
        self, optimizer: SeparateMomenta, weighted: Mapping[str, Tensor], backward: Callable[..., Any]
    ) -> None:
        """One backward pass a part of the loss, whose gradients the optimizer takes apart."""
        losses: dict[str, Tensor] = {}
        for name, loss in weighted.items():
            part = optimizer.part_of(name)
            losses[part] = losses[part] + loss if part in losses else loss
        for number, (part, loss) in enumerate(losses.items(), start=1):
            backward(loss / self.accumulate, retain_graph=number < len(losses))
            optimizer.collect(part)

    def step(self, parameters: Callable[[], list[nn.Parameter]]) -> None:
        """Clip the gradient of ``parameters()``, move them, and let a scheduler by steps follow."""
        optimizer = self.optimizer
        if self._clip is not None:
            if self.scaler is not None:
                self.scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(parameters(), self._clip)
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)
            self.scaler.update()
        optimizer.zero_grad()
        if self.scheduler is not None and self._interval != "epoch" and not self.follows_metric:
            self.scheduler.step()

    def end_epoch(self, metric: float | None = None) -> None:
        """Let a scheduler by epochs step; ``metric`` is the monitored one, if there was a validation in the epoch."""
        if self.scheduler is None:
            return
        if self.follows_metric:
            if metric is not None:
                self.scheduler.step(metric)
        elif self._interval == "epoch":
            self.scheduler.step()

    def state(self) -> dict[str, Any]:
        """Of optimizer, scheduler and scaler."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else plain(self.scheduler.state_dict()),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state`: now, or as soon as the optimizer exists."""
        if self._optimizer is None:
            self._pending = dict(state)
        else:
            self._restore(state)

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None and state["scheduler"] is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        if self.scaler is not None and state["scaler"] is not None:
            self.scaler.load_state_dict(state["scaler"])


def plain(value: Any) -> Any:
    """A scheduler's state without what ``weights_only=True`` refuses (functions, objects)."""
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items() if not callable(v)}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value if not callable(v)]
    return value
