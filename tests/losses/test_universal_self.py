"""USKD learns from the samples that have a label, as if there were no others."""

from __future__ import annotations

import torch

from kd_lightning.losses.universal_self import UniversalSelfLoss
from kd_lightning.outputs import ModelOutput


def test_unlabelled_samples_change_nothing():
    torch.manual_seed(0)
    logits, features, target = torch.randn(6, 4), torch.randn(6, 5), torch.tensor([1, 0, 3, -1, 2, -1])
    term = UniversalSelfLoss()
    whole = ModelOutput(logits.requires_grad_(), {"middle": features})
    term.prepare(whole, None)
    loss = term(whole, None, target)
    (gradient,) = torch.autograd.grad(loss, logits)
    kept = target >= 0
    torch.testing.assert_close(loss, term(ModelOutput(logits[kept], {"middle": features[kept]}), None, target[kept]))
    assert torch.equal(gradient[~kept], torch.zeros(2, 4))
