"""A Distiller in a stranger's Trainer: which of Lightning's features work, and what is told in one line."""

from __future__ import annotations

import copy
import functools

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, StochasticWeightAveraging, WeightAveraging
from test_distiller import DropNet, Notebook, ReferenceNet, data, member, seeded, trainer
from torch import nn
from torch.optim.swa_utils import get_ema_avg_fn
from torch.utils.data import DataLoader, TensorDataset

from kd_lightning.distiller import Distiller
from kd_lightning.errors import UserError
from kd_lightning.losses.hint import HintLoss
from kd_lightning.method import Method
from kd_lightning.teachers.frozen import FrozenTeacher


@pytest.fixture
def teacher():
    return FrozenTeacher(seeded(lambda: ReferenceNet(6, 12), 7))


def loaders():
    return DataLoader(data(4), batch_size=None), DataLoader(data(2, seed=1), batch_size=None)


def samples(n=24):
    g = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(n, 1, 8, 8, generator=g), torch.randint(0, 10, (n,), generator=g))


@pytest.mark.parametrize(
    "setting", [{"accumulate_grad_batches": 4}, {"gradient_clip_val": 1.0}, {"precision": "bf16-mixed"}]
)
def test_what_is_each_members_own_is_refused_from_the_trainer_in_one_line(teacher, setting):
    (name,) = setting
    with pytest.raises(UserError, match=rf"Trainer\({name}=.*\): each member has its own, .* Member\(\.\.\., {name}="):
        trainer(1, **setting).fit(Distiller(teacher, member(DropNet())), *loaders())


def test_a_plain_module_as_teacher_and_a_made_optimizer_are_told_in_one_line():
    student = DropNet()
    with pytest.raises(UserError, match=r"teacher is a ReferenceNet, .* give FrozenTeacher\(module\)"):
        Distiller(ReferenceNet(2, 2), member(student))
    with pytest.raises(UserError, match=r"optimizer is a SGD, .* functools\.partial\(torch\.optim\.SGD"):
        member(student, optimizer=torch.optim.SGD(student.parameters(), lr=0.1))


@pytest.mark.parametrize("taps", [{"hint": "conv2"}, {"conv2": "conv2"}])
def test_a_teachers_taps_are_found_by_layer_or_by_tap_name_and_the_term_is_prepared(taps):
    teacher = FrozenTeacher(seeded(lambda: ReferenceNet(6, 12), 7), taps=taps)
    method = Method(
        {"hint": HintLoss()}, {"task": 1, "hint": 1}, taps={"student": {"hint": "conv2"}, "teacher": {"hint": "conv2"}}
    )
    trained = member(seeded(lambda: ReferenceNet(4, 8), 1), method)
    notes = Notebook()
    trainer(1).fit(Distiller(teacher, trained, [notes]), *loaders())
    assert len(notes.validation) == 1
    assert trained.method.prepared


def test_a_tap_that_the_teacher_does_not_give_is_one_line(teacher):
    method = Method(
        {"hint": HintLoss()}, {"task": 1, "hint": 1}, taps={"student": {"hint": "conv2"}, "teacher": {"hint": "conv2"}}
    )
    with pytest.raises(
        UserError, match=r"method\.taps\.teacher\.hint: .* no feature 'conv2', it has none: give FrozenTeacher"
    ):
        trainer(1).fit(Distiller(teacher, member(ReferenceNet(4, 8), method)), *loaders())


def test_preparing_changes_neither_the_order_of_samples_nor_the_random_numbers(teacher):
    class Prepares(nn.Module):
        def __init__(self, ready):
            super().__init__()
            self.prepare = (lambda student, teacher: None) if not ready else None

        def forward(self, student, teacher, target):
            return student.logits.sum() * 0

    found = []
    for ready in (True, False):
        torch.manual_seed(3)
        trained = member(seeded(DropNet, 1), Method({"mine": Prepares(ready)}, {"task": 1, "mine": 1}))
        trainer(2).fit(Distiller(teacher, trained, [Notebook()]), DataLoader(samples(), 8, shuffle=True))
        found.append((copy.deepcopy(trained.student.state_dict()), torch.rand(1)))
    assert found[0][1] == found[1][1]
    assert all(torch.equal(found[0][0][key], found[1][0][key]) for key in found[0][0])


