"""Divergences from a mixture of both distributions against their definitions, written out by torch's own KL divergence."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from kd_lightning.losses.alpha_beta import JensenShannonLoss, SkewedLoss
from kd_lightning.outputs import ModelOutput

S, T = torch.randn(2, 6, 10, generator=torch.Generator().manual_seed(0)).double()
TARGET = torch.zeros(6, dtype=torch.long)


@pytest.mark.parametrize("weight", [0.5, 0.1])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_it_is_the_weighted_divergence_of_both_from_their_mixture(weight, temperature):
    student = S.clone().requires_grad_()
    loss = JensenShannonLoss(weight=weight, temperature=temperature)(ModelOutput(student), ModelOutput(T), TARGET)
    q, p = (student / temperature).softmax(1), (T / temperature).softmax(1)
    mixture = weight * p + (1 - weight) * q
    expected = weight * F.kl_div(mixture.log(), p, reduction="batchmean")
    expected = expected + (1 - weight) * F.kl_div(mixture.log(), q, reduction="batchmean")
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    gradient, wanted = (torch.autograd.grad(value, student, retain_graph=True)[0] for value in (loss, expected))
    torch.testing.assert_close(gradient, wanted, rtol=1e-7, atol=1e-12)


def test_one_half_is_symmetric_and_never_above_the_logarithm_of_two():
    half = JensenShannonLoss(weight=0.5)
    far, opposite = torch.eye(6, 10).double() * 1e4, torch.eye(6, 10).double().roll(1, 1) * 1e4
    one, other = (half(ModelOutput(a), ModelOutput(b), TARGET) for a, b in ((S, T), (T, S)))
    torch.testing.assert_close(one, other)
    assert half(ModelOutput(far), ModelOutput(opposite), TARGET).item() == pytest.approx(math.log(2))
    assert half(ModelOutput(T), ModelOutput(T), TARGET).abs() < 1e-12


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_the_skewed_divergence_mixes_the_second_side_with_the_first(weight, reverse):
    skewed = SkewedLoss(weight=weight, reverse=reverse, temperature=2.0)(ModelOutput(S), ModelOutput(T), TARGET)
    one, other = ((S if reverse else T) / 2).softmax(1), ((T if reverse else S) / 2).softmax(1)
    expected = F.kl_div((weight * one + (1 - weight) * other).log(), one, reduction="batchmean")
    torch.testing.assert_close(skewed, expected, rtol=1e-9, atol=0)
