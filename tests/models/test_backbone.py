"""A network without its classifier: what it answers with, and that its weights keep their names."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from kd_lightning.errors import UserError
from kd_lightning.models.backbone import Backbone
from kd_lightning.models.small_cnn import SmallCNN


@pytest.mark.parametrize(
    ("name", "length"), [("resnet18", 512), ("mobilenet_v3_small", 1024), ("shufflenet_v2_x0_5", 1024)]
)
def test_torchvisions_networks_answer_with_what_their_classifier_would_see(name, length):
    whole = getattr(torchvision.models, name)(weights=None).eval()
    seen = []
    linear = [module for module in whole.modules() if isinstance(module, nn.Linear)][-1]
    linear.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0]))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        whole(images)
        embedding = Backbone(whole).eval()(images)
    assert embedding.shape == (2, length)
    assert torch.equal(embedding, seen[0])


def test_weights_keep_the_networks_own_names_behind_backbone():
    whole = SmallCNN(image_size=8)
    names = {f"backbone.{name}" for name in whole.state_dict() if not name.startswith("classifier")}
    assert set(Backbone(whole).state_dict()) == names


def test_maps_are_averaged_and_a_network_without_a_classifier_is_told():
    maps = nn.Sequential(nn.Conv2d(1, 5, 3))
    with pytest.raises(UserError, match="has no linear layer: give the name of its classifier as head"):
        Backbone(maps)
    with pytest.raises(UserError, match="has no layer 'top'"):
        Backbone(maps, head="top")
    doubled = nn.Sequential(nn.Conv2d(1, 5, 3), nn.Conv2d(5, 2, 1))
    assert Backbone(doubled, head="1")(torch.randn(3, 1, 8, 8)).shape == (3, 5)
