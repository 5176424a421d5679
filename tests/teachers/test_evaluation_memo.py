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


def test_what_does_not_fit_the_limit_is_answered_live():
    teacher = Counting(make_teacher())
    memo = EvaluationMemo(teacher, limit_bytes=8 * 6 * 4)
    first, second = (Batch(torch.rand(8, 1, 8, 8), None) for _ in range(2))
    for _ in range(3):
        memo(first), memo(second)
    assert teacher.samples == 8 + 3 * 8


def test_structures_are_recognised_by_all_of_their_tensors_and_other_inputs_go_to_the_teacher():
    asked = []

    def teacher(batch):
        asked.append(batch)
        return make_teacher()(Batch(torch.zeros(2, 1, 8, 8), None))

    memo = EvaluationMemo(teacher)
    ids, mask = torch.arange(4), torch.ones(4)
    for inputs in ({"ids": ids, "mask": mask}, {"ids": ids, "mask": mask.clone()}, {"ids": ids, "mask": mask * 2}):
        memo(Batch(inputs, None))
    assert len(asked) == 2
    for _ in range(2):
        memo(Batch(["a text"], None))
    assert len(asked) == 4
