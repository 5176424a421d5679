"""A model for other classes gets a new last layer, and nothing else of it changes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision import models

from kd_lightning.errors import UserError
from kd_lightning.models.new_head import new_head


@pytest.mark.parametrize(("name", "layer"), [("resnet18", "fc"), ("mobilenet_v3_small", "classifier.3"),
                                             ("squeezenet1_1", "classifier.1")])  # fmt: skip
def test_the_classifier_of_a_published_model_is_found_and_all_else_keeps_its_weights(name, layer):
    old = getattr(models, name)().eval()
    before = {key: value.clone() for key, value in old.state_dict().items()}
    model = new_head(old, 7)
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 7)
    changed = {
        key for key, value in model.state_dict().items()
        if value.shape != before[key].shape or not torch.equal(value, before[key])
    }  # fmt: skip
    assert changed == {f"{layer}.weight", f"{layer}.bias"}


def test_a_layer_that_is_named_is_taken_and_keeps_having_no_bias():
    model = new_head(nn.Sequential(nn.Linear(4, 9, bias=False), nn.Linear(5, 3)), 5, layer="0")
    assert model(torch.randn(2, 4)).shape == (2, 3)
    assert model[0].bias is None


@pytest.mark.parametrize(
    ("model", "layer", "words"),
    [
        (nn.Sequential(nn.Linear(2, 3)), "fc", "layer=fc: Sequential has no such layer; its last ones are 0"),
        (nn.Sequential(nn.ReLU()), "0", "layer=0: is a ReLU"),
        (nn.Sequential(nn.ReLU()), None, "has no nn.Linear and no nn.Conv2d"),
    ],
)
def test_what_cannot_be_meant_is_one_line(model, layer, words):
    with pytest.raises(UserError, match=words):
        new_head(model, 5, layer)
