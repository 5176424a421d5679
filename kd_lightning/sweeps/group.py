"""Train the runs of one group side by side, from building their students to writing their results."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from filelock import FileLock, Timeout

from kd_lightning.batch import Batch
from kd_lightning.callbacks.progress import GroupProgress
from kd_lightning.config.build import build_member, instantiate, trainer_arguments
from kd_lightning.distiller import Distiller
from kd_lightning.errors import RunInterrupted, UserError
from kd_lightning.member import Member
from kd_lightning.runs.checkpoint import load_checkpoint
from kd_lightning.runs.fast_forward import FastForward
from kd_lightning.runs.interrupt import graceful
from kd_lightning.runs.latency import latency_ms, parameters_count, state_bytes
from kd_lightning.runs.loggers import build_loggers, log_end, log_start, remove_event_files
from kd_lightning.runs.provenance import commits, host, versions
from kd_lightning.runs.result_file import write_result
from kd_lightning.runs.run_recorder import RunRecorder
from kd_lightning.runs.sample_pictures import sample_picture
from kd_lightning.runs.spec import Progress, RunSpec
from kd_lightning.runs.table import result_markdown
from kd_lightning.teachers.evaluation_memo import EvaluationMemo

log = logging.getLogger(__name__)

RESULT_FORMAT = 1


class Group:
    """Runs that share data, task, teacher and trainer settings.

    Args:
        specs: the runs, with equal ``group_key``.
        datamodule: their data, set up.
        teacher: answers for them all, or None.
        teacher_info: what their results say of the teacher, or None.
        training_teacher: answers for training batches in its place (stored outputs); None: the teacher itself.
        shown: progress display, told by ``shown.update(name, **what)`` and a callback of the Trainer; None: none.
        log_file: name of a file in each run's directory that log messages go to as well.
    """

    def __init__(
        self,
        specs: Sequence[RunSpec],
        datamodule: Any,
        teacher: Any = None,
        teacher_info: dict[str, Any] | None = None,
        training_teacher: Any = None,
        shown: GroupProgress | None = None,
        log_file: str | None = None,
    ) -> None:
        self.specs = list(specs)
        self.config = self.specs[0].config
        self.datamodule = datamodule
        self.teacher = teacher
        self.answers = None if teacher is None else EvaluationMemo(teacher)  # evaluation shows the same batches again
        self.teacher_info = teacher_info
        self.training_teacher = training_teacher
        self.shown = shown
        self.log_file = log_file
        self.started = datetime.now(timezone.utc)
        self.members: list[Member] = []
        self.recorders: list[RunRecorder] = []
        self._locks: list[FileLock] = []
        self._train_loader: Any = None
        self._distiller: Distiller | None = None

    def run(self) -> list[dict[str, Any]]:
        """Train, test, write every ``result.json``; returns the results in the order of ``specs``.

        Raises:
            RunInterrupted: a signal asked to stop; every run's state is kept.
        """
        with logging_to([spec.run_dir / self.log_file for spec in self.specs if self.log_file]):
            return self._run()

    def _run(self) -> list[dict[str, Any]]:
        try:
            progress = self._prepare()
            places: dict[tuple[int, int, int], list[int]] = {}
            for i, place in progress.items():
                places.setdefault((place.epoch, place.batch, place.step), []).append(i)
            for (
                indices
            ) in places.values():  # interrupted runs that stand at different steps continue one after the other
                self._fit_and_test(indices, progress[indices[0]])
            return self._results()
        finally:
            for recorder in self.recorders:
                recorder.close()  # where the results were not reached
            for lock in self._locks:
                lock.release()

    # -- building ------------------------------------------------------------------------------------------------
    def _prepare(self) -> dict[int, Progress]:
        example = self.datamodule.example_batch()
        teacher_output = self.teacher(example) if self.teacher is not None else None
        progress = {}
        for spec in self.specs:
            self._locks.append(lock_run(spec))
            recorder = self._recorder(spec, self.datamodule)
            self.recorders.append(recorder)
            try:
                member = build_member(spec.config, self.datamodule, example, teacher_output, spec.name)
                place = recorder.resume(member)
            except Exception as error:
                recorder.failed(error)
                if len(self.specs) == 1:
                    self._results()
                    raise
                log.error("%s: %s", spec.name, recorder.error)
                self.members.append(None)
                continue
            self.members.append(member)
            progress[len(self.members) - 1] = place
            if not place.step:
                remove_event_files(spec.run_dir)  # of an attempt that got nowhere: TensorBoard would show both as one
            else:
                log.info("%s continues after step %d (epoch %d)", spec.name, place.step, place.epoch)
            nodes = spec.config.get("logger")
            recorder.loggers = build_loggers(spec.run_dir, nodes, instantiate, place.step or None)
            log_start(recorder.loggers, spec.name, spec.config)
        return progress

    def _recorder(self, spec: RunSpec, datamodule: Any) -> RunRecorder:
        task = instantiate(spec.config["task"], "task")

        def draw(inputs: Any, target: Any, student: Any, teacher: Any) -> Any:
            temperature = (spec.config.get("method") or {}).get("temperature") or 1.0
            names = datamodule.class_names
            return sample_picture(inputs, target, student, teacher, temperature, names, datamodule.mean, datamodule.std)

        return RunRecorder(
            spec,
            task=task,
            loader_state=lambda: self._train_loader.state_dict(),
            draw=draw if spec.config["pictures"]["every_n_epochs"] else None,
            report=self.shown.update if self.shown else None,
        )

    # -- training and testing ------------------------------------------------------------------------------------
    def _fit_and_test(self, indices: Sequence[int], place: Progress) -> None:
        recorders = [self.recorders[i] for i in indices]
        distiller = Distiller(
            self.answers,
            [self.members[i] for i in indices],
            recorders,
            self.training_teacher or self.teacher,
            log_every_n_steps=int(self.config["log_every_n_steps"]),
        )
        self._distiller = distiller
        callbacks = list((instantiate(self.config["callbacks"], "callbacks") or {}).values())
        arguments = trainer_arguments(self.config)
        arguments["callbacks"] = [FastForward(place), *([self.shown] if self.shown else []), *callbacks]
        arguments["logger"] = recorders[0].loggers if callbacks and len(indices) == 1 else False
        trainer = pl.Trainer(
            **arguments,
            default_root_dir=str(self.specs[indices[0]].run_dir),
            enable_checkpointing=any(isinstance(c, pl.callbacks.Checkpoint) for c in callbacks),
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        loaders = [self.datamodule.train_dataloader(), self.datamodule.val_dataloader()]
        self._train_loader = loaders[0]
        if place.loader is not None:
            loaders[0].load_state_dict(place.loader)
        try:
            with graceful(lambda: setattr(distiller, "interrupted", True)):
                try:
                    trainer.fit(distiller, loaders[0], loaders[1])
                except RunInterrupted:
                    for recorder in recorders:
                        if not recorder.done:
                            recorder.status = "interrupted"
                    self._results()
                    raise
                except Exception:
                    if not all(recorder.error for recorder in recorders):
                        raise
            for recorder in recorders:
                recorder.finish()
            self._verify_teacher()
            self._test(trainer, distiller)
        finally:
            for loader in loaders:
                loader.close()

    def _test(self, trainer: pl.Trainer, distiller: Distiller) -> None:
        if all(recorder.error for recorder in distiller.recorders):
            return
        for member, recorder in zip(distiller.members, distiller.recorders, strict=True):
            if not recorder.error:
                load_best(member, recorder.spec)
        loader = self.datamodule.test_dataloader()
        try:
            trainer.test(distiller, loader, verbose=False)
        finally:
            loader.close()

    def _verify_teacher(self) -> None:
        verify = getattr(self.teacher, "verify", None)
        if verify is not None:
            verify()

    # -- results -------------------------------------------------------------------------------------------------
    def _results(self) -> list[dict[str, Any]]:
        example = self.datamodule.example_batch()
        results = []
        for spec, recorder, member in zip(self.specs, self.recorders, self._padded(), strict=False):
            if recorder.status == "running":
                recorder.status = "interrupted"
            result = self._result(spec, recorder, member, example)
            try:
                write_result(spec.result_path, result)
            except OSError as error:
                log.error("%s: result.json could not be written (%s); start the run again", spec.run_dir, error)
            final = {**result["metrics"], **{f"cost/{k}": v for k, v in result["cost"].items()}}
            log_end(recorder.loggers, recorder.status, final, recorder.step, result_markdown(result))
            recorder.loggers = []
            results.append(result)
        return results

    def _padded(self) -> list[Member | None]:
        return [*self.members, *[None] * (len(self.specs) - len(self.members))]

    def _result(self, spec: RunSpec, recorder: RunRecorder, member: Member | None, example: Batch) -> dict[str, Any]:
        metrics = {f"test/{k}": v for k, v in recorder.test_metrics.items() if not k.startswith("teacher_")}
        if recorder.best is not None:
            metrics[f"best/val_{recorder.monitor}"] = recorder.best
            metrics |= {"best/epoch": recorder.best_epoch, "best/step": recorder.best_step}
        student = None
        if member is not None:
            student = {
                "parameters": parameters_count(member.student),
                "bytes": state_bytes(member.student),
                "latency_ms": latency_ms(member.student, example.inputs) if recorder.status == "finished" else None,
            }
        return {
            "format": RESULT_FORMAT,
            "status": recorder.status,
            "name": spec.name,
            "role": spec.role,
            "fingerprint": spec.fingerprint,
            "seed": spec.seed,
            "overrides": list(spec.overrides),
            "task": recorder.task_name,
            "monitor": {"metric": recorder.monitor, "mode": recorder.mode},
            "metrics": metrics,
            "teacher": self._teacher_part(recorder, example),
            "baseline": None,
            "student": student,
            "cost": {
                "seconds": recorder.seconds,
                "steps": recorder.step,
                "epochs": recorder.epoch,
                "fused": len(self.specs),
            },
            "config": spec.config,
            "error": recorder.error,
            "versions": versions(),
            "commit": commits(),
            "host": host(),
            "started": self.started.isoformat(timespec="seconds"),
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }

    def _teacher_part(self, recorder: RunRecorder, example: Batch) -> dict[str, Any] | None:
        if self.teacher_info is None:
            return None
        if "latency_ms" not in self.teacher_info:
            self.teacher_info["latency_ms"] = latency_ms(self.teacher.module, example.inputs)
        measured = {"test": recorder.test_metrics, "val": recorder.best_metrics}
        for split, metrics in measured.items():
            key = f"teacher_{recorder.monitor}"
            if key in metrics:
                self.teacher_info[f"{split}/{recorder.monitor}"] = metrics[key]
        return dict(self.teacher_info)


def spec_of_result(result: Mapping[str, Any], run_dir: Path) -> RunSpec:
    """The RunSpec that a ``result.json`` was made from."""
    return RunSpec(
        result["name"],
        run_dir,
        result["config"],
        result["fingerprint"],
        tuple(result["overrides"]),
        result["role"],
    )


def load_best(member: Member, spec: RunSpec) -> None:
    """Put the weights that validated best into the member."""
    content = load_checkpoint(spec.best_checkpoint, "run_dir")
    member.load_state_dict(content["state_dict"])


@contextlib.contextmanager
def logging_to(paths: Sequence[Path]) -> Iterator[None]:
    """Write log messages to these files too."""
    root, handlers = logging.getLogger(), []
    writing = {getattr(handler, "baseFilename", None) for handler in root.handlers}
    for path in paths:
        if str(path) in writing:  # Hydra's own handler of a single run
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8", delay=True)
        handler.setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"))
        root.addHandler(handler)
        handlers.append(handler)
    try:
        yield
    finally:
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()


def lock_run(spec: RunSpec) -> FileLock:
    """Hold the run's directory, so that no second process trains into it."""
    try:
        spec.run_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(spec.run_dir / ".lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"run_dir={spec.run_dir}: another process is training into this directory") from error
    except OSError as error:
        raise UserError(f"run_dir={spec.run_dir}: not writable ({error.strerror}); choose another directory") from error
    return lock
