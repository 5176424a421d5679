"""What a loss term may ask for: by the names of its forward's parameters, or by a member that it has."""

from __future__ import annotations

import copy

import pytest
import torch
from test_distiller import DropNet, Notebook, ReferenceNet, data, fit, member, seeded
from torch import nn

from kd_lightning.batch import Batch
from kd_lightning.distiller import Distiller
from kd_lightning.errors import UserError
from kd_lightning.joints import Clock
from kd_lightning.losses.soft_target import SoftTargetLoss
from kd_lightning.method import Method
from kd_lightning.outputs import ModelOutput
from kd_lightning.runs.checkpoint import model_weights
from kd_lightning.teachers.frozen import FrozenTeacher


@pytest.fixture
def teacher():
    return FrozenTeacher(seeded(lambda: ReferenceNet(6, 12), 7))


class Zero(nn.Module):
    """Costs nothing; a subclass notes what it was given."""

    def forward(self, student, teacher, target):
        return student.logits.sum() * 0


def with_index(batches, views=0):
    return [
        Batch(b.inputs, b.target, torch.arange(len(b.target)) + 100 * i, also=tuple(Batch(b.inputs + 1, b.target) for _ in range(views)))
        for i, b in enumerate(batches)
    ]  # fmt: skip


def train(term, teacher, batches, weights=(1.0, 1.0), student=None, epochs=1):
    method = Method({"mine": term}, {"task": weights[0], "mine": weights[1]})
    trained = member(student or seeded(DropNet, 1), method)
    fit(Distiller(teacher, trained, [Notebook()]), batches, data(1), epochs)
    return trained


def test_index_clock_and_batch_come_to_a_term_that_asks_for_them_by_name(teacher):
    class Asks(Zero):
        def __init__(self):
            super().__init__()
            self.seen = []

        def forward(self, student, teacher, target, *, clock, index, batch):
            assert torch.equal(index, batch.index)
            assert torch.equal(target, batch.target)
            self.seen.append((clock, int(index[0])))
            return student.logits.sum() * 0

    term = Asks()
    train(term, teacher, with_index(data(3)), epochs=2)
    assert term.seen == [(Clock(e, 3 * e + i, 6, 3), 100 * i) for e in range(2) for i in range(3)]


def test_views_are_computed_by_both_models_only_if_an_active_term_asks(teacher):
    class Two(Zero):
        def forward(self, student, teacher, target, views):
            ((student_view, teacher_view),) = views
            assert student_view.logits.requires_grad
            assert not torch.equal(student_view.logits, student.logits)
            assert not torch.equal(teacher_view.logits, teacher.logits)
            return (student_view.logits - student.logits).square().mean()

    class Counting(DropNet):
        calls = 0

        def forward(self, x):
            self.calls += self.training
            return super().forward(x)

    asked = []
    for weight, calls in ((1.0, 2), (0.0, 1)):
        student = seeded(Counting, 1)
        batches = with_index(data(3), views=1)

        def counted(batch):
            asked.append(batch)
            return teacher(batch)

        train(Two(), counted, batches, (1.0, weight), student)
        assert student.calls == 3 * calls
    assert len(asked) == 3 * 2 + 2  # the second run needs no teacher but in validation, each has one batch of it


def test_a_term_that_asks_for_what_the_batches_lack_is_one_line_at_the_first_batch(teacher):
    class Index(Zero):
        def forward(self, student, teacher, target, index):
            raise AssertionError

    class Views(Zero):
        def forward(self, student, teacher, target, views):
            raise AssertionError

    with pytest.raises(UserError, match=r"method\.terms\.mine asks for index, the loader gives none"):
        train(Index(), teacher, data(1))
    with pytest.raises(UserError, match=r"method\.terms\.mine asks for views, .* data\.extra_views"):
        train(Views(), teacher, data(1))


@pytest.mark.parametrize(
    ("forward", "says"),
    [
        (lambda s, t, y, indices: s, r"asks for 'indices', which a term cannot get; .* did you mean index\?"),
        (lambda s, t, y, *, scale=2: s, r"asks for 'scale', .*a setting belongs into __init__"),
        (lambda s, t: s, r"must take \(student, teacher, target\), it takes \(s, t\)"),
    ],
)
def test_a_signature_that_cannot_be_served_is_named_at_construction(forward, says):
    term = Zero()
    term.forward = forward
    with pytest.raises(UserError, match=r"method\.terms\.mine: (forward )?" + says) as caught:
        Method({"mine": term}, {"task": 1, "mine": 1})
    assert "\n" not in str(caught.value)


