"""The recorder of a run directory: metrics file, loggers, best and last checkpoint, early stopping."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kd_lightning.errors import UserError
from kd_lightning.joints import Judge, Step, Task
from kd_lightning.metrics.declared import Declared
from kd_lightning.metrics.metric import FIDELITY
from kd_lightning.recorder import Recorder
from kd_lightning.runs.checkpoint import first_line, load_checkpoint, save_checkpoint
from kd_lightning.runs.code_change import identity_of, is_same, why_other
from kd_lightning.runs.disk_errors import disk_error, gone
from kd_lightning.runs.loggers import log_end
from kd_lightning.runs.metrics_file import METRICS_FILE, MetricsFile
from kd_lightning.runs.spec import TEACHER, Progress, RunSpec, without_validation

if TYPE_CHECKING:
    from kd_lightning.member import Member

log = logging.getLogger(__name__)

KEPT = (
    "status",
    "best",
    "best_choice",
    "best_epoch",
    "best_step",
    "best_metrics",
    "best_on_test",
    "best_on_test_epoch",
    "mark",
    "stale",
    "epoch",
    "step",
    "seconds",
    "warnings",
)
"""Attributes of a recorder that a run continues with."""


class RunRecorder(Recorder):
    """Keeps one run's files.

    Args:
        spec: the run.
        task: declares the metrics, and which of them chooses the best checkpoint.
        loggers: Lightning loggers beside the metrics file.
        loader_state: gives the training loader's position, asked for between two batches.
        draw: makes a picture, shape (height, width, 3), of a step and the epoch, where one is due; None: none.
        report: called as ``report(name, **what)`` with what a progress display shows.
        writes: False in all but one of the processes that train the run: they follow what happens and leave no file.
        judge: told of each validation, and asked at the end of an epoch whether to go on; None: the run goes on.
    """

    def __init__(
        self,
        spec: RunSpec,
        *,
        task: Task,
        loggers: Sequence[Any] = (),
        loader_state: Callable[[], dict[str, Any]] | None = None,
        draw: Callable[[Step, int], Any] | None = None,
        report: Callable[..., None] | None = None,
        judge: Judge | None = None,
        writes: bool = True,
    ) -> None:
        config = spec.config
        self.spec = spec
        self.task, self.declared = task, Declared.of_task(task)
        self.monitor = task.monitor
        self.loggers = list(loggers)
        self.status = "running"
        self.warnings: dict[str, str] = {}  # by kind: what spoils the training
        self.error: str | None = None
        self.mistake: UserError | None = None
        self.best: float | None = None  # the monitored metric of the best checkpoint, chosen by ``best_choice``
        self.best_choice: float | None = None
        self.best_epoch = self.best_step = -1
        self.best_metrics: dict[str, float] = {}
        self.test_metrics: dict[str, float] = {}
        self.best_on_test: float | None = None  # of a run without validation: shown to compare with tables, never read
        self.best_on_test_epoch = -1
        self.mark: float | None = None  # what early stopping measures improvements from
        self.stale = 0
        self.epoch = self.step = 0
        self.seconds = 0.0
        self.checkpoint_every_n_steps = config["checkpoint"]["every_n_steps"]
        self._last_epoch = (config.get("trainer") or {}).get("max_epochs")
        self._without_validation = without_validation(config)
        self._patience = config["early_stopping"]["patience"]
        self._min_delta = float(config["early_stopping"]["min_delta"] or 0.0)
        self.callback_states: Callable[[], dict[str, Any]] | None = None  # of a run with callbacks of its own
        self._loader_state = loader_state
        self._draw = draw
        self._report = report or (lambda name, **what: None)
        self._judge = judge
        self._writes = writes
        self._metrics_file = MetricsFile(spec.run_dir / METRICS_FILE)
        self._seen: Step | None = None
        self._teacher_logged = False
        self._since = time.monotonic()

    @property
    def done(self) -> bool:  # type: ignore[override]  # read only here: it follows from the status
        return self.status != "running"

    # -- continuing ----------------------------------------------------------------------------------------------
    def resume(self, member: Member) -> Progress:
        """Bring the member to where ``last.ckpt`` left it; the start if there is none."""
        path = self.spec.last_checkpoint
        for unfinished in self.spec.run_dir.glob("**/.*.tmp") if self._writes else ():
            unfinished.unlink()  # of a process that was killed while it wrote
        if not path.is_file():
            self._rewind(-1)
            return Progress()
        try:
            content = load_checkpoint(path, "run_dir")
        except UserError as error:
            raise UserError(f"{error}: the run cannot go on from it; delete it, and the run starts anew") from error
        if not is_same(content, self.spec):
            raise UserError(f"run_dir={self.spec.run_dir}: {why_other(content, self.spec)}")
        member.load_state_dict(content["state_dict"])
        member.load_training_state(content["training"])
        for name, value in content["recorder"].items():
            setattr(self, name, value)
        if self.status == "pruned":  # wanted again, to its end or by another search
            self.status = "running"
        self._teacher_logged = self.best is not None
        self._rewind(content["global_step"])
        return Progress(
            content["epoch"], content["batch"], content["global_step"], content["loader"], content.get("callbacks")
        )

    # -- from the Distiller --------------------------------------------------------------------------------------
    def started(self, member: Member) -> None:
        self._since = time.monotonic()
        self._report(self.spec.name, status="running")

    def log(self, step: int, epoch: int, metrics: dict[str, float]) -> None:
        self.step = step
        self._write(step, epoch, metrics)

    def validated(self, member: Member, step: int, epoch: int, metrics: dict[str, float]) -> None:
        if self._without_validation:
            self._compared(member, step, epoch, metrics)
            return
        value, chooser = metrics[self.monitor], self.declared.chooser(metrics)
        choice = metrics[chooser.name]
        line = self.declared.students(metrics, "val/")
        if not self._teacher_logged:
            line |= self.declared.teachers(metrics, "teacher/val_")
            self._teacher_logged = True
        self._write(step, epoch, line)
        self._picture(step, epoch)
        if not math.isfinite(choice):
            self.diverged(step, [f"val/{chooser.name}"])
            return
        if self.best_choice is None or chooser.sign * (choice - self.best_choice) >= 0:
            # of equals the later: a small validation set saturates while training goes on
            self.best, self.best_choice, self.best_epoch, self.best_step = value, choice, epoch, step
            self.best_metrics = dict(metrics)
            content = {"state_dict": member.measured_weights(), "epoch": epoch, "global_step": step, "metrics": metrics}
            self._store(self.spec.best_checkpoint, content | identity_of(self.spec))
        if self.mark is None or chooser.sign * (choice - self.mark) > self._min_delta:
            self.mark, self.stale = choice, 0
        else:
            self.stale += 1
        self.epoch, self.step = epoch + 1, step
        if self._patience is not None and self.stale >= self._patience and self._may_stop(epoch + 1, step):
            self.status = "stopped"
            self.save(member, epoch + 1, 0, step)
        self._judged(lambda judge: judge.report(epoch + 1, value))
        self._report(self.spec.name, epoch=epoch + 1, metric=chooser, value=choice, best=self.best_choice)

    def _compared(self, member: Member, step: int, epoch: int, metrics: dict[str, float]) -> None:
        """Figures on the test samples during training, as tables report the best of them: nothing is chosen by them."""
        if member.optimization.follows_metric:
            raise UserError("scheduler follows the validation metric, and there is no validation: choose another one")
        self._write(step, epoch, self.declared.students(metrics, "on_test/"))
        self.epoch, self.step = epoch + 1, step
        value, sign = metrics[self.monitor], self.declared.monitored.sign
        if math.isfinite(value) and (self.best_on_test is None or sign * (value - self.best_on_test) > 0):
            self.best_on_test, self.best_on_test_epoch = value, epoch
        self._report(self.spec.name, epoch=epoch + 1)

    def tested(self, metrics: dict[str, float]) -> None:
        self.test_metrics = dict(metrics)
        if strange := [name for name, value in metrics.items() if not math.isfinite(value)]:
            measured = {name: value for name, value in metrics.items() if self.declared[name].of != FIDELITY}
            unlabelled = len(measured) < len(metrics) and all(map(math.isnan, measured.values()))
            log.warning(
                "%s: %s the test split: %s",
                self.spec.name,
                f"{', '.join(strange)} {'cannot be measured' if unlabelled else 'not finite'} on",
                "none of its samples has a label: give targets beside the inputs, or test data that have them"
                if unlabelled
                else "look there for samples with values that are no numbers",
            )

    def look(self, step: Step) -> None:
        self._seen = step

    def save(self, member: Member, epoch: int, batch: int, step: int) -> None:
        self._clock()
        self.epoch, self.step = epoch, step
        if not batch and self.status == "running" and epoch != self._last_epoch and self._judged(lambda j: j.stop()):
            self._prune(epoch)
        content = {
            "state_dict": member.weights(),
            "training": member.training_state(),
            "recorder": {name: getattr(self, name) for name in KEPT},
            "loader": self._loader_state() if batch and self._loader_state else None,
            "callbacks": self.callback_states() if self.callback_states is not None else None,
            "epoch": epoch,
            "batch": batch,
            "global_step": step,
            **identity_of(self.spec),
        }
        self._store(self.spec.last_checkpoint, content)
        for logger in self.loggers:  # so that a killed run's event files know the same steps as its checkpoint
            flush = getattr(logger, "flush", None)
            if flush is not None:
                flush()

    def agree(self, share: Callable[[Any], Any]) -> None:
        self.status, self.error = share((self.status, self.error))

    def diverged(self, step: int, terms: list[str]) -> None:
        kept = f"; {self.spec.last_checkpoint} holds the state before" if self.spec.last_checkpoint.exists() else ""
        self._end("diverged", f"not finite since step {step}: {', '.join(terms)}{kept}")
        log.error("%s diverged: %s", self.spec.name, self.error)
        self.step = step

    def warned(self, kind: str, text: str) -> bool:
        new = kind not in self.warnings
        self.warnings.setdefault(kind, text)
        return new

    def explain(self, cause: str | None) -> None:
        """Complete what is said of a run that diverged: the cause, or what helps where it is not known."""
        where = "teacher.train.optimizer.lr" if self.spec.role == TEACHER else "optimizer.lr"
        self.error = f"{self.error}; {cause or f'lower {where} or the weight of the term'}"

    def failed(self, error: Exception) -> None:
        disk = disk_error(error)
        if disk is not None:
            where = disk.filename or self.spec.run_dir
            kept = "the last checkpoint is kept: " if self.spec.last_checkpoint.is_file() else ""
            error = UserError(f"{where}: {disk.strerror}; {kept}mend that and start again")
        elif gone(error, self.spec.run_dir):
            error = UserError(f"{self.spec.run_dir}: was deleted or moved while the run wrote into it: start again")
        if isinstance(error, UserError):
            self.mistake = error
            self._end("failed", " ".join(str(error).split()))
            log.error("%s failed: %s", self.spec.name, self.error)
        else:
            text = " ".join(str(error).split())
            self._end("failed", f"{type(error).__name__}: {text}" if text else type(error).__name__)
            log.error("%s failed: %s", self.spec.name, self.error, exc_info=error)

    # -- the end -------------------------------------------------------------------------------------------------
    def finish(self) -> None:
        """Training reached its end (or stopped early). Without any validation, the last state is taken for the best."""
        self._clock()
        if self.status not in ("running", "stopped"):
            return
        self.status = "finished"
        if self.best is not None:
            return
        if not self.spec.last_checkpoint.is_file():
            self.failed(UserError("not one batch was trained: see trainer.limit_train_batches, trainer.max_epochs"))
            return
        last = load_checkpoint(self.spec.last_checkpoint, "run_dir")
        kept = {key: last[key] for key in ("state_dict", "epoch", "global_step", "fingerprint")}
        self._store(self.spec.best_checkpoint, {**kept, "metrics": {}})
        self.best_epoch, self.best_step = last["epoch"] - 1, last["global_step"]
        if not self._without_validation:
            log.warning("%s: no validation was made, so the last state is tested", self.spec.name)

    def close(self, final: dict[str, Any] | None = None, table: str | None = None) -> None:
        """Close the files and loggers; ``final`` metrics and the ``table`` of the result are told to them first.

        The result is written by then: a logger that cannot write any more (full disk, lost connection) is told of and
        changes nothing.
        """
        self._metrics_file.close()
        loggers, self.loggers = self.loggers, []
        try:
            log_end(loggers, self.status, final or {}, self.step, table)
        except Exception as error:
            disk = disk_error(error)
            why = first_line(error) if disk is None else disk.strerror
            log.warning("%s: a logger could not be closed: %s", self.spec.name, why)

    # -- helpers -------------------------------------------------------------------------------------------------
    def _judged(self, ask: Callable[[Judge], bool | None]) -> bool:
        """What the judge says; one that cannot be reached (a database, a full disk) is told of, and the run goes on."""
        if self._judge is None:
            return False
        try:
            return bool(ask(self._judge))
        except Exception as error:
            log.warning("%s: nobody judges it any more, it goes on to its end: %s", self.spec.name, first_line(error))
            self._judge = None
            return False

    def _store(self, path: Path, content: dict[str, Any]) -> None:
        if self._writes:
            save_checkpoint(path, content)

    def _rewind(self, step: int) -> None:
        if self._writes:
            self._metrics_file.rewind(step)

    def _prune(self, epoch: int) -> None:
        self._end("pruned", f"stopped early after epoch {epoch}: others of the search were better by then")

    def _end(self, status: str, error: str) -> None:
        self._clock()
        self.status, self.error = status, error
        self._report(self.spec.name, status=status)

    def _clock(self) -> None:
        now = time.monotonic()
        self.seconds += now - self._since
        self._since = now

    def _may_stop(self, epochs: int, steps: int) -> bool:
        """Early stopping leaves the smallest length alone: ``trainer.min_epochs``, ``trainer.min_steps``."""
        trainer = self.spec.config.get("trainer") or {}
        return epochs >= (trainer.get("min_epochs") or 0) and steps >= (trainer.get("min_steps") or 0)

    def _write(self, step: int, epoch: int, metrics: dict[str, float]) -> None:
        if self._writes:
            self._metrics_file.write(step, epoch, metrics)
        for logger in self.loggers:
            logger.log_metrics(metrics, step)

    def _picture(self, step: int, epoch: int) -> None:
        picture = self._draw(self._seen, epoch) if self._draw is not None and self._seen is not None else None
        for logger in self.loggers if picture is not None else ():
            add_image = getattr(logger.experiment, "add_image", None)
            if add_image is not None:
                add_image("val/samples", picture, step, dataformats="HWC")
