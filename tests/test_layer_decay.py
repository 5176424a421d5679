"""Layers are counted as a model defines them, and each learns a factor slower than the next one."""

from __future__ import annotations

import pytest
from torch import nn
from torchvision.models import convnext, vision_transformer

from kd_lightning.layer_decay import layers_in_order, rate_factors
from kd_lightning.models.mlp import MLP
from kd_lightning.models.resnet_cifar import resnet20
from kd_lightning.models.small_vit import SmallViT


def torchvision_vit():
    return vision_transformer.VisionTransformer(
        image_size=8, patch_size=4, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=3
    )


def torchvision_convnext():
    return convnext.ConvNeXt([convnext.CNBlockConfig(4, 8, 2), convnext.CNBlockConfig(8, None, 1)], num_classes=3)


ENCODER = "encoder.layers.encoder_layer_"
CASES = {
    "small_vit": (lambda: SmallViT(depth=2), ["patches", "blocks.0", "blocks.1", "hidden", "classifier"]),
    "resnet": (
        lambda: resnet20(10),
        ["conv1", "bn1", *(f"layer{stage}.{block}" for stage in (1, 2, 3) for block in range(3)), "fc"],
    ),
    "mlp": (lambda: MLP([8, 8], 4, 3), ["hidden.0", "hidden.1", "classifier"]),
    "torchvision's transformer": (
        torchvision_vit,
        ["conv_proj", f"{ENCODER}0", f"{ENCODER}1", "encoder.ln", "heads"],
    ),
    "torchvision's ConvNeXt": (
        torchvision_convnext,
        ["features.0", "features.1.0", "features.1.1", "features.2", "features.3", "classifier"],
    ),
    "a list": (lambda: nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)), ["0", "2"]),
}


@pytest.mark.parametrize("name", CASES)
def test_layers_come_in_the_models_order_and_a_block_is_one(name):
    make, expected = CASES[name]
    assert layers_in_order(make()) == expected


def test_each_parameter_learns_by_the_number_of_layers_behind_its_own():
    model = SmallViT(depth=2)
    factors = rate_factors(model, 0.5)
    expected = {"position": 4, "patches": 4, "blocks.0": 3, "blocks.1": 2, "hidden": 1, "classifier": 0}
    for name, parameter in model.named_parameters():
        behind = next(number for layer, number in expected.items() if f"{name}.".startswith(f"{layer}."))
        assert factors[id(parameter)] == 0.5**behind, name
