"""Class attention transfer of networks that end in a mean and a linear layer, against those with a 1x1 convolution."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kd_lightning.errors import UserError
from kd_lightning.losses.class_activation import ClassActivationLoss, ClassifiedActivationLoss
from kd_lightning.models.resnet_cifar import resnet8, resnet14
from kd_lightning.outputs import ModelOutput


def output(maps: torch.Tensor, logits: torch.Tensor) -> ModelOutput:
    return ModelOutput(logits, {"maps": maps})


def as_convolution(layer: nn.Linear) -> nn.Conv2d:
    convolution = nn.Conv2d(layer.in_features, layer.out_features, 1)
    convolution.load_state_dict({"weight": layer.weight[:, :, None, None], "bias": layer.bias})
    return convolution


@pytest.mark.parametrize("options", [{}, {"binarise": True}, {"top_k": 3, "normalise": False}])
def test_a_linear_layer_has_the_class_maps_of_the_convolution_with_its_weights(options):
    torch.manual_seed(0)
    student, teacher = resnet8(10), resnet14(10)
    features = [torch.randn(4, model.fc.in_features, 8, 8) for model in (student, teacher)]
    logits = [model.fc(maps.mean((2, 3))) for model, maps in zip((student, teacher), features, strict=True)]
    classified = ClassifiedActivationLoss("maps", **options)
    classified.bind(student, teacher)
    ours = classified(*map(output, features, logits), torch.zeros(4))

    maps = [as_convolution(model.fc)(maps) for model, maps in zip((student, teacher), features, strict=True)]
    for made, expected in zip(maps, logits, strict=True):
        torch.testing.assert_close(made.mean((2, 3)), expected, rtol=1e-4, atol=1e-5)
    expected = ClassActivationLoss("maps", **options)(*map(output, maps, logits), torch.zeros(4))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-7)


def test_a_map_whose_mean_the_classifier_does_not_take_is_told_with_the_tap():
    classified = ClassifiedActivationLoss("maps")
    student = resnet8(10)
    classified.bind(student, student)
    wrong = output(torch.randn(2, 5, 4, 4), torch.randn(2, 10))
    with pytest.raises(UserError, match=r"tap 'maps': class activation needs the map \(N, 64, H, W\)"):
        classified(wrong, wrong, torch.zeros(2))


def test_the_classifier_learns_what_its_maps_are_compared_by():
    torch.manual_seed(0)
    student, teacher = resnet8(10), resnet14(10)
    classified = ClassifiedActivationLoss("maps")
    classified.bind(student, teacher)
    classified(
        output(torch.randn(2, 64, 4, 4), torch.randn(2, 10)),
        output(torch.randn(2, 64, 4, 4), torch.randn(2, 10)),
        torch.zeros(2),
    ).backward()
    assert student.fc.weight.grad.abs().sum() > 0
    assert teacher.fc.weight.grad is None
