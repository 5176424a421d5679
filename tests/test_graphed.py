"""Steps that are replayed are those of the loop, and who cannot be replayed is left to it; on real graphs: tests/gpu."""

from __future__ import annotations

import functools
import logging

import pytest
import pytorch_lightning as pl
import torch
from recording import Graph, recording
from torch import nn
from torch.utils.data import DataLoader

from kd_lightning.batch import Batch
from kd_lightning.distiller import Distiller
from kd_lightning.errors import UserError
from kd_lightning.graphed import WARM_UP
from kd_lightning.losses.hint import HintLoss
from kd_lightning.losses.soft_target import SoftTargetLoss
from kd_lightning.member import Member
from kd_lightning.method import Method
from kd_lightning.models.mlp import MLP
from kd_lightning.recordable import changed, state_of, why_not
from kd_lightning.recorder import Recorder
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


@pytest.fixture
def graphs(monkeypatch) -> list[Graph]:
    """Graphs of the processor; those that were recorded."""
    made = []

    def graph():
        made.append(Graph())
        return made[-1]

    monkeypatch.setattr(torch.cuda, "CUDAGraph", graph)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr("kd_lightning.graphed.why_not", lambda one, _: why_not(one, GPU))
    return made


class Losses(Recorder):
    def __init__(self, last: int = 10**9) -> None:
        self.lines, self.last = [], last

    @property
    def done(self):
        return len(self.lines) >= self.last

    def log(self, step, epoch, metrics):
        self.lines.append({name: value for name, value in metrics.items() if not name.startswith("time/")})


def batches() -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    sizes = (6, 6, 6, 6, 6, 6, 6, 4)  # the last is smaller
    return [
        Batch(torch.randn(n, 8, generator=generator), torch.randint(-1, 5, (n,), generator=generator)) for n in sizes
    ]


def trained(make, cuda_graphs: bool, lasts=(10**9, 10**9, 10**9), epochs: int = 2) -> tuple[list[Member], list[Losses]]:
    members, recorders = [make(i) for i in range(3)], [Losses(last) for last in lasts]
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, max_epochs=epochs, num_sanity_val_steps=0,
    )  # fmt: skip
    teacher = FrozenTeacher(TEACHER, taps={"hidden.0": "hidden.0"})
    distiller = Distiller(teacher, members, recorders, log_every_n_steps=1, cuda_graphs=cuda_graphs)
    trainer.fit(distiller, DataLoader(batches(), batch_size=None), DataLoader(batches(), batch_size=None))
    return members, recorders


def plain(i: int) -> Member:
    return member(temperature=1.0 + i, terms={"kd": SoftTargetLoss(1.0 + i)})


def normed(i: int) -> Member:
    with RngStream(i):
        student = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 5))
    optimizer = functools.partial(torch.optim.AdamW, lr=0.01 * (i + 1))
    scheduler = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=3, gamma=0.5)
    return member(student, optimizer=optimizer, scheduler=scheduler, scheduler_interval="step", gradient_clip_val=0.1)


def hinted(i: int) -> Member:
    taps = {"student": {"hidden.0": "hidden.0"}, "teacher": {"hidden.0": "hidden.0"}}
    method = Method({"hint": HintLoss("hidden.0", "hidden.0")}, {"task": 1.0, "hint": 0.1 * (i + 1)}, taps=taps)
    with RngStream(i):
        student = MLP([5], 8, 5)
        made = Member(student, method, ClassificationTask(), optimizer=functools.partial(torch.optim.SGD, lr=0.1))
        made.prepare(BATCH, FrozenTeacher(TEACHER, taps={"hidden.0": "hidden.0"})(BATCH))
    return made


def half(i: int) -> Member:
    return member(precision="bf16-mixed", temperature=1.0 + i)


def assert_equal(one, other) -> None:
    for mine, theirs in zip(*(found[0] for found in (one, other)), strict=True):
        for name, value in mine.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name]), name
    assert [each.lines for each in one[1]] == [each.lines for each in other[1]]


@pytest.mark.parametrize("make", [plain, normed, hinted, half])
def test_replayed_steps_are_those_of_the_loop_to_the_last_bit(make, graphs):
    loop = trained(make, cuda_graphs=False)
    assert not graphs
    replayed = trained(make, cuda_graphs=True)
    assert [graph.replays for graph in graphs] == [
        2 * 7 - WARM_UP
    ] * 3  # all but the first steps and the smaller batches
    assert_equal(loop, replayed)


def test_who_stops_early_is_replayed_no_more_and_the_others_are(graphs):
    lasts = (10**9, 6, 10**9)
    loop, replayed = (trained(plain, graphs_on, lasts) for graphs_on in (False, True))
    assert sorted(graph.replays for graph in graphs) == [6 - WARM_UP, 11, 11]
    assert_equal(loop, replayed)


def test_weights_that_were_put_elsewhere_are_recorded_anew(graphs, monkeypatch):
    def elsewhere(self):
        for each in self.members:
            for parameter in each.parameters():
                parameter.data = parameter.data.clone()

    monkeypatch.setattr(Distiller, "on_validation_epoch_end", elsewhere)
    loop, replayed = (trained(normed, graphs_on) for graphs_on in (False, True))
    assert len(graphs) == 6
    assert_equal(loop, replayed)


def test_what_a_callback_sets_between_epochs_counts(graphs, monkeypatch):
    def sharper(self):
        for each in self.members:
            each.method.terms["kd"].temperature = 0.5

    monkeypatch.setattr(Distiller, "on_validation_epoch_end", sharper)
    loop, replayed = (trained(plain, graphs_on) for graphs_on in (False, True))
    assert len(graphs) == 6
    assert_equal(loop, replayed)


def test_who_draws_random_numbers_trains_in_the_loop_beside_the_others(graphs, caplog):
    def make(i):
        with RngStream(i):
            parts = [nn.Linear(8, 6), *([nn.Dropout(0.5)] if i == 1 else []), nn.Linear(6, 5)]
        return member(nn.Sequential(*parts), name=f"m{i}")

    with caplog.at_level(logging.INFO, "kd_lightning"):
        loop, replayed = (trained(make, graphs_on) for graphs_on in (False, True))
    assert len(graphs) == 2
    assert "m1 trains in the loop: a step changed random numbers" in caplog.text
    assert_equal(loop, replayed)


def test_two_ways_at_once_are_refused():
    with pytest.raises(UserError, match="choose one"):
        Distiller(None, member(), stacked=True, cuda_graphs=True)
