"""What a recorder writes, when it stops early, and what it says when something goes wrong."""

from __future__ import annotations

import errno
import json
import os

import pytest
import torch
from torch import nn

from kd_lightning.errors import UserError
from kd_lightning.member import Member
from kd_lightning.method import Method
from kd_lightning.runs.checkpoint import load_checkpoint, save_checkpoint
from kd_lightning.runs.run_recorder import RunRecorder
from kd_lightning.runs.spec import RunSpec
from kd_lightning.schedules.learning_rate import RunLength
from kd_lightning.tasks.classification import ClassificationTask
from kd_lightning.tasks.clustering import ClusteringTask

CONFIG = {
    "seed": 0,
    "checkpoint": {"every_n_steps": None},
    "early_stopping": {"patience": None, "min_delta": 0.0},
    "pictures": {"every_n_epochs": 0, "samples": 0},
}


def recorder(run_dir, **early_stopping) -> RunRecorder:
    config = {**CONFIG, "early_stopping": {**CONFIG["early_stopping"], **early_stopping}}
    return RunRecorder(RunSpec("run", run_dir, config, "f" * 64), task=ClassificationTask())


def member() -> Member:
    torch.manual_seed(0)
    made = Member(
        nn.Linear(4, 3), Method({}, {"task": 1.0}), ClassificationTask(), optimizer=lambda p: torch.optim.SGD(p, lr=0.1)
    )
    made.configure(RunLength(6, 2), device=torch.device("cpu"))
    return made


def validate(kept: RunRecorder, student: Member, values: list[float]) -> None:
    for epoch, value in enumerate(values):
        if kept.done:
            break
        kept.validated(student, 2 * (epoch + 1), epoch, {"acc": value, "loss_task": 1 - value})
        if not kept.done:
            kept.save(student, epoch + 1, 0, 2 * (epoch + 1))


def test_the_best_checkpoint_is_the_last_of_equally_good_validations(tmp_path):
    kept, student = recorder(tmp_path), member()
    validate(kept, student, [0.5, 0.7, 0.7, 0.6])
    assert (kept.best, kept.best_epoch, kept.best_step) == (0.7, 2, 6)
    assert kept.stale == 2  # an equal is no improvement: early stopping counts on
    content = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert (content["epoch"], content["global_step"]) == (2, 6)
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 4


@pytest.mark.parametrize(
    ("patience", "min_delta", "epochs"), [(None, 0.0, 6), (1, 0.0, 3), (2, 0.0, 6), (2, 0.05, 4), (3, 0.05, 5)]
)
def test_early_stopping_counts_validations_without_an_improvement(tmp_path, patience, min_delta, epochs):
    kept = recorder(tmp_path, patience=patience, min_delta=min_delta)
    validate(kept, member(), [0.50, 0.60, 0.60, 0.62, 0.62, 0.62])
    assert kept.epoch == epochs
    assert kept.done == (epochs < 6 or patience == 2)


def test_min_delta_is_early_stoppings_alone_the_best_checkpoint_is_the_best(tmp_path):
    kept = recorder(tmp_path, patience=3, min_delta=0.05)
    validate(kept, member(), [0.50, 0.60, 0.62, 0.63])
    assert (kept.best, kept.best_epoch, kept.mark, kept.stale) == (0.63, 3, 0.60, 2)


def test_a_stopped_run_that_is_continued_stays_stopped(tmp_path):
    validate(recorder(tmp_path, patience=1), member(), [0.5, 0.4, 0.9])
    again, student = recorder(tmp_path, patience=1), member()
    place = again.resume(student)
    assert again.done
    assert (place.epoch, place.step, again.best) == (2, 4, 0.5)
    again.finish()
    assert again.status == "finished"


def test_continuing_restores_weights_optimizer_and_what_was_best(tmp_path):
    kept, student = recorder(tmp_path), member()
    student.student(torch.ones(2, 4)).sum().backward()
    student.optimizer.step()
    validate(kept, student, [0.5, 0.4])
    (tmp_path / "checkpoints" / ".best.ckpt.123.tmp").touch()  # of a process that was killed
    again, other = recorder(tmp_path), member()
    place = again.resume(other)
    assert (place.epoch, place.batch, place.step) == (2, 0, 4)
    assert (again.best, again.best_epoch, again.stale) == (0.5, 0, 1)
    assert all(torch.equal(a, b) for a, b in zip(student.parameters(), other.parameters(), strict=True))
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path):
    validate(recorder(tmp_path), member(), [0.5])
    other = RunRecorder(RunSpec("run", tmp_path, CONFIG, "0" * 64), task=ClassificationTask())
    with pytest.raises(UserError, match="holds a run with another configuration"):
        other.resume(member())


def test_lines_after_the_checkpoint_are_dropped_before_they_are_written_again(tmp_path):
    kept, student = recorder(tmp_path), member()
    validate(kept, student, [0.5])
    kept.log(3, 1, {"train/loss": 1.0})
    kept.close()
    recorder(tmp_path).resume(member())
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [2]


def test_a_disk_error_becomes_the_users_to_mend_however_it_was_wrapped(tmp_path):
    kept = recorder(tmp_path)
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device", "/somewhere")
        except OSError as error:
            raise ValueError("you tried to log 3") from error
    except ValueError as error:
        kept.failed(error)
    assert isinstance(kept.mistake, UserError)
    assert kept.status == "failed"
    assert kept.error.startswith("/somewhere: No space left on device")