def test_a_term_without_teacher_lets_the_teacher_rest(teacher):
    class Alone(Zero):
        needs_teacher = False

        def forward(self, student, teacher, target):
            assert teacher is None
            return student.logits.square().mean()

    method = Method({"mine": Alone(), "off": SoftTargetLoss()}, {"task": 1, "mine": 1, "off": 0})
    assert not method.needs_teacher
    assert method.requires == frozenset()
    fit(Distiller(None, member(seeded(DropNet, 1), method), [Notebook()]), data(2), data(1), 1)
    both = Method({"mine": Alone(), "kd": SoftTargetLoss()}, {"task": 1, "mine": 1, "kd": 1})
    assert both.needs_teacher
    assert both.requires == {"logits"}


def test_what_a_term_requires_of_the_teacher_is_its_class_attribute():
    class Hidden(Zero):
        requires = frozenset({"features", "spread"})

    assert Method({"a": Hidden()}, {"task": 1, "a": 1}).requires == {"features", "spread"}
    assert Method({"a": Hidden()}, {"task": 1, "a": 0}).requires == frozenset()


class Follows(Zero):
    """A moving average of the student's last layer as buffers, the teacher's head borrowed: what the paper kind does."""

    def bind(self, student_model, teacher_model):
        self.head, self.model = teacher_model.fc, student_model
        self.own = nn.Linear(2, 2)
        self.register_buffer("average", student_model[-1].weight.detach().clone())
        self.steps = []

    def after_step(self, student_model, clock):
        assert student_model is self.model
        self.steps.append(clock.step)
        self.average.lerp_(student_model[-1].weight, 0.5)

    def forward(self, student, teacher, target):
        return student.logits.sum() * 0 + self.own.weight.sum() * 0


def test_bind_and_after_step_give_a_term_the_models_and_what_it_keeps_travels_in_the_checkpoint(teacher):
    trained = train(Follows(), teacher, data(4))
    term = trained.method.terms["mine"]
    assert term.steps == [1, 2, 3, 4]
    assert term.head is teacher.module.fc
    start = seeded(DropNet, 1)[-1].weight
    assert not torch.equal(term.average, start)
    kept = trained.weights()
    assert {k for k in kept if k.startswith("method.")} == {
        "method.terms.mine.average",
        "method.terms.mine.own.weight",
        "method.terms.mine.own.bias",
    }
    exported = model_weights({"state_dict": kept})
    assert set(exported) == set(trained.student.state_dict())
    optimized = {id(p) for group in trained.optimizer.param_groups for p in group["params"]}
    assert id(term.own.weight) in optimized
    assert not optimized & {id(p) for p in teacher.module.parameters()}


def test_bind_is_called_once_and_a_copied_member_keeps_its_own_student(teacher):
    trained = train(Follows(), teacher, data(1))
    average = trained.method.terms["mine"].average
    trained.method.bind(trained.student, teacher.module)
    assert trained.method.terms["mine"].average is average
    other = copy.deepcopy(trained)
    assert other.method.terms["mine"].model is other.student


def test_a_term_that_needs_preparing_is_prepared_when_the_fit_is_set_up(teacher):
    class Learned(Zero):
        def prepare(self, student, teacher):
            self.map = nn.Linear(student.logits.shape[1], teacher.logits.shape[1])

        def forward(self, student, teacher, target):
            return (self.map(student.logits) - teacher.logits).square().mean()

    trained = train(Learned(), teacher, data(3))
    optimized = {id(p) for group in trained.optimizer.param_groups for p in group["params"]}
    assert id(trained.method.terms["mine"].map.weight) in optimized
    assert not trained.method.needs_preparing


def test_existing_methods_ask_for_nothing():
    method = Method({"kd": SoftTargetLoss()}, {"task": 1, "kd": 1})
    assert method.asks == {}
    assert not method.wants_clock
    assert not method.wants_views
    assert method.requires == {"logits"}
    student = ModelOutput(torch.randn(2, 3))
    total, _ = method(student, student, torch.tensor([0, 1]), torch.tensor(1.0))
    assert total == 1
