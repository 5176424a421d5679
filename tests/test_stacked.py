"""Members computed together against the same members in the loop: equal up to rounding, whatever is each one's own."""

from __future__ import annotations

import copy
import functools
import logging

import pytest
import pytorch_lightning as pl
import torch
from method_builds import METHODS, built, networks, tapped
from torch import nn
from torch.utils.data import DataLoader

from kd_lightning.batch import Batch
from kd_lightning.distiller import Distiller
from kd_lightning.errors import UserError
from kd_lightning.losses.hint import HintLoss
from kd_lightning.losses.soft_target import SoftTargetLoss
from kd_lightning.member import Member
from kd_lightning.method import Method
from kd_lightning.models.mlp import MLP
from kd_lightning.models.resnet_cifar import CifarResNet
from kd_lightning.models.small_vit import SmallViT
from kd_lightning.recorder import Recorder
from kd_lightning.rng import RngStream
from kd_lightning.stacked import Stack
from kd_lightning.tasks.classification import ClassificationTask
from kd_lightning.teachers.frozen import FrozenTeacher


class Notes(Recorder):
    """Losses of each step; ends after so many of them, if told so."""

    def __init__(self, last: int | None = None) -> None:
        self.losses: list[float] = []
        self.last, self.error = last, None

    @property
    def done(self) -> bool:
        return self.last is not None and len(self.losses) >= self.last

    def log(self, step, epoch, metrics):
        self.losses.append(metrics["train/loss"])

    def failed(self, error):
        self.error = error


def resnet() -> nn.Module:
    return CifarResNet(8, (4, 4, 8, 8), 10, in_channels=1)


def mlp() -> nn.Module:
    return MLP([12], 64, 10)


def batches(number: int = 5, dtype: torch.dtype = torch.float32) -> list[Batch]:
    """The last one is smaller; a label is missing in each."""
    generator, found = torch.Generator().manual_seed(0), []
    for size in [8] * (number - 1) + [5]:
        target = torch.randint(0, 10, (size,), generator=generator)
        target[-1] = -1
        found.append(Batch(torch.randn(size, 1, 8, 8, generator=generator, dtype=dtype), target, torch.arange(size)))
    return found


def members(make=resnet, number: int = 3, **settings) -> list[Member]:
    """Students of other seeds, temperatures, weights, learning rates."""
    made = []
    for i in range(number):
        with RngStream(i):
            student = make()
        method = Method({"kd": SoftTargetLoss(2.0 + i)}, {"task": 0.5, "kd": 0.3 * i}, 2.0 + i)
        optimizer = functools.partial(torch.optim.SGD, lr=0.02 * (i + 1), momentum=0.9, weight_decay=1e-3)
        task = ClassificationTask()
        made.append(Member(student, method, task, **{"optimizer": optimizer, "seed": i, "name": f"m{i}", **settings}))
    return made


def fit(group: list[Member], *, stacked: bool, recorders=None, data=None, teacher=None, **settings) -> list[Notes]:
    recorders = recorders or [Notes() for _ in group]
    with RngStream(99):
        teacher = teacher or FrozenTeacher(mlp(), taps={"hidden.0": "hidden.0"})
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=0, **{"max_epochs": 2, **settings},
    )  # fmt: skip
    distiller = Distiller(teacher, group, recorders, log_every_n_steps=1, stacked=stacked)
    trainer.fit(distiller, DataLoader(data or batches(), batch_size=None))
    return recorders


def state(member: Member) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in member.state_dict().items()}


def assert_alike(group: list[Member], others: list[Member], atol: float) -> None:
    for one, other in zip(group, others, strict=True):
        for (name, value), expected in zip(state(one).items(), state(other).values(), strict=True):
            torch.testing.assert_close(
                value, expected, rtol=atol, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
            )


def stacked_count(monkeypatch) -> list[int]:
    """How many students ran together, step by step."""
    found, answers = [], Stack.answers

    def counted(stack, batch):
        outputs = answers(stack, batch)
        found.append(len(outputs))
        return outputs

    monkeypatch.setattr(Stack, "answers", counted)
    return found


@pytest.mark.parametrize("make", [resnet, mlp, lambda: SmallViT(4, 16, 1, 2, 1, 10, 8)], ids=["resnet", "mlp", "vit"])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=["single", "double"])
def test_logits_and_gradients_are_those_of_each_student_alone(make, dtype, atol):
    group = members(lambda: make().to(dtype))
    (batch,) = batches(1, dtype)
    alone = [member.answer(batch.inputs).logits for member in copy.deepcopy(group)]
    outputs = Stack(group).answers(batch)
    sum(output.logits.square().mean() for output in outputs).backward()
    for output, expected in zip(outputs, alone, strict=True):
        torch.testing.assert_close(output.logits, expected, rtol=atol, atol=atol)
    for member in group:
        twin = copy.deepcopy(member)
        twin.zero_grad()
        with torch.no_grad():
            for buffer, value in zip(twin.buffers(), member.buffers(), strict=True):
                buffer.copy_(value)
        twin.answer(batch.inputs).logits.square().mean().backward()
        for one, other in zip(member.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=atol, atol=atol)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=["single", "double"])
