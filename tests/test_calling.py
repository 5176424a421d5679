"""How models get inputs of any structure."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kd_lightning.calling import ask, only_input
from kd_lightning.taps import Taps

IDS, MASK = torch.arange(6).view(2, 3), torch.ones(2, 3)
NAMED = {"input_ids": IDS, "attention_mask": MASK, "text": ["a", "b"]}


class Transformer(nn.Module):
    """What transformers' models look like."""

    def forward(self, input_ids=None, attention_mask=None, labels=None, **kwargs):
        assert not kwargs
        return {"logits": input_ids * attention_mask}


class Whole(nn.Module):
    def forward(self, inputs):
        return inputs["input_ids"] * inputs["attention_mask"]


class Anything(nn.Module):
    def forward(self, **inputs):
        return inputs["input_ids"] * inputs["attention_mask"]


class Pair(nn.Module):
    def forward(self, left, right):
        return left * right


class Single(nn.Module):
    def forward(self, pair):
        return pair[0] * pair[1]


@pytest.mark.parametrize(
    "model", [Whole(), Anything(), torch.compile(Whole(), backend="eager"), lambda inputs: IDS * MASK]
)
def test_a_model_gets_named_inputs_whole_or_by_name(model):
    assert torch.equal(ask(model, NAMED), IDS * MASK)


def test_named_inputs_become_the_arguments_that_a_forward_has():
    assert torch.equal(ask(Transformer(), NAMED)["logits"], IDS * MASK)
    assert torch.equal(Taps(Transformer(), {})(nn.DataParallel(Transformer()).module, NAMED).logits, IDS * MASK)


@pytest.mark.parametrize("model", [Pair(), Single(), nn.Identity()])
def test_several_inputs_become_as_many_arguments(model):
    answer = ask(model, (IDS, MASK))
    assert torch.equal(answer if isinstance(answer, torch.Tensor) else answer[0] * answer[1], IDS * MASK)


def test_a_tensor_is_given_as_it_is():
    assert ask(nn.Flatten(), IDS) is not None
    assert torch.equal(ask(nn.Identity(), IDS), IDS)


def test_the_one_of_several_inputs_that_a_model_takes_is_known_and_no_guess():
    class Mask(nn.Module):
        def forward(self, attention_mask):
            return attention_mask

    assert only_input(Mask(), NAMED) == "attention_mask"
    assert only_input(Mask(), ["input_ids"]) is None
    for model in (Transformer(), Whole(), Anything(), Pair()):
        assert only_input(model, NAMED) is None