def test_a_checkpoint_that_torch_cannot_write_whole_is_the_disks_and_none_is_promised_before_there_is_one(
    tmp_path, monkeypatch
):
    def fails(*_):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 29888 vs 29816")

    kept = recorder(tmp_path)
    save = torch.save
    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(OSError, match="is the disk full") as caught:
        save_checkpoint(kept.spec.last_checkpoint, {})
    monkeypatch.setattr(torch, "save", save)
    kept.failed(caught.value)
    assert kept.error.startswith(f"{kept.spec.last_checkpoint}: the checkpoint could not be written, is the disk full?")
    assert kept.error.endswith("; mend that and start again")
    assert "is kept" not in kept.error
    save_checkpoint(kept.spec.last_checkpoint, {})
    kept.failed(OSError(errno.EFBIG, "File too large"))
    assert kept.error.endswith(": File too large; the last checkpoint is kept: mend that and start again")


def test_a_run_directory_that_is_deleted_meanwhile_is_named(tmp_path):
    kept = recorder(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        os.stat(os.fsencode(tmp_path / "gone" / "events"))
    kept.failed(caught.value)
    assert kept.error == f"{tmp_path}: was deleted or moved while the run wrote into it: start again"
    kept.failed(FileNotFoundError(errno.ENOENT, "No such file", "/data/picture.png"))
    assert kept.error.startswith("FileNotFoundError")


def test_other_errors_keep_their_kind_on_one_line(tmp_path):
    kept = recorder(tmp_path)
    kept.failed(RuntimeError("two\nlines"))
    assert (kept.status, kept.error, kept.mistake) == ("failed", "RuntimeError: two lines", None)


def test_a_divergence_names_step_term_and_the_checkpoint_before(tmp_path):
    kept = recorder(tmp_path)
    validate(kept, member(), [0.5])
    kept.diverged(3, ["loss_kd"])
    kept.explain(None)
    assert kept.status == "diverged"
    for part in ("step 3", "loss_kd", str(tmp_path / "checkpoints" / "last.ckpt"), "optimizer.lr"):
        assert part in kept.error


def test_a_logger_that_cannot_be_closed_changes_nothing(tmp_path, caplog):
    class Broken:
        def log_metrics(self, *args):
            raise ConnectionError("gone")

    kept = recorder(tmp_path)
    kept.loggers = [Broken()]
    kept.close({"test/acc": 0.5})
    assert "a logger could not be closed: gone" in caplog.text
    assert kept.loggers == []


def test_without_any_validation_the_last_state_is_tested_and_that_is_said(tmp_path, caplog):
    kept, student = recorder(tmp_path), member()
    kept.save(student, 2, 0, 4)
    kept.finish()
    assert kept.status == "finished"
    assert (kept.best, kept.best_epoch, kept.best_step) == (None, 1, 4)
    assert "no validation was made, so the last state is tested" in caplog.text
    best = load_checkpoint(kept.spec.best_checkpoint)
    assert all(torch.equal(best["state_dict"][k], v) for k, v in student.weights().items())


def test_a_run_that_trained_not_one_batch_fails_in_one_line(tmp_path):
    kept = recorder(tmp_path)
    kept.finish()
    assert kept.status == "failed"
    assert "not one batch was trained" in kept.error


@pytest.mark.parametrize(("length", "epochs"), [({"min_epochs": 5}, 5), ({"min_steps": 8}, 4), ({}, 2)])
def test_early_stopping_leaves_the_smallest_length_alone(tmp_path, length, epochs):
    kept = recorder(tmp_path, patience=1)
    kept.spec.config["trainer"] = length
    validate(kept, member(), [0.5, 0.4, 0.4, 0.4, 0.4, 0.4])
    assert (kept.done, kept.epoch) == (True, epochs)


def test_the_best_checkpoint_holds_the_weights_that_were_measured(tmp_path):
    kept, student = recorder(tmp_path), member()
    student.measured = {k: v + 1 for k, v in student.weights().items()}
    validate(kept, student, [0.5])
    best = load_checkpoint(kept.spec.best_checkpoint)["state_dict"]
    assert all(torch.equal(best[k], v + 1) for k, v in student.weights().items())


def test_a_test_metric_that_is_not_finite_is_told(tmp_path, caplog):
    kept = recorder(tmp_path)
    kept.tested({"acc": 0.5, "loss_task": 1.0})
    assert not caplog.records
    kept.tested({"acc": 0.5, "loss_task": float("nan")})
    assert caplog.messages == [
        "run: loss_task not finite on the test split: look there for samples with values that are no numbers"
    ]


def test_figures_that_lack_labels_are_not_blamed_on_values(tmp_path, caplog):
    nan = float("nan")
    recorder(tmp_path).tested({"acc": nan, "loss_task": nan, "agreement": 0.9})
    assert "run: acc, loss_task cannot be measured on the test split: none of its samples has a label" in caplog.text
    assert "no numbers" not in caplog.text


def test_the_progress_shows_the_figure_that_chooses(tmp_path):
    shown = []
    task = ClusteringTask()
    spec = RunSpec("run", tmp_path, CONFIG, "f" * 64)
    kept = RunRecorder(spec, task=task, report=lambda name, **what: shown.append(what))
    figures = {"nmi": 0.4, "loss_task": 1.0, task.choosers[0]: 0.7}
    kept.validated(member(), 2, 0, figures)
    assert (shown[-1]["metric"].name, shown[-1]["value"], shown[-1]["best"]) == (task.choosers[0], 0.7, 0.7)
    assert kept.best == 0.4  # what tables are about
