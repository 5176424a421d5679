"""Who may be replayed from a CUDA graph, and that without one the loop trains; replays themselves: tests/gpu."""

from __future__ import annotations

import functools
import logging

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from kd_lightning.batch import Batch
from kd_lightning.distiller import Distiller
from kd_lightning.errors import UserError
from kd_lightning.losses.soft_target import SoftTargetLoss
from kd_lightning.member import Member
from kd_lightning.method import Method
from kd_lightning.models.mlp import MLP
from kd_lightning.recordable import changed, state_of, why_not
from kd_lightning.rng import RngStream
from kd_lightning.schedules.learning_rate import RunLength
from kd_lightning.schedules.values import Ramp
from kd_lightning.tasks.classification import ClassificationTask
from kd_lightning.teachers.frozen import FrozenTeacher

GPU = torch.device("cuda")
BATCH = Batch(torch.randn(6, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 4, -1]))

with RngStream(1):
    TEACHER = MLP([9], 8, 5)


class Counting(nn.Module):
    """A loss that counts in Python: a replay would for ever be its first step."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.steps, self.seen = how, 0, []
        self.register_buffer("queue", torch.zeros(3))
        self.register_buffer("sum", torch.zeros(()))

    def forward(self, student, teacher, target):
        if self.how == "number":
            self.steps += 1
        elif self.how == "list":
            self.seen.append(len(target))
        elif self.how == "buffer put elsewhere":
            self.queue = self.queue + 1
        elif self.how == "buffer in its place":
            self.sum += 1
        return (student.logits - teacher.logits).square().mean()


def member(
    student: nn.Module | None = None, terms: dict | None = None, weights=None, temperature=2.0, **settings
) -> Member:
    with RngStream(0):
        student = student or MLP([5], 8, 5)
    method = Method(
        terms or {"kd": SoftTargetLoss(2.0)},
        weights or {"task": 0.5, **dict.fromkeys(terms or {"kd": 0}, 0.5)},
        temperature,
    )
    optimizer = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    made = Member(student, method, ClassificationTask(), **{"optimizer": optimizer, **settings})
    made.configure(RunLength(total_steps=10, steps_per_epoch=10), device=torch.device("cpu"))
    return made


def step(made: Member) -> None:
    made.training_step(BATCH, FrozenTeacher(TEACHER)(BATCH), stepping=True, backward=torch.Tensor.backward)


def what_a_step_changes(made: Member) -> str | None:
    step(made)  # an optimizer makes its state in the first one
    before = state_of(made)
    step(made)
    return changed(before, state_of(made))


@pytest.mark.parametrize(
    "student", [MLP([5], 8, 5), nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Linear(6, 5))]
)
def test_a_step_of_a_plain_member_moves_numbers_only(student):
    made = member(student)
    assert why_not(made, GPU) is None
    assert what_a_step_changes(made) is None


def test_who_draws_random_numbers_is_told_from_who_does_not():
    assert "random numbers" in what_a_step_changes(
        member(nn.Sequential(nn.Linear(8, 6), nn.Dropout(0.5), nn.Linear(6, 5)))
    )


@pytest.mark.parametrize(
    ("how", "found"),
    [
        ("number", "steps"),
        ("list", "seen"),
        ("buffer put elsewhere", "queue"),
        ("buffer in its place", None),
        ("", None),
    ],
)
def test_what_python_keeps_from_step_to_step_is_seen(how, found):
    told = what_a_step_changes(member(terms={"own": Counting(how)}))
    assert told is None if found is None else found in told


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"compile_student": True}, "compiled"),
        ({"weights": {"task": 0.5, "kd": Ramp(1.0)}}, "schedule"),
    ],
)
def test_whose_steps_differ_by_more_than_numbers_is_left_to_the_loop(settings, reason):
    assert reason in why_not(member(**settings), GPU)


def test_a_generator_is_left_alone_while_a_graph_is_recorded():
    stream = RngStream(3)
    before = torch.get_rng_state()
    with stream.paused(), stream:
        assert torch.equal(torch.get_rng_state(), before)
    with stream:
        assert not torch.equal(torch.get_rng_state(), before)


def test_without_a_gpu_the_loop_trains_and_one_line_says_so(caplog):
    found = []
    for graphs in (False, True):
        members = [member(), member(temperature=4.0)]
        with caplog.at_level(logging.WARNING, "kd_lightning"):
            trainer = pl.Trainer(
                accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
                enable_model_summary=False, max_epochs=1,
            )  # fmt: skip
            distiller = Distiller(FrozenTeacher(TEACHER), members, cuda_graphs=graphs)
            trainer.fit(distiller, DataLoader([BATCH] * 6, batch_size=None))
        found.append([value for each in members for value in each.state_dict().values()])
    assert all(map(torch.equal, *found))
    assert sum("CUDA graphs are for CUDA devices, this is cpu" in line for line in caplog.messages) == 1


def test_two_ways_at_once_are_refused():
    with pytest.raises(UserError, match="choose one"):
        Distiller(None, member(), stacked=True, cuda_graphs=True)
