from __future__ import annotations

import pytest
import torch
from torch import nn

from kd_lightning.errors import UserError
from kd_lightning.taps import Taps


class Last(nn.Module):
    """A block that keeps its channels behind: (N, H, W, C), as in Swin."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(channels), nn.Linear(channels, channels)

    def forward(self, x):
        return x + self.mix(self.norm(x))


class Turned(nn.Module):
    def forward(self, x):
        return x.permute(0, 2, 3, 1)


def behind(channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), Turned(), Last(channels), nn.Flatten(), nn.LazyLinear(4))


def feature(model: nn.Module, layer: str, size: tuple[int, int] = (8, 8)) -> torch.Tensor:
    return Taps(model, {"hint": layer})(model, torch.rand(2, 3, *size)).features["hint"]


@pytest.mark.parametrize("size", [(8, 8), (6, 10)])
def test_a_layer_whose_parts_work_on_the_last_dimension_gives_channels_behind(size):
    assert feature(behind(5), "2", size).shape == (2, 5, *size)


def test_convolutions_keep_their_channels_in_front_also_with_norms_and_linear_layers_beside_them():
    inside = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.LayerNorm(8), nn.BatchNorm2d(8))
    model = nn.Sequential(inside, nn.Flatten(), nn.LazyLinear(4))
    assert feature(model, "0").shape == (2, 8, 8, 8)
    model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4))
    assert feature(model, "1").shape == (2, 5, 8, 8)


def test_a_shape_that_looks_like_channels_behind_is_refused_until_it_is_declared():
    with pytest.raises(UserError, match=r"method.taps.student.hint.*\(N, H, W, channels\).*:nhwc"):
        feature(behind(5), "1")
    assert feature(behind(5), "1:nhwc").shape == (2, 5, 8, 8)
    assert feature(behind(5), "1:nchw").shape == (2, 8, 8, 5)


def test_values_are_turned_not_reshaped():
    model = behind(5)
    inputs = torch.rand(2, 3, 8, 8)
    turned = Taps(model, {"hint": "2"})(model, inputs).features["hint"]
    kept = Taps(model, {"hint": "2:nchw"})(model, inputs).features["hint"]
    assert torch.equal(turned, kept.permute(0, 3, 1, 2))


def test_swins_blocks_and_convnexts_are_told_apart():
    models = pytest.importorskip("torchvision.models")
    swin = models.swin_transformer.SwinTransformer([4, 4], 8, [1, 1], [1, 1], [4, 4], num_classes=3)
    for layer, shape in (("features.0", (2, 8, 8, 8)), ("features.1", (2, 8, 8, 8)), ("features.3", (2, 16, 4, 4))):
        assert feature(swin, layer, (32, 32)).shape == shape
    settings = models.convnext.CNBlockConfig(8, None, 2)
    convnext = models.convnext.ConvNeXt([settings], num_classes=3)
    assert feature(convnext, "features.1", (32, 32)).shape == (2, 8, 8, 8)


def tokens(count: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(8, 5 * count), nn.Unflatten(2, (count, 5)), nn.Flatten(0, 1), nn.Flatten(), nn.LazyLinear(4)
    )


@pytest.mark.parametrize(("count", "side"), [(9, 3), (10, 3), (4, 2), (198, 14), (261, 16)])
def test_tokens_become_a_map_row_by_row_without_what_stands_in_front_of_them(count, side):
    model, inputs = tokens(count), torch.rand(2, 3, 8)
    plain = Taps(model, {"hint": "2"})(model, inputs).features["hint"]
    made = Taps(model, {"hint": "2:map"})(model, inputs).features["hint"]
    assert made.shape == (6, 5, side, side)
    assert torch.equal(made[0, :, 0, 1], plain[0, count - side**2 + 1])
    assert torch.equal(made[0, :, 1, 0], plain[0, count - side**2 + side])


@pytest.mark.parametrize("count", [6, 8, 12, 20, 3])
def test_tokens_of_what_is_no_square_are_refused_as_a_map(count):
    model = tokens(count)
    with pytest.raises(UserError, match=rf"method.taps.student.hint: layer '2:map' gives \(6, {count}, 5\).*H x H"):
        Taps(model, {"hint": "2:map"})(model, torch.rand(2, 3, 8))
