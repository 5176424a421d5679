from __future__ import annotations

import torch
from cache_setup import Counting, TinyImages, make_teacher

from kd_lightning.batch import Batch
from kd_lightning.teachers.evaluation_memo import EvaluationMemo


def test_the_teacher_is_asked_once_about_each_evaluation_batch():
    data, teacher = TinyImages(eval_batch_size=8), Counting(make_teacher())
    memo = EvaluationMemo(teacher)
    epochs = [[memo(batch).logits for batch in data.val_dataloader()] for _ in range(3)]
    assert teacher.samples == 30
    for batch, *answers in zip(data.val_dataloader(), *epochs, strict=True):
        assert all(torch.equal(a, teacher.teacher(batch).logits) for a in answers)


def test_equal_positions_in_different_splits_are_different_samples():
    data, teacher = TinyImages(eval_batch_size=8), make_teacher()
    memo = EvaluationMemo(teacher)
    val, test = next(iter(data.val_dataloader())), next(iter(data.test_dataloader()))
    assert torch.equal(val.index, test.index)
    memo(val)
    assert torch.equal(memo(test).logits, teacher(test).logits)
    assert not torch.equal(memo(test).logits, memo(val).logits)


def named(*shape: int, start: int = 0) -> Batch:
    return Batch(torch.rand(shape), None, torch.arange(start, start + shape[0]), 0, "val")


def test_what_does_not_fit_the_limit_is_answered_live():
    teacher = Counting(make_teacher())
    memo = EvaluationMemo(teacher, limit_bytes=8 * 6 * 4)
    first, second = named(8, 1, 8, 8), named(8, 1, 8, 8, start=8)
    for _ in range(3):
        memo(first), memo(second)
    assert teacher.samples == 8 + 3 * 8


def test_training_batches_and_batches_that_name_nothing_go_to_the_teacher_behind():
    teacher = Counting(make_teacher())
    memo = EvaluationMemo(teacher)
    batch = named(4, 1, 8, 8)
    for other in (batch._replace(split="train"), batch._replace(split=""), batch._replace(index=None)):
        for _ in range(2):
            memo(other)
    assert teacher.samples == 6 * 4


def test_inputs_of_any_structure_are_recognised_by_what_the_loader_calls_them():
    asked = []

    class Reader(Counting):
        def __call__(self, batch):
            asked.append(batch)
            return super().__call__(Batch(torch.zeros(2, 1, 8, 8), None))

    memo = EvaluationMemo(Reader(make_teacher()))
    for inputs in ({"ids": torch.arange(2), "mask": torch.ones(2)}, ["a text", "another"]):
        for split in ("val", "test"):
            for _ in range(2):
                memo(Batch(inputs, None, torch.arange(2), len(inputs["ids"]) if "ids" in inputs else 0, split))
    assert len(asked) == 4


def test_validation_data_that_draw_at_random_are_noticed_and_answered_live(caplog):
    teacher = Counting(make_teacher())
    memo = EvaluationMemo(teacher)
    batch = named(4, 1, 8, 8)
    memo(batch)
    other = batch._replace(inputs=torch.rand(4, 1, 8, 8))
    for _ in range(2):
        assert torch.equal(memo(other).logits, teacher.teacher(other).logits)
    assert len([r for r in caplog.records if "other inputs each time" in r.message]) == 1
