"""The LightningModule: a frozen teacher and one or several students that learn from it in lockstep.

Each batch is loaded once and shown to the teacher once; every member then takes its own step. The Distiller knows no
kind of task, of teacher or of file: losses are the method's, metrics the task's, what is written the recorder's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from kd_lightning.batch import Batch, as_batch
from kd_lightning.errors import RunInterrupted
from kd_lightning.joints import Clock, Step
from kd_lightning.lockstep import Lockstep
from kd_lightning.member import Member
from kd_lightning.outputs import ModelOutput
from kd_lightning.recorder import LightningRecorder, Recorder


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

    One optimizer step of every member counts as one ``global_step``. A member that fails, diverges or stops early
    leaves the group; the others go on unchanged.
    """

    automatic_optimization = False

    def __init__(
        self,
        teacher: Callable[[Batch], ModelOutput] | None,
        members: Member | Sequence[Member],
        recorders: Sequence[Recorder] | None = None,
        log_every_n_steps: int = 10,
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList([members] if isinstance(members, Member) else members)
        if not self.members:
            raise ValueError("a Distiller needs at least one member")
        self._teacher = (teacher,)  # a tuple hides modules from nn.Module's registration
        self.recorders = list(recorders) if recorders else [LightningRecorder(self) for _ in self.members]
        self.failures: dict[int, Exception] = {}
        self.interrupted = False
        self._log_every = max(1, log_every_n_steps)
        self._blocks: list[list[list[Tensor]]] = [[] for _ in self.members]
        self._evaluators: dict[int, Any] = {}
        self._steps_per_epoch = self._total_steps = 1
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
    def setup(self, stage: str) -> None:
        if self.trainer.world_size > 1 and len(self.members) > 1:
            raise ValueError("several members train on one device; use one member a run for data-parallel training")

    def configure_optimizers(self) -> Lockstep:
        accumulate = self.members[0].accumulate
        if any(member.accumulate != accumulate for member in self.members):
            raise ValueError("members of a group must accumulate the same number of batches")
        epochs = max(1, self.trainer.max_epochs or 1)
        batches = max(1, int(self.trainer.estimated_stepping_batches) // epochs)
        steps = -(-batches // accumulate)
        self._steps_per_epoch, self._total_steps = steps, epochs * steps
        return Lockstep([m.configure(epochs=epochs, steps_per_epoch=steps, device=self.device) for m in self.members])

    def on_fit_start(self) -> None:
        self._teacher_to_device()
        self._block_started = time.perf_counter()
        for i in self.active:
            self.recorders[i].started(self.members[i])

    def on_train_epoch_start(self) -> None:
        self._block_started = time.perf_counter()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        return None if self.active else -1  # nobody is left: end the epoch here

    def training_step(self, batch: Any, batch_idx: int) -> None:
        batch = self._prepared(batch)
        active = self.active
        teacher = self.teacher
        wanted = teacher is not None and any(self.members[i].method.needs_teacher for i in active)
        answer = teacher(batch) if wanted else None
        accumulate = self.members[0].accumulate
        stepping = (batch_idx + 1) % accumulate == 0 or self.trainer.is_last_batch
        backward = self.manual_backward if self.trainer.world_size > 1 else Tensor.backward
        for i in active:
            member = self.members[i]
            try:
                values = member.training_step(batch, answer, stepping=stepping, backward=backward)
            except Exception as error:
                self._fail(i, error)
                continue
            self._blocks[i].append(values)
        if stepping:
            self.optimizers().step()
        if (batch_idx + 1) % self._log_every == 0 or self.trainer.is_last_batch:
            self._flush()
        if not self.active:
            self.trainer.should_stop = True

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.trainer.is_last_batch or (batch_idx + 1) % self.members[0].accumulate:
            return  # the end of the epoch saves; a gradient that is half accumulated could not be saved
        every = self.recorders[0].checkpoint_every_n_steps
        if self.interrupted or (every and self.global_step % every == 0):
            self._save_all(batch_idx + 1)
        if self.interrupted:
            raise RunInterrupted(f"stopped after step {self.global_step}")

    def on_train_epoch_end(self) -> None:
        for i in self.active:
            self.members[i].end_epoch()
        self._save_all(0)
        if not self.active:
            self.trainer.should_stop = True
        if self.interrupted and not self.trainer.should_stop and self.current_epoch + 1 < self.trainer.max_epochs:
            raise RunInterrupted(f"stopped after epoch {self.current_epoch}")

    def _save_all(self, batch: int) -> None:
        """Let every recorder keep the state between two steps; ``batch`` 0 is the end of an epoch."""
        self._flush()
        epoch = self.current_epoch if batch else self.current_epoch + 1
        for i in self.active:
            self._guarded(i, self.recorders[i].save, self.members[i], epoch, batch, self.global_step)

    def _flush(self) -> None:
        """Log each member's block of losses; one transfer from the device a block, none a step."""
        elapsed = time.perf_counter() - self._block_started
        for i in self.active:
            if not self._blocks[i]:
                continue
            block = torch.stack([torch.stack(row) for row in self._blocks[i]]).cpu()
            self._blocks[i] = []
            names = self.members[i].loss_names
            bad = (~torch.isfinite(block)).nonzero()
            if len(bad):
                row = int(bad[0, 0])
                terms = [names[column] for r, column in bad.tolist() if r == row and (column or len(bad) == 1)]
                step = self.global_step - len(block) + row + 1
                self._guarded(i, self.recorders[i].diverged, step, terms or [names[0]])
                continue
            metrics = {
                f"train/{name}": value for name, value in zip(names, block.double().mean(0).tolist(), strict=True)
            }
            metrics["lr/student"] = self.members[i].learning_rate
            metrics["time/step_ms"] = 1000 * elapsed / len(block)
            self._guarded(i, self.recorders[i].log, self.global_step, self.current_epoch, metrics)
        self._block_started = time.perf_counter()

    # -- evaluation ----------------------------------------------------------------------------------------------
    def on_validation_epoch_start(self) -> None:
        self._start_evaluation(self.active)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        for i, metrics in self._finish_evaluation():
            self._guarded(
                i, self.recorders[i].validated, self.members[i], self.global_step, self.current_epoch, metrics
            )

    def on_test_epoch_start(self) -> None:
        self._start_evaluation([i for i in range(len(self.members)) if i not in self.failures])

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        for i, metrics in self._finish_evaluation():
            self._guarded(i, self.recorders[i].tested, metrics)

    def _start_evaluation(self, members: Sequence[int]) -> None:
        self._teacher_to_device()
        self._evaluators = {i: self.members[i].task.evaluator() for i in members}

    def _evaluate(self, batch: Any, batch_idx: int) -> None:
        batch = self._prepared(batch)
        teacher = self.teacher(batch) if self.teacher is not None else None
        for i in list(self._evaluators):
            member = self.members[i]
            try:
                with member.autocast(batch.target.device):
                    output = member.answer(batch.inputs)
                self._evaluators[i].update(output, teacher, batch)
                if batch_idx == 0:
                    self.recorders[i].look(Step(batch, output, teacher, self.clock))
            except Exception as error:
                del self._evaluators[i]
                self._fail(i, error)

    def _finish_evaluation(self) -> list[tuple[int, dict[str, float]]]:
        finished = []
        for i, evaluator in self._evaluators.items():
            if self.trainer.world_size > 1:
                evaluator.sync(lambda sums: self.trainer.strategy.reduce(sums.to(self.device), reduce_op="sum"))
            finished.append((i, evaluator.compute()))
        self._evaluators = {}
        return finished

    # -- Lightning's own checkpoints -----------------------------------------------------------------------------
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["kd_members"] = [member.training_state() for member in self.members]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for member, state in zip(self.members, checkpoint.get("kd_members", []), strict=False):
            member.load_training_state(state)

    # -- helpers -------------------------------------------------------------------------------------------------
    def _prepared(self, batch: Any) -> Batch:
        batch = as_batch(batch)
        if self._channels_last and isinstance(batch.inputs, Tensor) and batch.inputs.dim() == 4:
            batch = batch._replace(inputs=batch.inputs.contiguous(memory_format=torch.channels_last))
        return batch

    def _teacher_to_device(self) -> None:
        move = getattr(self.teacher, "to", None)
        if move is not None:
            move(self.device)

    def _fail(self, i: int, error: Exception) -> None:
        self.failures[i] = error
        self.recorders[i].failed(error)
        if len(self.members) == 1 or len(self.failures) == len(self.members):
            raise error

    def _guarded(self, i: int, call: Callable[..., None], *args: Any) -> None:
        try:
            call(*args)
        except Exception as error:
            self._fail(i, error)
