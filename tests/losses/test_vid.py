from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from golden_cases import array, assert_equals_reference, assert_gradient, gradients, on_features

from kd_lightning.errors import UserError
from kd_lightning.losses.vid import VariationalInformationLoss
from kd_lightning.outputs import ModelOutput


def prepared(student, teacher):
    term = VariationalInformationLoss("maps")
    logits = torch.zeros(student.shape[0], 2)
    term.prepare(ModelOutput(logits, {"maps": student}), ModelOutput(logits, {"maps": teacher}))
    return term


def test_loss_and_gradients_equal_the_reference():
    case = "repdistiller_hw_mismatch"
    term = prepared(array("vid", "in/s1"), array("vid", "in/t2")).double()
    ours = dict(term.named_parameters())
    theirs = {name: f"rep32.{name.replace('mean.', 'regressor.').replace('scale', 'log_scale')}" for name in ours}
    for name, parameter in ours.items():
        parameter.data.copy_(array("vid", f"param/{theirs[name]}"))
    assert_equals_reference("vid", case, on_features(term, "maps"))
    expected = gradients("vid", case, "pgrad")
    for name, parameter in ours.items():
        assert_gradient(parameter.grad, expected[theirs[name]])


def test_the_initial_variance_is_the_one_asked_for():
    term = prepared(torch.randn(2, 3, 4, 4), torch.randn(2, 5, 4, 4))
    torch.testing.assert_close(F.softplus(term.scale.detach()) + 1e-5, torch.full((5,), 5.0))


def test_a_channel_that_cannot_be_predicted_gets_a_large_variance():
    torch.manual_seed(0)
    student = torch.randn(64, 4, 3, 3)
    teacher = torch.cat([student[:, :1], 10 * torch.randn(64, 1, 3, 3)], dim=1)
    term = prepared(student, teacher)
    optimizer = torch.optim.Adam(term.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        on_features(term, "maps")(student, teacher).backward()
        optimizer.step()
    assert term.scale[1] > term.scale[0] + 2


def test_misuse_is_named():
    with pytest.raises(UserError, match=r"tap 'maps': VID needs maps.*\(2, 3\)"):
        prepared(torch.randn(2, 3), torch.randn(2, 5))
    with pytest.raises(UserError, match="initial_variance"):
        VariationalInformationLoss(initial_variance=0.0)
    with pytest.raises(RuntimeError, match="prepare"):
        on_features(VariationalInformationLoss("maps"), "maps")(torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4))
