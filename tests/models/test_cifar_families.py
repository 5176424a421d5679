"""The families of the distillation literature: sizes as published, shapes and layer names as documented."""

from __future__ import annotations

import pytest
import torch

from kd_lightning.models.mobilenet_v2 import mobilenet_v2_half
from kd_lightning.models.resnet_cifar import (
    CifarResNet,
    resnet8,
    resnet8x4,
    resnet14,
    resnet20,
    resnet32,
    resnet32x4,
    resnet44,
    resnet56,
    resnet110,
)
from kd_lightning.models.shufflenet_v1 import shufflenet_v1
from kd_lightning.models.shufflenet_v2 import shufflenet_v2
from kd_lightning.models.vgg_cifar import vgg8, vgg11, vgg13, vgg16, vgg19
from kd_lightning.models.wide_resnet import WideResNet, wrn_16_1, wrn_16_2, wrn_40_1, wrn_40_2
from kd_lightning.taps import Taps

# Trainable parameters for 100 classes of the networks in RepDistiller's models/ (vgg: those with BatchNorm).
PARAMETERS = {
    resnet8: 83_892,
    resnet14: 181_108,
    resnet20: 278_324,
    resnet32: 472_756,
    resnet44: 667_188,
    resnet56: 861_620,
    resnet110: 1_736_564,
    resnet8x4: 1_233_540,
    resnet32x4: 7_433_860,
    wrn_16_1: 180_916,
    wrn_16_2: 703_284,
    wrn_40_1: 569_780,
    wrn_40_2: 2_255_156,
    vgg8: 3_965_028,
    vgg11: 9_277_284,
    vgg13: 9_462_180,
    vgg16: 14_774_436,
    vgg19: 20_086_692,
    mobilenet_v2_half: 812_836,
    shufflenet_v1: 949_258,
    shufflenet_v2: 1_355_528,
}

# Features of one picture of 32x32 by layer name, in the literature's order.
SHAPES = {
    resnet20: {"layer1": (16, 32, 32), "layer2": (32, 16, 16), "layer3": (64, 8, 8), "pool": (64,)},
    resnet8x4: {"layer1": (64, 32, 32), "layer2": (128, 16, 16), "layer3": (256, 8, 8), "pool": (256,)},
    wrn_16_2: {"block1": (32, 32, 32), "block2": (64, 16, 16), "block3": (128, 8, 8), "pool": (128,)},
    vgg8: {
        "block0": (64, 32, 32),
        "block1": (128, 16, 16),
        "block2": (256, 8, 8),
        "block4": (512, 4, 4),
        "pool": (512,),
    },
    mobilenet_v2_half: {"blocks.1": (12, 16, 16), "blocks.4": (48, 4, 4), "blocks.6": (160, 2, 2), "pool": (1280,)},
    shufflenet_v1: {"layer1": (240, 16, 16), "layer2": (480, 8, 8), "layer3": (960, 4, 4), "pool": (960,)},
    shufflenet_v2: {"layer1": (116, 16, 16), "layer2": (232, 8, 8), "layer3": (464, 4, 4), "pool": (1024,)},
}

# Names in published checkpoints: one early, one late, and those that differ from family to family.
CHECKPOINT_NAMES = {
    resnet8x4: ["conv1.weight", "bn1.running_mean", "layer2.0.downsample.0.weight", "layer3.0.bn2.bias", "fc.bias"],
    wrn_40_2: [
        "conv1.weight",
        "block1.layer.0.convShortcut.weight",
        "block3.layer.5.conv2.weight",
        "bn1.bias",
        "fc.bias",
    ],
    vgg13: ["block0.0.bias", "block0.4.running_var", "block4.3.weight", "classifier.weight"],
    mobilenet_v2_half: ["conv1.0.weight", "blocks.0.0.conv.7.bias", "blocks.6.0.conv.6.weight", "classifier.0.bias"],
    shufflenet_v1: ["conv1.weight", "layer1.0.bn3.bias", "layer3.3.conv3.weight", "linear.bias"],
    shufflenet_v2: ["conv1.weight", "layer1.0.conv5.weight", "layer2.7.bn3.bias", "conv2.weight", "linear.bias"],
}


@pytest.mark.parametrize("make", PARAMETERS, ids=lambda make: make.__name__)
def test_parameters_are_as_many_as_published(make):
    assert sum(parameter.numel() for parameter in make(num_classes=100).parameters()) == PARAMETERS[make]


@pytest.mark.parametrize("make", SHAPES, ids=lambda make: make.__name__)
def test_documented_layers_have_the_documented_shapes(make):
    model = make(num_classes=7).eval()
    output = Taps(model, {layer.replace(".", "_"): layer for layer in SHAPES[make]})(model, torch.randn(2, 3, 32, 32))
    shapes = {tap: tuple(feature.shape) for tap, feature in output.features.items()}
    assert shapes == {layer.replace(".", "_"): (2, *shape) for layer, shape in SHAPES[make].items()}
    assert output.logits.shape == (2, 7)


@pytest.mark.parametrize("make", CHECKPOINT_NAMES, ids=lambda make: make.__name__)
def test_parameters_bear_the_names_of_published_checkpoints(make):
    assert set(CHECKPOINT_NAMES[make]) <= set(make(num_classes=100).state_dict())


@pytest.mark.parametrize("make", SHAPES, ids=lambda make: make.__name__)
@pytest.mark.parametrize("size", [8, 28])
def test_grey_pictures_of_other_sizes_pass(make, size):
    assert make(num_classes=10, in_channels=1).eval()(torch.randn(2, 1, size, size)).shape == (2, 10)


@pytest.mark.parametrize("make", SHAPES, ids=lambda make: make.__name__)
def test_every_parameter_gets_a_gradient(make):
    torch.manual_seed(0)
    model = make(num_classes=4)
    model(torch.randn(4, 3, 32, 32)).square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.abs().sum() > 0] == []


def test_the_sum_before_the_last_relu_can_be_tapped():
    model = resnet8(num_classes=4).eval()
    taps = Taps(model, {"before": "layer3.0.preactivation", "after": "layer3"})
    features = taps(model, torch.randn(2, 3, 32, 32)).features
    assert features["before"].min() < 0
    torch.testing.assert_close(features["before"].relu(), features["after"])


def test_a_depth_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="6n \\+ 2"):
        CifarResNet(21, (16, 16, 32, 64), num_classes=10)
    with pytest.raises(ValueError, match="6n \\+ 4"):
        WideResNet(20, 2, num_classes=10)