def test_predict_gives_the_first_students_logits_for_batches_with_and_without_targets(teacher):
    module = Distiller(teacher, member(seeded(DropNet, 1)))
    t = trainer(1)
    with_target = t.predict(module, DataLoader(samples(), 8))
    without = t.predict(module, DataLoader(samples().tensors[0], 8))
    batches = t.predict(module, loaders()[0])
    assert [p.shape for p in with_target] == [(8, 10)] * 3
    assert all(torch.equal(a, b) for a, b in zip(with_target, without, strict=True))
    assert batches[0].shape == (16, 10)


def test_the_best_checkpoint_of_lightnings_own_callback_is_tested(teacher, tmp_path):
    method = Method(
        {"hint": HintLoss()}, {"task": 1, "hint": 1}, taps={"student": {"hint": "conv2"}, "teacher": {"hint": "conv2"}}
    )
    tapped = FrozenTeacher(seeded(lambda: ReferenceNet(6, 12), 7), taps={"conv2": "conv2"})
    best = ModelCheckpoint(tmp_path, monitor="val/acc", mode="max")
    t = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[best],
    )
    module = Distiller(tapped, member(seeded(lambda: ReferenceNet(4, 8), 1), method))
    t.fit(module, *loaders())
    (found,) = t.test(ckpt_path="best", dataloaders=loaders()[1], verbose=False)
    assert found["test/acc"] == pytest.approx(float(best.best_model_score))


def test_averaged_weights_are_validated_kept_and_left_in_the_student(teacher):
    class Keeps(Notebook):
        def validated(self, member, step, epoch, metrics):
            super().validated(member, step, epoch, metrics)
            self.measured = {k: v for k, v in member.measured_weights().items() if k.startswith("student.")}

    averaging, notes = WeightAveraging(avg_fn=get_ema_avg_fn(0.5)), Keeps()
    plain, averaged = member(seeded(DropNet, 1)), member(seeded(DropNet, 1))
    trainer(2).fit(Distiller(teacher, plain, [Notebook()]), *loaders())
    module = Distiller(teacher, averaged, [notes])
    trainer(2, callbacks=[averaging]).fit(module, *loaders())
    assert module.recorders[0] is notes
    assert averaging._average_model.module.teacher is teacher
    final = averaged.student.state_dict()
    assert all(torch.equal(notes.measured[f"student.{name}"], value) for name, value in final.items())
    assert not torch.equal(final["1.weight"], plain.student.state_dict()["1.weight"])


def test_swa_which_drives_lightnings_own_optimization_is_refused_in_one_line(teacher):
    with pytest.raises(
        UserError, match=r"StochasticWeightAveraging .* take pytorch_lightning\.callbacks\.WeightAveraging"
    ):
        trainer(1, callbacks=[StochasticWeightAveraging(1e-2)]).fit(Distiller(teacher, member(DropNet())), *loaders())


LAYERS = {"1": {"frozen": True}, "2": {"frozen": True}, "5": {"lr": 0.5, "weight_decay": 0.0}}


def test_frozen_layers_stay_and_others_learn_at_their_own_rate(teacher):
    start = seeded(DropNet, 1)
    before = copy.deepcopy(start.state_dict())
    trained = member(start, layers=LAYERS)
    trainer(1).fit(Distiller(teacher, trained, [Notebook()]), *loaders())
    after = trained.student.state_dict()
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed == {"5.weight", "5.bias"}  # neither the frozen layers nor their running statistics
    (group,) = trained.optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.5, 0.0)


def test_a_schedule_keeps_the_ratios_of_the_layers_rates(teacher):
    one_cycle = functools.partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.05)
    trained = member(seeded(DropNet, 1), layers={"5": {"lr": 0.005}}, scheduler=one_cycle)
    trainer(1).fit(Distiller(teacher, trained, [Notebook()]), *loaders())
    rest, own = trained.optimizer.param_groups
    assert own["lr"] == pytest.approx(rest["lr"] / 10)
    assert len(rest["params"]) == 4


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ({"nine": {"lr": 0.1}}, r"optimizer\.layers\.nine: the model has no layer 'nine'"),
        ({"1": 0.1}, r"optimizer\.layers\.1 must be a mapping"),
        (
            {"1": {"frozen": True, "lr": 0.1}},
            r"optimizer\.layers\.1: a frozen layer has no other settings, got frozen, lr",
        ),
        ({"1": {"lrr": 0.1}}, r"optimizer\.layers\.1\.lrr: SGD has lr, momentum"),
    ],
)
def test_settings_of_layers_that_cannot_be_meant_are_named(teacher, layers, says):
    with pytest.raises(UserError, match=says):
        trainer(1).fit(Distiller(teacher, member(DropNet(), layers=layers)), *loaders())
