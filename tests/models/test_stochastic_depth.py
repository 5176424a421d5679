"""Stochastic depth leaves branches out for some samples, in training only, by the random numbers of the run's own stream."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from kd_lightning.errors import UserError
from kd_lightning.models.layers import StochasticDepth, depth_rates
from kd_lightning.models.resnet_cifar import BasicBlock, CifarResNet
from kd_lightning.models.small_vit import SmallViT
from kd_lightning.rng import RngStream

MODELS = {
    "small_vit": lambda rate: SmallViT(width=8, heads=2, depth=3, drop_path=rate),
    "resnet": lambda rate: CifarResNet(14, (4, 4, 8, 8), 10, 1, drop_path=rate),
}


def pair(name: str, rate: float | None):
    torch.manual_seed(0)
    model = MODELS[name](rate)
    torch.manual_seed(0)
    return model, MODELS[name](None)


def test_a_sample_keeps_its_branch_whole_or_not_at_all_and_the_mean_stays():
    torch.manual_seed(0)
    depth = StochasticDepth(0.25)
    out = depth(torch.ones(4000, 3, 2))
    kept = out[:, 0, 0] > 0
    assert (out == torch.where(kept, 4 / 3, 0.0)[:, None, None]).all()
    assert out.mean().item() == pytest.approx(1, abs=0.03)
    assert torch.equal(depth.eval()(torch.ones(5, 2)), torch.ones(5, 2))


def test_rates_grow_evenly_from_0_to_the_last_blocks():
    assert depth_rates(0.3, 4) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert depth_rates(0.3, 1) == [0.3]
    assert depth_rates(None, 3) == [0, 0, 0]
    rates = [module.rate for module in MODELS["resnet"](0.5).modules() if isinstance(module, StochasticDepth)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    rates = [module.rate for module in MODELS["small_vit"](0.2).modules() if isinstance(module, StochasticDepth)]
    assert rates == pytest.approx([0.1, 0.1, 0.2, 0.2])


@pytest.mark.parametrize("name", MODELS)
def test_a_finished_student_is_the_one_without_it(name):
    model, plain = pair(name, 0.5)
    assert list(model.state_dict()) == list(plain.state_dict())
    pictures = torch.randn(4, 1, 28, 28)
    torch.testing.assert_close(model.eval()(pictures), plain.eval()(pictures), rtol=0, atol=0)


@pytest.mark.parametrize("name", MODELS)
def test_without_a_rate_nothing_is_drawn_and_nothing_changes(name):
    model, plain = pair(name, 0.0)
    assert [key for key, _ in model.named_modules()] == [key for key, _ in plain.named_modules()]
    before = torch.get_rng_state()
    model.train()(torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", MODELS)
def test_a_stream_that_continues_leaves_out_what_it_would_have(name):
    model, _ = pair(name, 0.5)
    pictures = torch.randn(16, 1, 28, 28)

    def steps(stream: RngStream, number: int):
        found = []
        for _ in range(number):
            with stream:
                found.append(model(pictures))
        return found

    model.eval()  # batch statistics apart
    for module in model.modules():
        module.train(isinstance(module, StochasticDepth))
    stream = RngStream(3)
    first = steps(stream, 2)
    state = stream.state_dict()
    later, other = steps(stream, 2), RngStream(9)
    other.load_state_dict(state)
    assert not torch.equal(first[0], first[1])
    for one, again in zip(later, steps(other, 2), strict=True):
        assert torch.equal(one, again)


def test_a_picture_that_is_left_out_passes_a_blocks_shortcut_alone():
    torch.manual_seed(1)
    block = BasicBlock(3, 4, 2, drop_path=0.5)
    maps = torch.randn(64, 3, 6, 6)
    with torch.no_grad():
        out, shortcut = block(maps), F.relu(block.downsample(maps))
    alone = torch.tensor([torch.allclose(a, b) for a, b in zip(out, shortcut, strict=True)])
    assert 16 < alone.sum() < 48


@pytest.mark.parametrize("rate", [1.0, -0.1])
@pytest.mark.parametrize("name", MODELS)
def test_a_rate_that_is_none_is_named(name, rate):
    with pytest.raises(UserError, match=r"student\.drop_path must be in"):
        MODELS[name](rate)
