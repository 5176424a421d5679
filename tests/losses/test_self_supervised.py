"""SSKD's similarities, and the second view's own loss, against their equations."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from kd_lightning.losses.cross_view import SecondViewTaskLoss
from kd_lightning.losses.self_supervised import ViewLogitLoss, ViewSimilarityLoss
from kd_lightning.outputs import ModelOutput


def of(rows: torch.Tensor) -> ModelOutput:
    return ModelOutput(rows, {"embedding": rows})


def test_views_that_the_teacher_recognises_are_all_compared_by_their_similarities_to_the_plain_samples():
    torch.manual_seed(0)
    plain, other = torch.randn(2, 6, 4).double()  # student's
    known = torch.eye(6).double()
    turned = known + 0.01 * torch.randn(6, 6).double()  # the teacher's view of each sample is nearest to its own
    loss = ViewSimilarityLoss(temperature=0.5, ratio=0.0)(
        of(plain), of(known), torch.zeros(6), views=[(of(other), of(turned))]
    )
    expected = 0.0
    for i in range(6):
        ours = torch.stack([F.cosine_similarity(other[i], plain[j], dim=0) for j in range(6)])
        theirs = torch.stack([F.cosine_similarity(turned[i], known[j], dim=0) for j in range(6)])
        expected = expected + F.kl_div((ours / 0.5).log_softmax(0), (theirs / 0.5).softmax(0), reduction="sum")
    torch.testing.assert_close(loss, 0.25 * expected / 6, rtol=1e-9, atol=0)


def test_of_unrecognised_views_the_likeliest_share_is_kept():
    torch.manual_seed(0)
    plain, other = torch.randn(2, 6, 4).double()
    known = torch.eye(6).double()
    views = [(of(other), of(known.roll(1, 0)))]  # each is taken for another sample
    none, half, all_of_them = (
        ViewSimilarityLoss(ratio=ratio)(of(plain), of(known), torch.zeros(6), views=views) for ratio in (0.0, 0.5, 1.0)
    )
    assert none == 0
    assert len({round(float(half), 12), round(float(all_of_them), 12)}) == 2


def test_the_second_views_own_loss_leaves_unlabelled_samples_out():
    logits, target = torch.randn(4, 3), torch.tensor([0, 2, -1, 1])
    loss = SecondViewTaskLoss()(of(torch.zeros(4, 3)), None, target, views=[(of(logits), None)])
    torch.testing.assert_close(loss, F.cross_entropy(logits, target, ignore_index=-1))


def test_a_batch_of_one_sample_that_the_teacher_gets_wrong_teaches_nothing():
    student, wrong = torch.randn(1, 3, requires_grad=True), torch.tensor([[5.0, 0.0, 0.0]])
    loss = ViewLogitLoss(ratio=0.75)(of(student), of(wrong), torch.tensor([2]), views=[(of(student), of(wrong))])
    loss.backward()
    assert loss == 0
    assert torch.equal(student.grad, torch.zeros(1, 3))
