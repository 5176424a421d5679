from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from kd_lightning.errors import UserError
from kd_lightning.models.mlp import MLP
from kd_lightning.models.small_cnn import SmallCNN
from kd_lightning.models.small_vit import SmallViT
from kd_lightning.outputs import as_model_output

STUDENTS = Path(__file__).resolve().parents[2] / "conf" / "student"
AUTO = {"num_classes": 10, "in_channels": 3, "image_size": 32, "in_features": 3 * 32 * 32, "vocab_size": 50}
TEXTS = {"input_ids": torch.randint(1, 50, (2, 7)), "attention_mask": torch.ones(2, 7, dtype=torch.int64)}
NEEDS = {"timm": "timm", "transformer": "transformers"}
# Where neither pictures go in nor one row of logits comes out.
INPUTS = {"token_bag": TEXTS, "transformer": TEXTS}
SHAPES = {"backbone": (2, 1024), "lraspp": (2, 10, 32, 32), "small_lraspp": (2, 10, 32, 32)}


def test_mlp_flattens_and_has_the_widths_given():
    model = MLP(hidden=[12, 7], in_features=2 * 5 * 5, num_classes=3)
    assert sum(parameter.numel() for parameter in model.parameters()) == 50 * 12 + 12 + 12 * 7 + 7 + 7 * 3 + 3
    assert model(torch.randn(4, 2, 5, 5)).shape == (4, 3)
    assert model.hidden[1](model.hidden[0](torch.randn(4, 50))).shape == (4, 7)


def test_mlp_without_hidden_layers_is_linear():
    model = MLP(hidden=[], in_features=50, num_classes=3)
    one, other = torch.randn(2, 50), torch.randn(2, 50)
    bias = model(torch.zeros(2, 50))
    torch.testing.assert_close(model(one + other) + bias, model(one) + model(other))


def test_dropout_acts_in_training_only():
    for model in (MLP([64], 20, 3, dropout=0.5), SmallCNN((4,), 64, 1, 3, 8, dropout=0.5)):
        inputs = torch.randn(8, 20) if isinstance(model, MLP) else torch.randn(8, 1, 8, 8)
        assert not torch.equal(model(inputs), model(inputs))
        model.eval()
        assert torch.equal(model(inputs), model(inputs))


@pytest.mark.parametrize("size", [8, 28, 32])
@pytest.mark.parametrize("hidden", [0, 16])
def test_small_cnn_takes_any_picture_size(size, hidden):
    model = SmallCNN(channels=[4, 6], hidden=hidden, in_channels=2, num_classes=5, image_size=size)
    assert model(torch.randn(3, 2, size, size)).shape == (3, 5)
    assert model.blocks(torch.randn(3, 2, size, size)).shape == (3, 6, size // 4, size // 4)


def test_small_cnn_normalises_its_maps():
    assert sum(isinstance(module, nn.BatchNorm2d) for module in SmallCNN([4, 6]).modules()) == 2


@pytest.mark.parametrize(("size", "patch"), [(8, 4), (28, 7), (32, 8)])
def test_small_vit_answers_for_each_picture_by_itself(size, patch):
    torch.manual_seed(0)
    model = SmallViT(patch=patch, width=8, heads=2, in_channels=2, num_classes=5, image_size=size).eval()
    pictures = torch.randn(3, 2, size, size)
    answers = model(pictures)
    assert answers.shape == (3, 5)
    torch.testing.assert_close(model(pictures[1:2]), answers[1:2])
    tokens = model.patches(pictures).flatten(2).transpose(1, 2) + model.position
    assert model.blocks(tokens).shape == (3, (size // patch) ** 2, 8)


def test_small_vit_sees_where_a_patch_lies():
    torch.manual_seed(0)
    model = SmallViT(patch=4, width=8, heads=2, num_classes=5, image_size=8).eval()
    picture = torch.randn(1, 1, 8, 8)
    assert not torch.allclose(model(picture), model(picture.roll(4, dims=3)), atol=1e-6)
    with torch.no_grad():
        model.position.zero_()
    torch.testing.assert_close(model(picture), model(picture.roll(4, dims=3)))


@pytest.mark.parametrize(("settings", "key"), [({"patch": 5}, "student.patch"), ({"heads": 3}, "student.width")])
def test_small_vit_names_what_does_not_divide(settings, key):
    with pytest.raises(UserError, match=key):
        SmallViT(**settings)


def test_too_many_blocks_for_the_picture_are_named():
    with pytest.raises(UserError, match="image_size 8"):
        SmallCNN(channels=[4, 4, 4, 4], image_size=8)


@pytest.mark.parametrize("path", sorted(STUDENTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_student_config_makes_a_model_that_runs(path):
    config = OmegaConf.load(path)
    if OmegaConf.is_missing(config, "_target_"):
        config._target_ = "kd_lightning.models.resnet_cifar.resnet8"
    if path.stem in NEEDS:
        pytest.importorskip(NEEDS[path.stem])
    for key in config:
        if config[key] == "auto":
            config[key] = AUTO[key]
    model = instantiate(config).eval()
    inputs = INPUTS.get(path.stem)
    output = model(torch.randn(2, 3, 32, 32)) if inputs is None else model(**inputs)
    assert as_model_output(output).logits.shape == SHAPES.get(path.stem, (2, 10))