def test_trained_together_weights_and_running_statistics_are_those_of_the_loop(monkeypatch, dtype, atol):
    loop, together = members(lambda: resnet().to(dtype)), members(lambda: resnet().to(dtype))
    teacher = FrozenTeacher(mlp().to(dtype))
    data = batches(5, dtype)
    expected = fit(loop, stacked=False, data=data, teacher=teacher)
    ran = stacked_count(monkeypatch)
    notes = fit(together, stacked=True, data=data, teacher=teacher)
    assert ran == [3] * 10
    assert_alike(together, loop, atol)
    assert int(together[0].student.bn1.num_batches_tracked) == 10
    for note, other in zip(notes, expected, strict=True):
        assert note.losses == pytest.approx(other.losses, rel=10 * atol)


def with_hint(group: list[Member]) -> list[Member]:
    """Feature methods with an adapter each."""
    made = []
    (example,) = batches(1)
    for i, member in enumerate(group):
        method = Method(
            {"hint": HintLoss()},
            {"task": 1.0, "hint": 1.0},
            None,
            {"student": {"hint": "pool"}, "teacher": {"hint": "hidden.0"}},
        )
        with RngStream(i):
            new = Member(
                member.student, method, member.task, optimizer=member.optimization._make_optimizer, name=member.name
            )
            with RngStream(99):
                teacher = FrozenTeacher(mlp(), taps={"hidden.0": "hidden.0"})
            new.prepare(example, teacher(example))
        made.append(new)
    return made


def test_tapped_features_are_each_students_own_and_adapters_learn(monkeypatch):
    loop, together = with_hint(members()), with_hint(members())
    before = state(together[0])
    fit(loop, stacked=False)
    ran = stacked_count(monkeypatch)
    fit(together, stacked=True)
    assert ran == [3] * 10
    assert_alike(together, loop, 1e-5)
    assert not torch.equal(
        before["method.terms.hint.adapter.0.weight"], state(together[0])["method.terms.hint.adapter.0.weight"]
    )


@pytest.mark.parametrize(
    "settings",
    [{"accumulate_grad_batches": 2}, {"gradient_clip_val": 0.1}, {"channels_last": True}],
    ids=lambda s: next(iter(s)),
)
def test_accumulation_clipping_and_memory_format_do(monkeypatch, settings):
    loop, together = members(**settings), members(**settings)
    fit(loop, stacked=False)
    ran = stacked_count(monkeypatch)
    fit(together, stacked=True)
    assert ran == [3] * 10
    assert_alike(together, loop, 1e-5)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_half_precision_is_near_that_of_the_loop(monkeypatch, precision):
    loop, together = members(precision=precision), members(precision=precision)
    expected = fit(loop, stacked=False, max_epochs=1)
    ran = stacked_count(monkeypatch)
    notes = fit(together, stacked=True, max_epochs=1)
    assert ran == [3] * 5
    assert_alike(together, loop, 0.02)
    for note, other in zip(notes, expected, strict=True):
        assert note.losses == pytest.approx(other.losses, rel=0.02)


def test_who_stops_early_leaves_the_stack_and_the_others_go_on(monkeypatch):
    loop, together = members(), members()
    stopping = lambda: [Notes(), Notes(last=3), Notes()]  # noqa: E731
    fit(loop, stacked=False, recorders=stopping())
    ran = stacked_count(monkeypatch)
    fit(together, stacked=True, recorders=stopping())
    assert ran == [3] * 3 + [2] * 7
    assert_alike(together, loop, 1e-5)
    assert int(together[1].student.bn1.num_batches_tracked) == 3


class Breaks(nn.Module):
    """A term that fails in the third step."""

    needs_teacher = False

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, student, teacher, target):
        self.calls += 1
        if self.calls == 3:
            raise ValueError("broken")
        return student.logits.square().mean()


