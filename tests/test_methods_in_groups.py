"""What holds for every shipped method in a run, found by its file: in a group as alone, and with a compiled student."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from method_builds import METHODS, built, networks, tapped
from torch.utils.data import DataLoader

from kd_lightning.batch import Batch
from kd_lightning.distiller import Distiller
from kd_lightning.member import Member
from kd_lightning.models.mlp import MLP
from kd_lightning.rng import RngStream
from kd_lightning.tasks.classification import ClassificationTask
from kd_lightning.teachers.frozen import FrozenTeacher

KD = next(path for path in METHODS if path.stem == "kd")


def batches() -> list[Batch]:
    """Three batches of eight samples in two views, one label hidden."""
    generator, found = torch.Generator().manual_seed(0), []
    for number in range(3):
        inputs = torch.randn(8, 1, 8, 8, generator=generator)
        target = torch.tensor([0, 1, 2, 3, 4, 5, 6, -1])
        index = torch.arange(8) + 8 * number
        other = Batch(inputs + 0.1 * torch.randn(8, 1, 8, 8, generator=generator), target, index, 0, "train")
        found.append(Batch(inputs, target, index, 0, "train", (other,)))
    return found


def weights_after(path: Path, neighbours: int, compiled: bool = False) -> dict[str, torch.Tensor]:
    """A student's and its method's weights after two epochs, with others beside it."""
    with RngStream(1):
        student, teacher = networks(path)
    frozen = FrozenTeacher(teacher, taps={layer: layer for layer in tapped(path)["teacher"]})
    members = []
    for number in range(1 + neighbours):
        with RngStream(number):
            model, chosen = (student, path) if number == 0 else (MLP([20], 64, 10), KD)
            optimizer = functools.partial(torch.optim.SGD, lr=0.01, momentum=0.9)
            members.append(
                Member(model, built(chosen), ClassificationTask(), optimizer=optimizer, seed=number, name=f"{number}")
            )
    if compiled:
        student.compile(backend="eager")  # the tracing is what a method may break; code would take minutes
    distiller = Distiller(frozen, members)
    for number, member in enumerate(members):
        with RngStream(number):
            member.prepare(batches()[0], frozen(batches()[0]))
            member.method.bind(member.student, teacher)
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(distiller, DataLoader(batches(), batch_size=None))
    return {**student.state_dict(), **{f"method.{k}": v for k, v in members[0].method.state_dict().items()}}


@pytest.mark.slow
@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_in_a_group_it_computes_bit_for_bit_what_it_computes_alone(path):
    alone, beside = weights_after(path, 0), weights_after(path, 2)
    assert alone.keys() == beside.keys()
    assert [name for name, value in alone.items() if not torch.equal(value, beside[name])] == []


@pytest.mark.slow
@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_with_a_compiled_student_it_learns_the_same(path):
    torch._dynamo.reset()
    plain, compiled = weights_after(path, 0), weights_after(path, 0, compiled=True)
    assert plain.keys() == compiled.keys()
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-3, atol=1e-4, msg=name)
