"""One student in training, with everything that is its own: method, optimizer, schedule, clipping, precision, random stream.

A Distiller trains one or several members in lockstep. An ordinary run is a group of one, so that a run inside a group
and the same run alone are the same code and give the same numbers.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from kd_lightning.batch import Batch
from kd_lightning.errors import UserError
from kd_lightning.exchange import Exchange
from kd_lightning.joints import Clock, Task, View
from kd_lightning.losses.mixed import takes_mixed
from kd_lightning.method import Method
from kd_lightning.metrics.declared import Declared
from kd_lightning.optimization import Optimization
from kd_lightning.outputs import ModelOutput
from kd_lightning.parameter_groups import Grouping, Layers, check_settings, freeze_layers, scale_rates
from kd_lightning.rng import RngStream
from kd_lightning.schedules.learning_rate import RunLength
from kd_lightning.taps import Taps
from kd_lightning.task_parts import completed

log = logging.getLogger(__name__)

AUTOCAST = {"32-true": None, "32": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class Member(nn.Module):
    """A student, how it is taught and how it is optimized.

    Args:
        student: the model to train; returns logits or a ModelOutput.
        method: weighted terms; its adapters, if any, are trained with the student.
        task: hard loss and metrics.
        optimizer: called with the parameters, returns an optimizer (a partial of one of torch's classes).
        layers: of the student by name: frozen, or with settings of their own in the optimizer, see
            :mod:`kd_lightning.parameter_groups`.
        layer_decay, decay_vectors: see :class:`kd_lightning.parameter_groups.Grouping`.
        scheduler: called with the optimizer (and ``total_steps``, ``T_max``, ``epochs`` or ``steps_per_epoch`` where its
            signature has them and they aren't given); None keeps the learning rate constant.
        scheduler_interval: "step" or "epoch": when the scheduler steps; None is "step", but for one that follows a metric
            (ReduceLROnPlateau), which steps at the end of an epoch, with the newest validation's metric that chooses the best checkpoint.
        seed: of dropout and whatever else draws random numbers in the student's forward pass.
        gradient_clip_val: largest norm of this member's gradient; None does not clip.
        accumulate_grad_batches: batches per optimizer step.
        precision: "32-true", "bf16-mixed" or "16-mixed".
        channels_last: keep images and convolution weights in that memory format.
        compile_student: run the student through ``torch.compile``; a text is its ``mode``: "reduce-overhead" (CUDA graphs),
            "max-autotune".
        name: of the run, for messages.
    """

    def __init__(
        self,
        student: nn.Module,
        method: Method,
        task: Task,
        *,
        optimizer: Callable[..., Optimizer],
        layers: Layers | None = None,
        layer_decay: float | None = None,
        decay_vectors: bool = True,
        scheduler: Callable[..., Any] | None = None,
        scheduler_interval: str | None = None,
        seed: int = 0,
        gradient_clip_val: float | None = None,
        accumulate_grad_batches: int = 1,
        precision: str = "32-true",
        channels_last: bool = False,
        compile_student: bool | str = False,
        name: str = "student",
    ) -> None:
        super().__init__()
        if precision not in AUTOCAST:
            raise UserError(f"trainer.precision={precision}: a student trains in one of {', '.join(AUTOCAST)}")
        self.student = student
        self.method = method
        self.task = completed(task)
        self.declared = Declared.of_task(self.task)
        self.name = name
        self.channels_last = channels_last
        self.seed, self.rng = seed, RngStream(seed)
        self.precision, self._dtype = precision, AUTOCAST[precision]
        self.optimization = Optimization(
            optimizer,
            scheduler=scheduler,
            scheduler_interval=scheduler_interval,
            gradient_clip_val=gradient_clip_val,
            accumulate_grad_batches=accumulate_grad_batches,
            scales_loss=self._dtype is torch.float16,
            name=name,
        )
        self._grouping = Grouping(dict(layers or {}), layer_decay, decay_vectors)
        self._frozen = freeze_layers(student, self._grouping.layers)
        self.taps = Taps(student, method.taps["student"])
        if channels_last:
            self.student.to(memory_format=torch.channels_last)
        if compile_student:
            self.student.compile(mode=compile_student if isinstance(compile_student, str) else None)
        self.measured: dict[str, Tensor] | None = None
        """The weights of the newest validation, where those were not the member's own (an average of them)."""
        self.loss_names: tuple[str, ...] = ()
        self.exchange: Exchange | None = None
        """With the other processes of a data-parallel training; None: this one has the whole batch."""

    # -- forward -------------------------------------------------------------------------------------------------
    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager:
        if self._dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=self._dtype)

    @property
    def compiled(self) -> bool:
        """Whether the student runs through ``torch.compile``."""
        return getattr(self.student, "_compiled_call_impl", None) is not None

    def answer(self, inputs: Any) -> ModelOutput:
        """The student's output with the tapped features, as the task reads it."""
        return self.task.read(self.taps(self.student, inputs))

    def forward(self, inputs: Any) -> Tensor:
        return self.answer(inputs).logits

    def loss(
        self,
        batch: Batch,
        teacher: ModelOutput | None,
        clock: Clock | None = None,
        teacher_views: Sequence[ModelOutput | None] | None = None,
        output: ModelOutput | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted total (scalar, with graph) and the unweighted terms by name.

        Args:
            batch: the batch.
            teacher: the teacher's output for it; None if the method needs none.
            clock: where the run stands; needed if the method ``wants_clock``.
            teacher_views: the teacher's outputs for ``batch.also``, if the method ``wants_views``; None: it does not.
            output: the student's output with its features, if it has run already (together with others); None: it runs.
        """
        with self.rng, self.autocast(batch.target.device), self.method.attention():
            sizes = [] if self.exchange is None else self.exchange.sizes(batch)
            output = self._answer_of_all(batch.inputs, sizes) if output is None else self.task.read(output)
            whole, teacher = batch, self.teacher_view(teacher)
            if self.exchange is not None:
                whole = self.exchange.batch(batch, sizes, inputs=self.method.wants_inputs)
                teacher = None if teacher is None else self.exchange.output(teacher, sizes)
            task_loss = self._task_loss(output, whole)
            views: list[View] = []
            if teacher_views is not None:
                answers = zip(batch.also, map(self.teacher_view, teacher_views), strict=True)
                views = [(self._answer_of_all(also.inputs, sizes), answer) for also, answer in answers]
                if self.exchange is not None:
                    views = [(own, answer and self.exchange.output(answer, sizes)) for own, answer in views]
            target = self.task.for_terms(whole.target)
            return self.method(output, teacher, target, task_loss, clock=clock, batch=whole, views=views)

    def _task_loss(self, output: ModelOutput, batch: Batch) -> Tensor:
        if batch.partner_target is None or batch.weight is None:
            return self.task.loss(output, batch.target)
        self.refuse_mixed("data.augment's mixing")
        return self.task.mixed_loss(output, batch.target, batch.partner_target, batch.weight)

    def refuse_mixed(self, keys: str) -> None:
        """Raise a UserError where task or method cannot take samples that were mixed; ``keys`` name what mixes them."""
        if not takes_mixed(self.task, beside="loss"):
            raise UserError(
                f"{keys}: samples are mixed two by two, and with them their labels, which task={self.task.name} has no loss for: leave it out"
            )
        self.method.refuse_mixed(keys)

    def _answer_of_all(self, inputs: Any, sizes: Sequence[int]) -> ModelOutput:
        """The student's output for the inputs; of several processes, for those of all."""
        if self.exchange is None:
            return self.answer(inputs)
        with self.exchange.forward_stream(self.seed):
            own = self.answer(inputs)
        return self.exchange.output(own, sizes)

    def teacher_view(self, teacher: ModelOutput | None) -> ModelOutput | None:
        """The teacher's output as this method knows it: features under the method's tap names."""
        taps = self.method.taps["teacher"]
        if teacher is None or not taps:
            return teacher
        features = {}
        for tap, layer in taps.items():
            found = layer if layer in teacher.features else tap
            if found not in teacher.features:
                raise UserError(
                    f"method.taps.teacher.{tap}: the teacher's output has no feature {layer!r}, it has "
                    f"{', '.join(teacher.features) or 'none'}: give FrozenTeacher(..., taps={{{layer!r}: {layer!r}}})"
                )
            features[tap] = teacher.features[found]
        return replace(teacher, features=features)

    # -- one training step ---------------------------------------------------------------------------------------
    def train(self, mode: bool = True) -> Member:
        """As any module's; frozen layers stay in eval mode."""
        super().train(mode)
        self._keep_frozen()
        return self

    def _keep_frozen(self) -> None:
        for layer in self._frozen:
            layer.eval()

    def training_step(
        self,
        batch: Batch,
        teacher: ModelOutput | None,
        *,
        stepping: bool,
        backward: Callable[..., Any],
        clock: Clock | None = None,
        teacher_views: Sequence[ModelOutput | None] | None = None,
    ) -> list[Tensor]:
        """Forward, backward and, where ``stepping``, the optimizer step; see :meth:`loss` for the arguments.

        Returns detached scalars: the weighted total, then each unweighted term in the order of ``loss_names``.
        """
        total, parts = self.loss(batch, teacher, clock, teacher_views)
        if self.optimization.separate is None:
            self.optimization.backward(total, backward)
        else:
            self.optimization.backward_by_part(self.optimization.separate, self.method.take_weighted(), backward)
        return self.after_backward(total, parts, stepping=stepping, clock=clock)

    def after_backward(
        self, total: Tensor, parts: dict[str, Tensor], *, stepping: bool, clock: Clock | None
    ) -> list[Tensor]:
        """The end of :meth:`training_step`, when the gradient of what :meth:`loss` returned is there."""
        if stepping:
            self.optimization.step(self.trained_parameters)
            if clock is not None:
                with torch.no_grad():
                    self.method.after_step(self.student, clock._replace(step=clock.step + 1))
        self.loss_names = ("loss", *(f"loss_{name}" for name in parts))
        return [total.detach(), *parts.values()]

    # -- optimizer and state -------------------------------------------------------------------------------------
    def trained_parameters(self) -> list[nn.Parameter]:
        """The student's and the adapters' parameters that learn."""
        return [p for p in self.parameters() if p.requires_grad]

    def prepare(self, example: Batch, teacher: ModelOutput | None) -> ModelOutput:
        """Run the student once (without touching its buffers) so that the method's layers know their shapes.

        Args:
            example: a small batch.
            teacher: the teacher's output for it; None without a teacher.

        Returns:
            The student's output.

        Raises:
            UserError: the method needs a teacher and there is none.
        """
        if self.method.needs_teacher and teacher is None:
            raise UserError("method needs a teacher, teacher=none gives none: use method=none, or choose a teacher")
        compiled, self.student._compiled_call_impl = getattr(self.student, "_compiled_call_impl", None), None
        training = self.student.training
        self.student.eval()
        try:
            with torch.no_grad():
                output = self.answer(example.inputs)
        finally:
            self.student.train(training)
            self._keep_frozen()
            self.student._compiled_call_impl = compiled
        self.method.prepare(output, self.teacher_view(teacher) if self.method.needs_teacher else None)
        return output

    def configure(self, length: RunLength, *, device: torch.device) -> Optimizer:
        """Make optimizer, schedule and scaler; continue them where a checkpoint was loaded."""
        parameters = self.trained_parameters()
        if not parameters:
            raise UserError(f"{self.name}: the student has no trainable parameter (check requires_grad)")
        if (
            not self.student.training
        ):  # it was evaluated last; single layers in eval mode within one that trains stay so
            log.info("%s: the student stood in eval mode: it is put into training mode", self.name)
            self.train()
        optimizer = self.optimization.make_optimizer(self._grouping.groups(self.student, parameters))
        check_settings(self._grouping.layers, optimizer, self._grouping.decay_vectors)
        scale_rates(optimizer)
        separate = self.optimization.separate
        self.method.keep_weighted = separate is not None
        if separate is not None:
            for term in ("task", *self.method.active):
                separate.part_of(term)
        mode = self.declared.monitored.mode
        self.optimization.configure(length, mode=mode, device=device)
        return optimizer

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer; there is one as soon as ``configure`` was called."""
        return self.optimization.optimizer

    @property
    def learning_rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def followed(self, figures: Mapping[str, float]) -> float:
        """What a schedule that follows a metric is told of a validation: the figure that chooses the best checkpoint, in the
        direction of the monitored one."""
        chooser = self.declared.chooser(figures)
        return chooser.sign * self.declared.monitored.sign * figures[chooser.name]

    def weights(self) -> dict[str, Tensor]:
        """Student's and adapters' weights and buffers by name, never the teacher's."""
        return {k: v.detach().cpu().clone() for k, v in self.state_dict().items()}

    def measured_weights(self) -> dict[str, Tensor]:
        """As :meth:`weights`: those that the newest validation measured."""
        return self.weights() if self.measured is None else self.measured

    def training_state(self) -> dict[str, Any]:
        """Everything but the weights that the next step depends on."""
        return {**self.optimization.state(), "rng": self.rng.state_dict()}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Continue from ``training_state()``: the optimizer as soon as it exists."""
        self.optimization.load_state(state)
        self.rng.load_state_dict(state["rng"])