def test_who_fails_or_diverges_leaves_the_stack_and_the_others_go_on(monkeypatch):
    def group():
        found = members(number=4)
        found[1].method = Method({"breaks": Breaks()}, {"task": 1.0, "breaks": 1.0})
        found[2].optimization._make_optimizer = functools.partial(torch.optim.SGD, lr=1e20)
        return found

    class Ends(Notes):
        def diverged(self, step, terms):
            self.last = 0

    loop, together = group(), group()
    fit(loop, stacked=False, recorders=[Ends() for _ in loop])
    ran = stacked_count(monkeypatch)
    notes = fit(together, stacked=True, recorders=[Ends() for _ in loop])
    assert str(notes[1].error) == "broken"
    assert notes[2].last == 0
    assert notes[0].error is notes[3].error is None
    assert ran[0] == 4
    assert ran[-1] == 2
    assert_alike([together[0], together[3]], [loop[0], loop[3]], 1e-5)


class NoMemory(torch.autograd.Function):
    @staticmethod
    def forward(context, value):
        return value.clone()

    @staticmethod
    def backward(context, gradient):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")


class Large(nn.Module):
    needs_teacher = False

    def forward(self, student, teacher, target):
        return NoMemory.apply(student.logits).square().mean()


def test_where_memory_does_not_do_for_the_backward_pass_of_all_the_key_is_named():
    group = members(number=2)
    group[0].method = Method({"large": Large()}, {"task": 1.0, "large": 1.0})
    with pytest.raises(UserError, match="max_fused below that, or stacked=null"):
        fit(group, stacked=True)


def test_who_is_of_another_kind_trains_in_the_loop_bit_for_bit_and_the_log_says_so(monkeypatch, caplog):
    def group():
        return [*members(number=2), *members(mlp, number=1), *members(lambda: MLP([12], 64, 10, dropout=0.5), number=2)]

    loop, together = group(), group()
    fit(loop, stacked=False)
    ran = stacked_count(monkeypatch)
    with caplog.at_level(logging.WARNING):
        fit(together, stacked=True)
    assert ran == [2] * 10
    assert_alike(together[:2], loop[:2], 1e-5)
    for one, other in zip(together[2:], loop[2:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(state(one).values(), state(other).values(), strict=True))
    told = [text for text in caplog.messages if text.startswith("stacked: ")]
    assert len(told) == 2
    assert "other layers than that of m0" in told[0]
    assert "draws random numbers" in told[1]


def test_a_stack_of_one_is_the_loop(monkeypatch):
    (alone,), (single,) = members(number=1), members(number=1)
    fit([alone], stacked=False)
    ran = stacked_count(monkeypatch)
    fit([single], stacked=True)
    assert ran == []
    assert all(torch.equal(a, b) for a, b in zip(state(alone).values(), state(single).values(), strict=True))


class Averages(nn.Module):
    """Puts a new tensor in its buffer's place, as running means are often written."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(64, 10)
        self.register_buffer("mean", torch.zeros(10))

    def forward(self, x):
        found = self.fc(x.flatten(1))
        self.mean = 0.9 * self.mean + 0.1 * found.detach().mean(0)
        return found - self.mean


def test_a_buffer_that_is_replaced_instead_of_changed_is_kept(monkeypatch):
    loop, together = members(Averages), members(Averages)
    fit(loop, stacked=False)
    ran = stacked_count(monkeypatch)
    fit(together, stacked=True)
    assert ran == [3] * 10
    assert_alike(together, loop, 1e-5)
    assert loop[0].student.mean.abs().max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_every_method_learns_together_what_it_learns_in_the_loop(path, monkeypatch):
    torch.set_default_dtype(torch.float64)
    try:
        loop = weights_after(path, stacked=False)
        ran = stacked_count(monkeypatch)
        together = weights_after(path, stacked=True)
    finally:
        torch.set_default_dtype(torch.float32)
    method = built(path)
    assert bool(ran) == (not method.wants_views and not method.differentiating)
    for one, other in zip(together, loop, strict=True):
        for name, value in other.items():
            torch.testing.assert_close(
                one[name], value, rtol=1e-7, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}"
            )


def weights_after(path, stacked: bool) -> list[dict[str, torch.Tensor]]:
    from test_methods_in_groups import batches as batches_in_two_views

    group = []
    for number in range(2):
        with RngStream(number):
            student, teacher = networks(path)
        with RngStream(7):
            _, teacher = networks(path)
        frozen = FrozenTeacher(teacher, taps={layer: layer for layer in tapped(path)["teacher"]})
        optimizer = functools.partial(torch.optim.SGD, lr=0.01 * (number + 1), momentum=0.9)
        with RngStream(number):
            member = Member(
                student, built(path), ClassificationTask(), optimizer=optimizer, seed=number, name=f"{number}"
            )
            member.prepare(batches_in_two_views()[0], frozen(batches_in_two_views()[0]))
            member.method.bind(student, teacher)
        group.append(member)
    fit(group, stacked=stacked, data=batches_in_two_views(), teacher=frozen, max_epochs=1)
    return [state(member) for member in group]
