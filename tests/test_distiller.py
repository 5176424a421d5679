"""The Distiller: a reference trajectory step by step, members in a group against the same members alone."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader

from kd_lightning.batch import Batch
from kd_lightning.distiller import Distiller
from kd_lightning.losses.soft_target import SoftTargetLoss
from kd_lightning.member import Member
from kd_lightning.method import Method
from kd_lightning.recorder import Recorder
from kd_lightning.rng import RngStream
from kd_lightning.tasks.classification import ClassificationTask
from kd_lightning.teachers.frozen import FrozenTeacher

GOLDEN = Path(__file__).parent / "golden"


class ReferenceNet(nn.Module):
    """The net of the reference trajectories: conv, conv with stride 2, mean pool, linear."""

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, c1, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(c1)
        self.conv2 = nn.Conv2d(c1, c2, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c2)
        self.fc = nn.Linear(c2, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return self.fc(x.mean((2, 3)))


class Notebook(Recorder):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.validation: list[dict[str, float]] = []
        self.weights: list[dict[str, torch.Tensor]] = []
        self.error: Exception | None = None
        self.lost: tuple[int, list[str]] | None = None
        self.stop_at: int | None = None

    @property
    def done(self) -> bool:
        return self.lost is not None or (self.stop_at is not None and len(self.validation) >= self.stop_at)

    def log(self, step, epoch, metrics):
        self.losses.append(metrics["train/loss"])

    def validated(self, member, step, epoch, metrics):
        self.validation.append(metrics)

    def save(self, member, epoch, batch, step):
        self.weights.append({k: v.clone() for k, v in member.student.state_dict().items()})

    def diverged(self, step, terms):
        self.lost = (step, terms)

    def failed(self, error):
        self.error = error


def kd(temperature=4.0, task=0.1, kd=0.9) -> Method:
    return Method({"kd": SoftTargetLoss(temperature)}, {"task": task, "kd": kd}, temperature)


def member(student: nn.Module, method: Method | None = None, lr=0.05, **settings) -> Member:
    settings.setdefault("optimizer", functools.partial(torch.optim.SGD, lr=lr, momentum=0.9, weight_decay=5e-4))
    return Member(student, method or kd(), ClassificationTask(), **settings)


def trainer(epochs: int, **settings) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, **settings,
    )  # fmt: skip


def fit(distiller: Distiller, batches: list[Batch], validation: list[Batch], epochs: int) -> None:
    loaders = [DataLoader(part, batch_size=None) for part in (batches, validation)]
    trainer(epochs).fit(distiller, *loaders)


def test_reference_trajectory_is_reproduced_step_by_step():
    golden = np.load(GOLDEN / "trajectory_kd.npz")

    def state(prefix: str) -> dict[str, torch.Tensor]:
        return {k[len(prefix) :]: torch.from_numpy(golden[k]) for k in golden.files if k.startswith(prefix)}

    student, teacher = ReferenceNet(4, 8).double(), ReferenceNet(6, 12).double()
    student.load_state_dict(state("student0/"))
    teacher.load_state_dict(state("teacher/"))
    schedule = functools.partial(torch.optim.lr_scheduler.MultiStepLR, milestones=[1], gamma=0.1)
    notes = Notebook()
    distiller = Distiller(
        FrozenTeacher(teacher),
        member(student, scheduler=schedule, scheduler_interval="epoch"),
        [notes],
        log_every_n_steps=1,
    )
    batches = [Batch(*map(torch.from_numpy, pair)) for pair in zip(golden["in/x"], golden["in/y"], strict=True)]
    val = [Batch(*map(torch.from_numpy, pair)) for pair in zip(golden["in/val_x"], golden["in/val_y"], strict=True)]

    fit(distiller, batches, val, epochs=3)

    np.testing.assert_allclose(notes.losses, golden["repdistiller_kd/step_loss"], rtol=1e-9)
    for epoch, weights in enumerate(notes.weights, start=1):
        for name, value in weights.items():
            expected = golden[f"repdistiller_kd/student_ep{epoch}/{name}"]
            np.testing.assert_allclose(value.numpy(), expected, rtol=1e-9, atol=1e-12)
    val_top1, val_loss = golden["repdistiller_kd/epoch_metrics"][:, 2], golden["repdistiller_kd/epoch_metrics"][:, 4]
    np.testing.assert_allclose([100 * m["acc"] for m in notes.validation], val_top1, rtol=1e-9)
    np.testing.assert_allclose([m["loss_task"] for m in notes.validation], val_loss, rtol=1e-6)


def data(batches=6, size=16, seed=0) -> list[Batch]:
    g = torch.Generator().manual_seed(seed)
    return [
        Batch(torch.randn(size, 1, 8, 8, generator=g), torch.randint(0, 10, (size,), generator=g))
        for _ in range(batches)
    ]


class DropNet(nn.Sequential):
    """BatchNorm and dropout: what a shared random stream or a shared buffer would spoil."""

    def __init__(self, width: int = 16) -> None:
        super().__init__(
            nn.Flatten(), nn.Linear(64, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.3), nn.Linear(width, 10)
        )


def seeded(make, seed):
    with RngStream(seed):
        return make()


@pytest.fixture
def teacher():
    return FrozenTeacher(seeded(lambda: ReferenceNet(6, 12), 7))


SETTINGS = [
    {"seed": 1, "lr": 0.05, "gradient_clip_val": 0.5},
    {"seed": 2, "lr": 0.1, "method": (2.0, 0.5, 0.5)},
    {"seed": 3, "lr": 1e9},  # diverges, and must not disturb the others
    {"seed": 4, "optimizer": functools.partial(torch.optim.AdamW, lr=1e-2), "width": 24},
]


def build(settings) -> Member:
    settings = dict(settings)
    width, method = settings.pop("width", 16), settings.pop("method", (4.0, 0.1, 0.9))
    return member(seeded(lambda: DropNet(width), settings["seed"]), kd(*method), **settings)


def test_members_of_a_group_equal_the_same_runs_alone_bit_for_bit(teacher):
    batches, val = data(), data(2, seed=1)
    alone = []
    for settings in SETTINGS:
        notes = Notebook()
        fit(Distiller(teacher, build(settings), [notes], log_every_n_steps=2), batches, val, epochs=5)
        alone.append(notes)
    together = [Notebook() for _ in SETTINGS]
    fit(Distiller(teacher, [build(s) for s in SETTINGS], together, log_every_n_steps=2), batches, val, epochs=5)

    for one, other in zip(alone, together, strict=True):
        assert one.losses == other.losses
        assert one.validation == other.validation
        assert one.lost == other.lost
        for a, b in zip(one.weights, other.weights, strict=True):
            assert all(torch.equal(a[k], b[k]) for k in a)
    assert together[2].lost is not None
    assert together[0].lost is None


def test_a_member_that_raises_leaves_alone(teacher):
    class Breaks(DropNet):
        def forward(self, x):
            if self.training and self[2].num_batches_tracked > 3:
                raise RuntimeError("out of luck")
            return super().forward(x)

    batches, val = data(), data(2, seed=1)
    good, bad = Notebook(), Notebook()
    members = [build(SETTINGS[0]), member(Breaks())]
    fit(Distiller(teacher, members, [good, bad], log_every_n_steps=2), batches, val, epochs=2)
    single = Notebook()
    fit(Distiller(teacher, build(SETTINGS[0]), [single], log_every_n_steps=2), batches, val, epochs=2)
    assert "out of luck" in str(bad.error)
    assert good.losses == single.losses
    assert good.validation == single.validation


def test_a_member_that_stops_early_leaves_the_others_unchanged(teacher):
    batches, val = data(), data(2, seed=1)
    first, second, single = Notebook(), Notebook(), Notebook()
    first.stop_at = 1
    members = [build(SETTINGS[0]), build(SETTINGS[1])]
    fit(Distiller(teacher, members, [first, second], log_every_n_steps=2), batches, val, epochs=4)
    fit(Distiller(teacher, build(SETTINGS[1]), [single], log_every_n_steps=2), batches, val, epochs=4)
    assert len(first.validation) == 1
    assert second.validation == single.validation


def test_divergence_names_the_step_and_the_term(teacher):
    class Explodes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def forward(self, student, teacher, target):
            self.calls += 1
            return student.logits.mean() * (float("nan") if self.calls == 4 else 1.0)

    method = Method({"odd": Explodes()}, {"task": 1.0, "odd": 1.0})
    notes = Notebook()
    fit(Distiller(teacher, member(DropNet(), method), [notes], log_every_n_steps=3), data(), data(1), epochs=1)
    assert notes.lost == (4, ["loss_odd"])


def test_a_notebook_user_gets_metrics_through_lightning_and_resumes_from_its_checkpoints(teacher, tmp_path):
    batches, val = data(), data(2, seed=1)
    loaders = [DataLoader(part, batch_size=None) for part in (batches, val)]

    def run(epochs, ckpt=None):
        checkpoint = pl.callbacks.ModelCheckpoint(tmp_path, save_last=True, monitor="val/acc", mode="max")
        module = Distiller(teacher, build(SETTINGS[0]))
        t = pl.Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[checkpoint],
            enable_model_summary=False, num_sanity_val_steps=0,
        )  # fmt: skip
        t.fit(module, *loaders, ckpt_path=ckpt, weights_only=True if ckpt else None)
        return module, t

    whole, t = run(4)
    assert 0 <= t.callback_metrics["val/acc"] <= 1
    for path in tmp_path.glob("*.ckpt"):
        path.unlink()
    run(2)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert not any("teacher" in key for key in saved["state_dict"])
    continued, _ = run(4, tmp_path / "last.ckpt")
    for a, b in zip(whole.parameters(), continued.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_teacher_is_no_part_of_the_module(teacher):
    distiller = Distiller(teacher, build(SETTINGS[0]))
    inside = {id(p) for p in distiller.parameters()}
    assert not inside & {id(p) for p in teacher.module.parameters()}
    assert not any("teacher" in name for name in distiller.state_dict())


def test_lightnings_learning_rate_monitor_sees_the_current_rate(teacher):
    halve = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    module = Distiller(teacher, member(DropNet(), scheduler=halve), [Notebook()])
    t = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=CSVLogger(tempfile.mkdtemp()), enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, log_every_n_steps=1,
        callbacks=[pl.callbacks.LearningRateMonitor("step")],
    )  # fmt: skip
    t.fit(module, DataLoader(data(), batch_size=None))
    assert module.members[0].learning_rate == pytest.approx(0.05 * 0.5**6)
    assert [group["lr"] for group in t.optimizers[0].param_groups] == [module.members[0].learning_rate]


class Breaks(nn.Sequential):
    """Fails at its third batch."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 10))
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls == 3:
            raise RuntimeError("broken at its third batch")
        return super().forward(x)


def test_a_member_that_fails_leaves_alone_and_when_all_have_failed_the_fit_ends_with_the_error():
    whole, broken = Notebook(), Notebook()
    good = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    method = Method({}, {"task": 1.0})
    fit(Distiller(None, [member(good, method), member(Breaks(), method)], [whole, broken]), data(), data(2), 2)
    assert str(broken.error) == "broken at its third batch"
    assert whole.error is None
    assert len(whole.weights) == 2

    alone, both = Notebook(), [Notebook(), Notebook()]
    with pytest.raises(RuntimeError, match="broken at its third batch"):
        fit(Distiller(None, member(Breaks(), method), [alone]), data(), data(2), 2)
    with pytest.raises(RuntimeError, match="broken at its third batch"):
        fit(Distiller(None, [member(Breaks(), method), member(Breaks(), method)], both), data(), data(2), 2)
    assert all(notes.error and not notes.weights for notes in (alone, *both))
