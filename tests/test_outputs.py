from __future__ import annotations

from collections import namedtuple

import pytest
import torch
from torch import nn

from kd_lightning.outputs import ModelOutput, unused_heads

Heads = namedtuple("Heads", ["logits", "aux_logits2", "aux_logits1"])
LOGITS, FEATURES = torch.zeros(2, 5), torch.zeros(2, 7)


@pytest.mark.parametrize(
    ("output", "left_out"),
    [
        (LOGITS, []),
        (ModelOutput(LOGITS, {"aux": LOGITS}), []),
        (Heads(LOGITS, LOGITS, None), ["aux_logits2"]),
        ({"logits": LOGITS, "second": LOGITS, "hidden": FEATURES, "features": {}}, ["second"]),
        ((LOGITS, LOGITS), []),
    ],
)
def test_heads_beside_the_logits_are_named(output, left_out):
    assert unused_heads(output) == left_out


def test_torchvisions_auxiliary_classifiers_are_found():
    models = pytest.importorskip("torchvision.models")
    model = models.googlenet(weights=None, init_weights=False, num_classes=5)
    assert isinstance(model, nn.Module)
    assert unused_heads(model(torch.rand(2, 3, 64, 64))) == ["aux_logits2", "aux_logits1"]
