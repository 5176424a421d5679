"""Train the runs of one group side by side, from building their students to writing their results."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import pytorch_lightning as pl

from kd_lightning.callbacks.doctor import Doctor
from kd_lightning.callbacks.fast_forward import FastForward
from kd_lightning.callbacks.own_signals import OwnSignals
from kd_lightning.callbacks.states import CallbackStates
from kd_lightning.config.build import build_member, build_task, build_trainer, instantiate
from kd_lightning.distiller import Distiller
from kd_lightning.errors import RunInterrupted
from kd_lightning.joints import Teacher
from kd_lightning.member import Member
from kd_lightning.running.continuation import begin_where_another_ended
from kd_lightning.running.not_finite import inputs_not_finite
from kd_lightning.runs.checkpoint import load_checkpoint
from kd_lightning.runs.interrupt import graceful, keyboard_interrupt_kept
from kd_lightning.runs.latency import teacher_latency_ms
from kd_lightning.runs.loggers import build_loggers, log_start, remove_event_files
from kd_lightning.runs.result_content import result_content
from kd_lightning.runs.result_file import write_where_possible
from kd_lightning.runs.run_recorder import RunRecorder
from kd_lightning.runs.spec import TEACHER, Progress, RunSpec, without_validation
from kd_lightning.tasks.pictures import Pictures
from kd_lightning.teachers.evaluation_memo import EvaluationMemo
from kd_lightning.teachers.example import example_answer
from kd_lightning.terminal.progress import GroupProgress
from kd_lightning.terminal.table import result_markdown
from kd_lightning.trainer_facts import teacher_module

log = logging.getLogger(__name__)

TOGETHER = ("stacked", "cuda_graphs")
"""Ways to take the steps of members, beside the loop."""


class Group:
    """Runs that share data, task, teacher and trainer settings, and whose directories this process holds.

    Args:
        specs: the runs, with equal ``group_key``.
        datamodule: their data, set up.
        teacher: the teacher, with stored answers in front of it where there are any; or None.
        teacher_info: what their results say of the teacher, or None.
        rank: of this process among those that train the runs together; only process 0 writes.
        shown: progress display, told by ``shown.update(name, **what)`` and a callback of the Trainer; None: none.
    """

    def __init__(
        self,
        specs: Sequence[RunSpec],
        datamodule: Any,
        teacher: Teacher | None = None,
        teacher_info: dict[str, Any] | None = None,
        shown: GroupProgress | None = None,
        *,
        rank: int = 0,
    ) -> None:
        self.specs = list(specs)
        self.config = self.specs[0].config
        self.datamodule = datamodule
        self.teacher = None if teacher is None else EvaluationMemo(teacher)  # evaluation shows the same batches again
        self.teacher_info = teacher_info
        self.shown = shown
        self.writes = rank == 0
        self.started = datetime.now(timezone.utc)
        self.members: list[Member | None] = []
        self.recorders: list[RunRecorder] = []
        self._train_loader: Any = None
        self._distiller: Distiller | None = None

    def run(self) -> list[dict[str, Any]]:
        """Train, test, write every ``result.json``; returns the results in the order of ``specs``.

        Raises:
            RunInterrupted: a signal asked to stop; every run's state is kept, every result written.
            UserError: no run could go to its end, because of what the user gave; the results are written.
        """
        try:
            for standing, indices in self._prepare():
                self._fit_and_test(indices, standing)
        except RunInterrupted:
            self._results()
            raise
        else:
            results = self._results()
        finally:
            for recorder in self.recorders:
                recorder.close()  # where the results were not reached
        mistakes = [recorder.mistake for recorder in self.recorders if recorder.mistake is not None]
        if len(mistakes) == len(self.recorders):
            raise mistakes[0]
        return results

    # -- building ------------------------------------------------------------------------------------------------
    def _prepare(self) -> list[tuple[Progress, list[int]]]:
        """Build every member and bring it to where it stopped; returns who goes on from where.

        Interrupted runs may stand at different steps: those continue one after the other.
        """
        example = self.datamodule.example_batch()
        teacher_output = example_answer(self.teacher, example) if self.teacher is not None else None
        standings: list[tuple[Progress, list[int]]] = []
        for i, spec in enumerate(self.specs):
            recorder = self._recorder(spec)
            self.recorders.append(recorder)
            self.members.append(None)
            try:
                member = build_member(
                    spec.config, self.datamodule, example, teacher_output, spec.name, teacher_module(self.teacher)
                )
                begin_where_another_ended(spec)
                standing = recorder.resume(member)
                self._start_loggers(recorder, standing)
            except Exception as error:
                recorder.failed(error)
                continue
            self.members[i] = member
            for other, indices in standings:
                if standing == other:
                    indices.append(i)
                    break
            else:
                standings.append((standing, [i]))
        return standings

    def _start_loggers(self, recorder: RunRecorder, standing: Progress) -> None:
        spec = recorder.spec
        if not self.writes:
            return
        if standing.step:
            log.info("%s continues after step %d, in epoch %d", spec.name, standing.step, standing.epoch + 1)
        else:
            remove_event_files(spec.run_dir)  # of an attempt that got nowhere: TensorBoard would show both as one
        recorder.loggers = build_loggers(spec.run_dir, spec.config.get("logger"), instantiate, standing.step or None)
        log_start(recorder.loggers, spec.setting_name or spec.name, spec.config, spec.setting, spec.swept)

    def _recorder(self, spec: RunSpec) -> RunRecorder:
        task, temperature = (
            build_task(spec.config, self.datamodule),
            (spec.config.get("method") or {}).get("temperature"),
        )
        shown_at = float(temperature) if isinstance(temperature, (int, float)) else 1.0  # a schedule has no one value
        return RunRecorder(
            spec,
            task=task,
            loader_state=lambda: self._train_loader.state_dict(),
            draw=Pictures(task, self.datamodule, **spec.config["pictures"], temperature=shown_at, name=spec.name),
            report=self._report,
            judge=instantiate(spec.judge, "judge") if spec.judge and self.writes else None,
            writes=self.writes,
        )

    def _report(self, name: str, **what: Any) -> None:
        """Show how a run stands; the others stop with one that failed, if ``failures`` wants that."""
        if self.shown is not None:
            self.shown.update(name, **what)
        failures = self.config.get("failures") or {}
        stopping = failures.get("stop") and not failures.get("retries")
        if stopping and what.get("status") in ("failed", "diverged") and self._distiller is not None:
            self._distiller.interrupted = True

    # -- training and testing ------------------------------------------------------------------------------------
    def _fit_and_test(self, indices: Sequence[int], standing: Progress) -> None:
        recorders = [self.recorders[i] for i in indices]
        members = [member for i in indices if (member := self.members[i]) is not None]  # those that were prepared
        steps = int(self.config["log_every_n_steps"])
        together = {key: True for key in TOGETHER if self.config.get(key)}
        distiller = Distiller(self.teacher, members, recorders, log_every_n_steps=steps, **together)
        self._distiller = distiller
        callbacks = list((instantiate(self.config["callbacks"], "callbacks") or {}).values())
        states = CallbackStates(callbacks, standing.callbacks)
        if callbacks:
            recorders[0].callback_states = states.collect
        trainer = build_trainer(
            self.config,
            callbacks=[
                FastForward(standing),
                OwnSignals(),
                states,
                *([self.shown] if self.shown else []),
                *self._doctor(),
                *callbacks,
            ],
            logger=recorders[0].loggers if callbacks and len(indices) == 1 else False,
            default_root_dir=str(self.specs[indices[0]].run_dir),
            enable_checkpointing=any(isinstance(c, pl.callbacks.Checkpoint) for c in callbacks),
        )
        if distiller.active:
            self._fit(trainer, distiller, recorders, standing)
        for recorder in recorders:
            if recorder.status == "diverged":
                accumulated = int(self.config["trainer"].get("accumulate_grad_batches") or 1)
                recorder.explain(inputs_not_finite(self.datamodule, recorder.step * accumulated))
            elif not all(map(math.isfinite, recorder.best_metrics.values())):
                cause = inputs_not_finite(self.datamodule, 0)
                if cause and recorder.warned("validation", f"{cause}: validation counts that sample all the same"):
                    log.warning(
                        "WARNING: %s: %s: validation counts that sample all the same", recorder.spec.name, cause
                    )
        for recorder in recorders:
            recorder.finish()
        self._verify_teacher()
        if trainer.world_size > 1:
            trainer.strategy.barrier()  # until process 0 has written the best checkpoint
        self._test(trainer, members, recorders)
        if distiller.interrupted:  # during the last epoch: these runs are finished, others are not
            raise RunInterrupted("stopped after the last epoch of these runs")

    def _doctor(self) -> list[Doctor]:
        if not self.config.get("doctor", True) or self.config["trainer"].get("fast_dev_run"):
            return []  # a batch or two show nothing
        every = int(self.config.get("grad_norms_every_n_steps", 0))
        # computed together, no student has a gradient of its own terms to look at
        return [Doctor(0 if any(map(self.config.get, TOGETHER)) else every, verifies=False)]

    def _fit(
        self, trainer: pl.Trainer, distiller: Distiller, recorders: Sequence[RunRecorder], standing: Progress
    ) -> None:
        loaders = [self.datamodule.train_dataloader(), *self._looked_at()]
        self._train_loader = loaders[0]
        if standing.loader is not None:
            loaders[0].load_state_dict(standing.loader)
        try:
            with graceful(lambda: setattr(distiller, "interrupted", True)), keyboard_interrupt_kept():
                trainer.fit(distiller, loaders[0], *loaders[1:])
        except RunInterrupted:
            raise
        except Exception:
            if not all(recorder.error for recorder in recorders):
                raise
        finally:
            for loader in loaders:
                loader.close()

    def _looked_at(self) -> list[Any]:
        """The loader of what is measured during training: validation. Without any the test samples, only to compare with
        tables (the recorder chooses nothing by them); a teacher's appear in no table."""
        if not without_validation(self.config):
            return [self.datamodule.val_dataloader()]
        return [] if self.specs[0].role == TEACHER else [self.datamodule.test_dataloader()]

    def _test(self, trainer: pl.Trainer, members: Sequence[Member], recorders: Sequence[RunRecorder]) -> None:
        """Test the best checkpoints of the runs that reached their end; whoever fails here leaves the others alone."""
        finished = []
        for member, recorder in zip(members, recorders, strict=True):
            if recorder.status != "finished":
                continue
            try:
                member.load_state_dict(load_checkpoint(recorder.spec.best_checkpoint, "run_dir")["state_dict"])
            except Exception as error:
                recorder.failed(error)
                continue
            finished.append((member, recorder))
        if not finished:
            return
        tested = Distiller(self.teacher, [member for member, _ in finished], [recorder for _, recorder in finished])
        loader = self.datamodule.test_dataloader()
        try:
            with keyboard_interrupt_kept():
                trainer.test(tested, loader, verbose=False)
        except Exception:
            if not all(recorder.error for _, recorder in finished):
                raise
        finally:
            loader.close()

    def _verify_teacher(self) -> None:
        if self.teacher is not None:
            self.teacher.verify()

    # -- results -------------------------------------------------------------------------------------------------
    def _results(self) -> list[dict[str, Any]]:
        info = self.teacher_info
        if not self.writes:
            return [{"status": recorder.status, "error": recorder.error} for recorder in self.recorders]
        teacher = self.teacher
        if info is not None and teacher is not None and "latency_ms" not in info and teacher.labels_new_inputs:
            info["latency_ms"] = teacher_latency_ms(teacher, self.datamodule.example_batch())
        results = []
        for recorder, member in zip(self.recorders, self.members, strict=True):
            if recorder.status in ("running", "stopped"):
                recorder.status = "interrupted"
            result = result_content(recorder, member, self.datamodule, info, len(self.specs), self.started)
            write_where_possible(recorder.spec.result_path, result)
            final = {**result["metrics"], **{f"cost/{k}": v for k, v in result["cost"].items()}}
            recorder.close(final, result_markdown(result))
            results.append(result)
        return results
