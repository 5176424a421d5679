"""A run's length, however it is given: schedules span it, nothing is cut short or left over."""

from __future__ import annotations

import functools
import os
import signal

import pytest
import pytorch_lightning as pl
from pytorch_lightning.plugins.environments import SLURMEnvironment
from test_distiller import DropNet, Notebook, ReferenceNet, data, member, seeded
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, IterableDataset

from kd_lightning.distiller import Distiller
from kd_lightning.errors import RunInterrupted, UserError
from kd_lightning.runs.interrupt import graceful
from kd_lightning.schedules import warmup_cosine
from kd_lightning.teachers.frozen import FrozenTeacher


@pytest.fixture
def teacher():
    return FrozenTeacher(seeded(lambda: ReferenceNet(6, 12), 7))


class Rates(Notebook):
    """Keeps the learning rate after each step."""

    def __init__(self):
        super().__init__()
        self.rates = []

    def log(self, step, epoch, metrics):
        self.rates.append(metrics["lr/student"])


def fit(teacher, trained, notes, batches=None, validation=True, **length):
    t = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, **length,
    )  # fmt: skip
    loaders = [DataLoader(batches or data(6), batch_size=None)]
    loaders += [DataLoader(data(1), batch_size=None)] if validation else []
    t.fit(Distiller(teacher, trained, [notes], log_every_n_steps=1), *loaders)
    return t


COSINE = functools.partial(warmup_cosine, warmup=0.0)


@pytest.mark.parametrize(
    ("length", "steps"),
    [
        ({"max_epochs": 3}, 18),
        ({"max_epochs": 50, "max_steps": 8}, 8),
        ({"max_epochs": 2, "max_steps": 100}, 12),
        ({"max_steps": 8}, 8),
        ({"max_epochs": -1, "max_steps": 8}, 8),
        ({"max_epochs": 3, "limit_train_batches": 2}, 6),
    ],
)
def test_a_cosine_ends_at_0_with_the_last_step_however_the_length_is_given(teacher, length, steps):
    notes = Rates()
    t = fit(teacher, member(seeded(DropNet, 1), scheduler=COSINE), notes, **length)
    assert t.global_step == len(notes.rates) == steps
    assert notes.rates[-1] == pytest.approx(0, abs=1e-12)
    assert notes.rates[-2] > 1e-5


def test_one_cycle_spans_a_length_that_is_no_whole_number_of_epochs(teacher):
    notes = Rates()
    one_cycle = functools.partial(lr_scheduler.OneCycleLR, max_lr=0.1)
    fit(teacher, member(seeded(DropNet, 1), scheduler=one_cycle), notes, max_epochs=50, max_steps=13)
    assert len(notes.rates) == 13
    assert max(notes.rates) == pytest.approx(0.1, rel=0.05)
    assert notes.rates[-2] < 1e-4  # the rate that the last step was taken with


def test_accumulated_batches_count_as_one_step_of_the_schedule(teacher):
    notes = Rates()
    trained = member(seeded(DropNet, 1), scheduler=COSINE, accumulate_grad_batches=4)
    fit(teacher, trained, notes, max_epochs=4)
    assert trained.optimization.scheduler.last_epoch == 8
    assert notes.rates[-1] == pytest.approx(0, abs=1e-12)


def test_what_max_steps_cuts_short_is_validated(teacher):
    notes = Notebook()
    fit(teacher, member(seeded(DropNet, 1)), notes, max_steps=8)
    assert len(notes.validation) == 2


def test_a_schedule_that_wants_a_length_that_nobody_knows_is_one_line(teacher):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(data(3))

    trained = member(seeded(DropNet, 1), scheduler=COSINE)
    with pytest.raises(UserError, match=r"warmup_cosine needs to know how long the run is: set trainer\.max_epochs or"):
        fit(teacher, trained, Notebook(), Stream(), max_epochs=2)
    fit(teacher, member(seeded(DropNet, 1), scheduler=COSINE), notes := Rates(), Stream(), max_epochs=-1, max_steps=5)
    assert notes.rates[-1] == pytest.approx(0, abs=1e-12)


def plateau(**settings):
    return functools.partial(lr_scheduler.ReduceLROnPlateau, factor=0.5, patience=0, threshold=0.0, **settings)


def test_a_scheduler_that_follows_a_metric_gets_the_validations_and_their_direction(teacher):
    trained, notes = member(seeded(DropNet, 1), scheduler=plateau()), Notebook()
    fit(teacher, trained, notes, max_epochs=8)
    assert trained.optimization.scheduler.mode == "max"
    best, rate = -1.0, 0.05
    for accuracy in (found["acc"] for found in notes.validation):
        rate, best = (rate, accuracy) if accuracy > best else (rate / 2, best)
    assert rate < 0.05
    assert trained.learning_rate == pytest.approx(rate)


def test_it_steps_only_in_epochs_that_were_validated(teacher):
    trained = member(seeded(DropNet, 1), scheduler=plateau())
    fit(teacher, trained, Notebook(), max_epochs=7, check_val_every_n_epoch=3)
    assert trained.optimization.scheduler.last_epoch == 2


def test_it_continues_from_a_checkpoint(teacher):
    whole = member(seeded(DropNet, 1), scheduler=plateau())
    fit(teacher, whole, Notebook(), max_epochs=5)
    first = member(seeded(DropNet, 1), scheduler=plateau())
    fit(teacher, first, Notebook(), max_epochs=3)
    state = first.training_state()
    again = member(first.student, scheduler=plateau())
    again.load_training_state(state)
    fit(teacher, again, Notebook(), max_epochs=2)
    assert again.optimization.scheduler.state_dict() == whole.optimization.scheduler.state_dict()
    assert again.learning_rate == whole.learning_rate


def test_it_is_refused_by_steps_and_without_any_validation(teacher):
    with pytest.raises(UserError, match=r"scheduler\.interval=step: ReduceLROnPlateau follows the validation metric"):
        fit(
            teacher,
            member(seeded(DropNet, 1), scheduler=plateau(), scheduler_interval="step"),
            Notebook(),
            max_epochs=1,
        )
    with pytest.raises(UserError, match="there is no validation"):
        fit(teacher, member(seeded(DropNet, 1), scheduler=plateau()), Notebook(), validation=False, max_epochs=1)


def test_a_run_without_an_end_of_epochs_that_is_interrupted_is_not_finished(teacher):
    class Asks(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            pl_module.interrupted = True

    with pytest.raises(RunInterrupted):
        fit(teacher, member(seeded(DropNet, 1)), Notebook(), max_epochs=-1, max_steps=20, callbacks=[Asks()])
    with pytest.raises(RunInterrupted):
        fit(teacher, member(seeded(DropNet, 1)), Notebook(), max_epochs=2, callbacks=[Asks()])
    fit(teacher, member(seeded(DropNet, 1)), Notebook(), max_epochs=1, callbacks=[Asks()])


def test_lightning_leaves_a_signal_alone_that_is_taken_already(teacher, tmp_path):
    class Signals(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 2:
                os.kill(os.getpid(), signal.SIGUSR1)

    t = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, callbacks=[Signals()], default_root_dir=tmp_path,
        plugins=[SLURMEnvironment(auto_requeue=True)],
    )  # fmt: skip
    module = Distiller(teacher, member(seeded(DropNet, 1)), [Notebook()])
    with graceful(lambda: setattr(module, "interrupted", True)), pytest.raises(RunInterrupted, match="after step 3"):
        t.fit(module, DataLoader(data(6), batch_size=None), DataLoader(data(1), batch_size=None))
    assert not list(tmp_path.rglob("hpc_ckpt*"))
