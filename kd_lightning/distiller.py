"""The LightningModule: a frozen teacher and one or several students that learn from it in lockstep.

Each batch is loaded once and shown to the teacher once; every member then takes its own step. The Distiller knows no
kind of task, of teacher or of file: losses are the method's, metrics the task's, what is written the recorder's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytorch_lightning as pl
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn

from kd_lightning.batch import Batch, as_batch, channels_last
from kd_lightning.beside import Beside
from kd_lightning.errors import RunInterrupted, UserError
from kd_lightning.evaluation import Evaluation
from kd_lightning.exchange import Exchange
from kd_lightning.graphed import Graphs
from kd_lightning.joints import Clock
from kd_lightning.lockstep import Lockstep
from kd_lightning.loss_block import LossBlock, first_not_finite
from kd_lightning.member import Member
from kd_lightning.outputs import ModelOutput
from kd_lightning.recorder import LightningRecorder, Recorder, prefixes
from kd_lightning.stacked import Stacks
from kd_lightning.trainer_facts import (
    answers_evaluation,
    at_end,
    averages_weights,
    complete_methods,
    ends_by_time,
    refuse_settings,
    run_length,
)

log = logging.getLogger(__name__)


class Distiller(pl.LightningModule):
    """Trains the members' students from one teacher.

    Args:
        teacher: ``teacher(batch) -> ModelOutput``, for example a FrozenTeacher, or one whose answers are stored in
            front of it; None trains the students alone. It is not a submodule: optimizers, checkpoints and
            data-parallel reduction never see it.
        members: one student, or several that share batches and teacher outputs. Several need a single device.
        recorders: one a member: where metrics and checkpoints go, and when a member is done; by default Lightning's
            own loggers and callbacks.
        log_every_n_steps: losses are logged as means over blocks of so many steps.
        stacked: an experiment: members of one architecture are computed together (:mod:`kd_lightning.stacked`), which
            rounds otherwise. False: one after the other, to the last bit as each alone.
        cuda_graphs: an experiment: on a CUDA device the members' passes are recorded once and replayed
            (:mod:`kd_lightning.graphed`).

    One optimizer step of every member counts as one ``global_step``. A member that fails, diverges or stops early
    leaves the group; the others go on unchanged.
    """

    automatic_optimization = False
    members: Sequence[Member]

    def __init__(
        self,
        teacher: Callable[[Batch], ModelOutput] | None,
        members: Member | Sequence[Member],
        recorders: Sequence[Recorder] | None = None,
        log_every_n_steps: int = 10,
        stacked: bool = False,
        cuda_graphs: bool = False,
    ) -> None:
        super().__init__()
        group = [members] if isinstance(members, Member) else list(members)
        if isinstance(teacher, nn.Module):
            raise UserError(
                f"teacher is a {type(teacher).__name__}, which could still learn: give FrozenTeacher(module) "
                "(kd_lightning.teachers.frozen)"
            )
        self.members = cast("Sequence[Member]", nn.ModuleList(group))  # its items would be any Modules to a checker
        if not group:
            raise ValueError("a Distiller needs at least one member")
        self._teacher = Beside([teacher])
        if not recorders:
            recorders = [LightningRecorder(self, prefix) for prefix in prefixes([member.name for member in group])]
        self.recorders: Sequence[Recorder] = Beside(recorders)
        self.failures: dict[int, Exception] = {}
        self.interrupted = False
        self._log_every = max(1, log_every_n_steps)
        self._blocks = [LossBlock() for _ in self.members]
        self._own_seconds = [0.0] * len(self.members)  # of each member's own steps since its last block
        self._evaluation = Evaluation({})
        self.validated: dict[int, dict[str, float]] = {}
        """By member: the figures of the newest validation, by their short names."""
        self._monitored: dict[int, float] = {}  # by member, of the newest validation that no scheduler has seen
        self._steps_per_epoch = self._total_steps = 1
        if stacked and cuda_graphs:
            raise UserError("stacked and cuda_graphs are two ways to take the members' steps: choose one")
        self._together: Stacks | Graphs | None = Stacks() if stacked else Graphs() if cuda_graphs else None
        self._channels_last = any(member.channels_last for member in self.members)

    @property
    def teacher(self) -> Callable[[Batch], ModelOutput] | None:
        return self._teacher[0]

    @property
    def active(self) -> list[int]:
        """Members that still train."""
        return [i for i, recorder in enumerate(self.recorders) if i not in self.failures and not recorder.done]

    @property
    def clock(self) -> Clock:
        """Where the run stands."""
        return Clock(self.current_epoch, self.global_step, self._total_steps, self._steps_per_epoch)

    def forward(self, inputs: Any) -> Tensor:
        """The first student's logits."""
        return self.members[0](inputs)

    # -- training ------------------------------------------------------------------------------------------------
    def configure_callbacks(self) -> list[pl.Callback]:
        """Adds none; the first hook of a fit, where what the Trainer was given can be judged before Lightning does."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            refuse_settings(self.trainer)
        return []

    def setup(self, stage: str) -> None:
        if self.trainer.world_size > 1 and len(self.members) > 1:
            raise ValueError("several members train on one device; use one member a run for data-parallel training")
        if stage == "fit":
            complete_methods(self.trainer, self.members, self.teacher)

    def configure_optimizers(self) -> Lockstep:
        accumulate = self.members[0].optimization.accumulate
        if any(member.optimization.accumulate != accumulate for member in self.members):
            raise ValueError("members of a group must accumulate the same number of batches")
        length = run_length(self.trainer, accumulate)
        self._steps_per_epoch, self._total_steps = length.steps_per_epoch, length.total_steps or 1
        optimizers = [member.configure(length, device=self.device) for member in self.members]
        if not self.trainer.enable_validation and any(member.optimization.follows_metric for member in self.members):
            raise UserError("scheduler follows the validation metric, and there is no validation: choose another one")
        if ends_by_time(self.trainer) and any(member.optimization.scheduler is not None for member in self.members):
            log.warning(
                "max_time may end the run before its learning-rate schedule, which spans max_epochs or max_steps"
            )
        return Lockstep(optimizers)

    def on_fit_start(self) -> None:
        self._teacher_to_device()
        if self.trainer.world_size > 1:
            self.members[0].exchange = Exchange(self.trainer.global_rank, self.trainer.world_size, self.device)
        self._read_methods()
        self._block_started = time.perf_counter()
        for i in self.active:
            self.recorders[i].started(self.members[i])

    def on_train_epoch_start(self) -> None:
        self._read_methods()
        self._block_started = time.perf_counter()

    def _read_methods(self) -> None:
        """What the methods ask for, once an epoch instead of once a step."""
        methods = [member.method for member in self.members]
        self._needs_teacher = [method.needs_teacher for method in methods]
        self._wants_clock = any(method.wants_clock for method in methods)
        self._wants_views = [method.wants_views for method in methods]
        self._arranged = False

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        return None if self.active else -1  # nobody is left: end the epoch here

    def training_step(self, batch: Any, batch_idx: int) -> None:
        batch = self._prepared(batch)
        active = self.active
        teacher = self.teacher if any(self._needs_teacher[i] for i in active) else None
        answer = None if teacher is None else teacher(batch)
        clock = self.clock if self._wants_clock else None
        views: list[ModelOutput | None] | None = None
        if any(self._wants_views):
            views = [None if teacher is None else teacher(also) for also in batch.also]
        if self.members[0].exchange is not None:
            self.members[0].exchange.at(self.current_epoch, batch_idx)
        accumulate = self.members[0].optimization.accumulate
        stepping = (batch_idx + 1) % accumulate == 0 or self.trainer.is_last_batch
        backward = self.manual_backward if self.trainer.world_size > 1 else Tensor.backward
        for i, (values, seconds) in self._steps_together(batch, answer, stepping, clock).items():
            active.remove(i)
            self._note_step(i, values, seconds, clock)
        for i in active:
            if i in self.failures:
                continue
            member, begun = self.members[i], time.perf_counter()
            try:
                values = member.training_step(
                    batch,
                    answer,
                    stepping=stepping,
                    backward=backward,
                    clock=clock,
                    teacher_views=views if self._wants_views[i] else None,
                )
            except Exception as error:
                self._fail(i, error)
                continue
            self._note_step(i, values, time.perf_counter() - begun, clock)
        if stepping:
            cast(LightningOptimizer, self.optimizers()).step()  # the one that configure_optimizers gave
        if (batch_idx + 1) % self._log_every == 0 or self.trainer.is_last_batch:
            self._flush()
        if not self.active:
            self.trainer.should_stop = True

    def _steps_together(
        self, batch: Batch, answer: ModelOutput | None, stepping: bool, clock: Clock | None
    ) -> dict[int, tuple[list[Tensor], float]]:
        """The steps of those members that are stacked or replayed: by member its losses and its seconds."""
        if self._together is None:
            return {}
        members = {i: self.members[i] for i in self.active}
        if not self._arranged:
            self._together.arrange(members)
            self._arranged = True
        return self._together.steps(members, batch, answer, stepping=stepping, clock=clock, failed=self._fail)

    def _note_step(self, i: int, values: list[Tensor], seconds: float, clock: Clock | None) -> None:
        """Keep a member's losses of one step until its block is logged."""
        self._own_seconds[i] += seconds
        member, block = self.members[i], self._blocks[i]
        if member.loss_names != block.names:  # a scheduled term set in or out
            self._flush_block(i)
        block.add(member.loss_names, values)
        if clock is not None:
            block.scheduled = member.method.scheduled

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if 0 <= self.trainer.max_steps <= self.global_step:
            self.trainer.should_stop = True  # ends within an epoch: Lightning then validates what was reached
        if self.trainer.is_last_batch or (batch_idx + 1) % self.members[0].optimization.accumulate:
            return  # the end of the epoch saves; a gradient that is half accumulated could not be saved
        self._agree_to_stop()
        every = self.recorders[0].checkpoint_every_n_steps
        if self.interrupted or (every and self.global_step % every == 0):
            self._save_all(batch_idx + 1)
        if self.interrupted:
            raise RunInterrupted(f"stopped after step {self.global_step}")

    def on_train_epoch_end(self) -> None:
        for i in self.active:
            self.members[i].optimization.end_epoch(self._monitored.pop(i, None))
        self._agree_to_stop()
        self._save_all(0)
        for recorder in self.recorders if self.members[0].exchange is not None else ():
            recorder.agree(self.trainer.strategy.broadcast)
        if not self.active:
            self.trainer.should_stop = True
        if self.interrupted and not at_end(self.trainer):
            raise RunInterrupted(f"stopped after epoch {self.current_epoch}")

    def log_of(self, i: int, metrics: dict[str, float]) -> None:
        """Log further figures of a member at this step, by their full names."""
        self._guarded(i, self.recorders[i].log, self.global_step, self.current_epoch, metrics)

    def _save_all(self, batch: int) -> None:
        """Let every recorder keep the state between two steps; ``batch`` 0 is the end of an epoch."""
        self._flush()
        self._same_buffers()
        epoch = self.current_epoch if batch else self.current_epoch + 1
        for i in self.active:
            self._guarded(i, self.recorders[i].save, self.members[i], epoch, batch, self.global_step)

    def _flush(self) -> None:
        """Log each member's block of losses; one transfer from the device a block, none a step."""
        for i in self.active:
            self._flush_block(i)
        self._block_started = time.perf_counter()

    def _flush_block(self, i: int) -> None:
        block = self._blocks[i]
        if not len(block):
            return
        elapsed = time.perf_counter() - self._block_started
        losses = block.take()
        if (found := first_not_finite(losses, block.names)) is not None:
            row, terms = found
            self._guarded(i, self.recorders[i].diverged, self.global_step - len(losses) + row + 1, terms)
            return
        means = zip(block.names, losses.double().mean(0).tolist(), strict=True)
        metrics = {f"train/{name}": value for name, value in (*means, *block.scheduled.items())}
        metrics["lr/student"] = self.members[i].learning_rate
        metrics["time/step_ms"] = 1000 * elapsed / len(losses)
        metrics["time/own_step_ms"] = 1000 * self._own_seconds[i] / len(losses)
        self._own_seconds[i] = 0.0
        self._guarded(i, self.recorders[i].log, self.global_step, self.current_epoch, metrics)

    # -- evaluation ----------------------------------------------------------------------------------------------
    def on_validation_epoch_start(self) -> None:
        self._same_buffers()
        self._start_evaluation(self.active)
        if averages_weights(self.trainer):  # the averaged weights are in place now, and no longer when the epoch ends
            for i in self.active:
                self.members[i].measured = self.members[i].weights()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        self._end_of_questions()
        self.validated = self._evaluation.metrics(self._reduce())
        for i, found in self.validated.items() if not self.trainer.sanity_checking else ():
            member = self.members[i]
            if member.optimization.follows_metric:
                self._monitored[i] = member.followed(found)
            self._guarded(i, self.recorders[i].validated, member, self.global_step, self.current_epoch, found)
            member.measured = None

    def on_test_epoch_start(self) -> None:
        self._start_evaluation([i for i in range(len(self.members)) if i not in self.failures])

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        self._end_of_questions()
        for i, found in self._evaluation.metrics(self._reduce()).items():
            self._guarded(i, self.recorders[i].tested, found)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The first student's logits; a batch is a training batch, whose inputs are meant, or the inputs alone."""
        if isinstance(batch, (tuple, list)):
            batch = self._prepared(batch).inputs if len(batch) > 1 else batch[0]
        return self(batch)

    def _start_evaluation(self, members: Sequence[int]) -> None:
        self._teacher_to_device()
        self._evaluation = Evaluation({i: self.members[i] for i in members})

    def _evaluate(self, batch: Any, batch_idx: int) -> None:
        batch = self._prepared(batch)
        teacher = self.teacher(batch) if self.teacher is not None and answers_evaluation(self.teacher) else None
        look = (lambda i, step: self.recorders[i].look(step)) if batch_idx == 0 else None
        self._evaluation.update(batch, teacher, self.clock, look, self._fail)

    def _reduce(self) -> Callable[[Tensor], Tensor] | None:
        if self.trainer.world_size == 1:
            return None
        return lambda sums: self.trainer.strategy.reduce(sums.to(self.device), reduce_op="sum")

    # -- Lightning's own checkpoints -----------------------------------------------------------------------------
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["kd_members"] = [member.training_state() for member in self.members]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for member, state in zip(self.members, checkpoint.get("kd_members", []), strict=False):
            member.load_training_state(state)

    # -- helpers -------------------------------------------------------------------------------------------------
    def _prepared(self, batch: Any) -> Batch:
        batch = as_batch(batch)
        return channels_last(batch) if self._channels_last else batch

    def _teacher_to_device(self) -> None:
        move = getattr(self.teacher, "to", None)
        if move is not None:
            move(self.device)

    def _end_of_questions(self) -> None:
        """Tell a teacher that wants to know (``finish``) that an evaluation asks it no more."""
        finish = getattr(self.teacher, "finish", None)
        if finish is not None:
            finish()

    def _agree_to_stop(self) -> None:
        """A signal reaches the processes between different steps: all stop after the same one."""
        exchange = self.members[0].exchange
        if exchange is not None and exchange.any_of(self.interrupted):
            self.interrupted = True  # never set back: a signal may have come while they agreed that there was none

    def _same_buffers(self) -> None:
        exchange = self.members[0].exchange
        if exchange is not None:
            exchange.same_buffers(self.members[0].student.buffers())

    def _fail(self, i: int, error: Exception) -> None:
        if self.members[0].exchange is not None:  # perhaps here only: this process ends, and with it the others
            raise error
        self.failures[i] = error
        self.recorders[i].failed(error)
        if len(self.failures) == len(self.members):
            raise error

    def _guarded(self, i: int, call: Callable[..., None], *args: Any) -> None:
        try:
            call(*args)
        except Exception as error:
            self._fail(i, error)
