"""A teacher may still be where it taught last; who asks it about samples of this process moves it to them."""

from __future__ import annotations

import torch
from torch import nn

from kd_lightning.batch import Batch
from kd_lightning.outputs import ModelOutput
from kd_lightning.runs.latency import latency_ms, teacher_latency_ms
from kd_lightning.teachers.evaluation_memo import EvaluationMemo
from kd_lightning.teachers.example import example_answer
from kd_lightning.teachers.frozen import FrozenTeacher
from kd_lightning.trainer_facts import teacher_module

EXAMPLE = Batch(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long), torch.arange(2))


class Elsewhere(FrozenTeacher):
    """As on another device than the samples, until it is moved to theirs."""

    def __init__(self):
        super().__init__(nn.Linear(3, 4))
        self.place = torch.device("meta")

    def to(self, device):
        self.place = torch.device(device)
        return self

    def __call__(self, batch):
        assert batch.inputs.device == self.place
        return super().__call__(batch)


def test_an_example_is_answered_where_it_is():
    assert example_answer(EvaluationMemo(Elsewhere()), EXAMPLE).logits.shape == (2, 4)


def test_a_teacher_is_timed_on_the_processor_as_its_students_are():
    assert teacher_latency_ms(EvaluationMemo(Elsewhere()), EXAMPLE, repeats=1) > 0


def test_timing_leaves_the_key_of_stored_answers_as_it_is():
    teacher = FrozenTeacher(nn.Linear(3, 4))
    before = teacher.cache_parts()
    teacher_latency_ms(teacher, EXAMPLE, repeats=1)
    latency_ms(teacher.module, EXAMPLE.inputs, repeats=1)
    assert teacher.cache_parts() == before


def test_what_is_compiled_is_timed_as_it_is_without():
    model, calls = nn.Linear(3, 4), []
    model._compiled_call_impl = lambda *inputs: calls.append(inputs)
    compiled = model._compiled_call_impl
    latency_ms(model, EXAMPLE.inputs, repeats=1)
    teacher = FrozenTeacher(nn.Linear(3, 4))
    teacher.module._compiled_call_impl = compiled
    teacher_latency_ms(teacher, EXAMPLE, repeats=1)
    assert not calls
    assert model._compiled_call_impl is teacher.module._compiled_call_impl is compiled


def test_a_teacher_without_a_network_has_none_behind_a_memo_either():
    class Answers:
        def __call__(self, batch):
            return ModelOutput(torch.zeros(len(batch.inputs), 4))

    assert teacher_module(EvaluationMemo(Answers())) is None
    frozen = FrozenTeacher(nn.Linear(3, 4))
    assert teacher_module(EvaluationMemo(frozen)) is frozen.module
