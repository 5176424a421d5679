"""Information-theoretic distillation's correlation against its equation, written out dimension by dimension."""

from __future__ import annotations

import torch

from kd_lightning.losses.information import CorrelationLoss
from kd_lightning.outputs import ModelOutput


def test_each_dimension_is_compared_by_its_correlation_over_the_batch():
    torch.manual_seed(0)
    ours, theirs = torch.randn(8, 3).double(), torch.randn(8, 5).double()
    student, teacher = ModelOutput(ours, {"hint": ours}), ModelOutput(theirs, {"hint": theirs})
    term = CorrelationLoss(alpha=1.2)
    term.prepare(student, teacher)
    mapped = term.double().adapter(ours)
    sums = 0.0
    for d in range(5):
        columns = torch.stack([mapped[:, d], theirs[:, d]])
        correlation = torch.corrcoef(columns)[0, 1] * 7 / 8  # the authors divide by N, their deviations by N - 1
        sums = sums + (correlation - 1).square() ** 1.2
    torch.testing.assert_close(term(student, teacher, torch.zeros(8)), torch.log2(sums), rtol=1e-9, atol=0)
