from __future__ import annotations

import pytest
import torch
from golden_cases import array, assert_equals_reference, assert_gradient, gradients, on_features
from torch import nn

from kd_lightning.errors import UserError
from kd_lightning.losses.hint import HintLoss
from kd_lightning.method import Method
from kd_lightning.outputs import ModelOutput


def output(feature, name="hint"):
    return ModelOutput(torch.zeros(feature.shape[0], 2), {name: feature})


def prepared(guided, hint, **options):
    term = HintLoss(**options)
    term.prepare(output(guided), output(hint))
    return term


def reference_adapter(case, module, layers):
    """HintLoss with the reference's adapter weights: ``layers`` maps our layer's number to the reference's name."""
    student, teacher = ("v_s", "v_t") if "vec" in case else ("s1", "t1")
    term = prepared(array("fitnet", f"in/{student}"), array("fitnet", f"in/{teacher}"), relu=True).double()
    state = {}
    for key in term.adapter.state_dict():
        number, name = key.split(".")
        state[key] = array("fitnet", f"param/{module}.{layers[int(number)]}.{name}")
    term.adapter.load_state_dict(state)
    return term


@pytest.mark.parametrize("case", ["repdistiller_same_hw", "repdistiller_same_hw_eval"])
def test_for_maps_loss_and_gradients_equal_the_reference(case):
    term = reference_adapter(case, "rep_same_hw", {0: "conv", 1: "bn"}).train(not case.endswith("eval"))
    assert_equals_reference("fitnet", case, on_features(term, "hint"))
    for number, layer in enumerate(("conv", "bn")):
        for name, parameter in term.adapter[number].named_parameters():
            if (layer, name) == ("conv", "bias") and term.training:
                assert parameter.grad.abs().max() < 1e-12  # BatchNorm takes the mean away, and the bias with it
            else:
                assert_gradient(parameter.grad, gradients("fitnet", case, "pgrad")[f"rep_same_hw.{layer}.{name}"])


def test_for_vectors_loss_and_gradients_equal_the_reference():
    term = reference_adapter("repdistiller_regress_vec", "rep_vec", {0: "linear"})
    assert_equals_reference("fitnet", "repdistiller_regress_vec", on_features(term, "hint"))
    for name, parameter in term.adapter[0].named_parameters():
        reference = gradients("fitnet", "repdistiller_regress_vec", "pgrad")[f"rep_vec.linear.{name}"]
        assert_gradient(parameter.grad, reference)


@pytest.mark.parametrize(
    ("guided", "hint", "parameters"),
    [
        ((2, 3, 8, 8), (2, 5, 8, 8), 3 * 5 + 5 + 2 * 5),
        ((2, 3, 8, 8), (2, 5, 4, 4), 3 * 5 + 5 + 2 * 5),
        ((2, 3, 4, 6), (2, 5, 7, 3), 3 * 5 + 5 + 2 * 5),
        ((2, 7, 3), (2, 7, 5), 3 * 5 + 5),
        ((2, 3), (2, 5), 3 * 5 + 5),
    ],
)
def test_the_adapters_shape_follows_from_the_features(guided, hint, parameters):
    guided, hint = torch.randn(guided, requires_grad=True), torch.rand(hint)
    term = prepared(guided, hint)
    assert sum(parameter.numel() for parameter in term.parameters()) == parameters
    loss = term(output(guided), output(hint), torch.zeros(2))
    loss.backward()
    assert loss.shape == ()
    assert guided.grad.abs().sum() > 0


def test_the_larger_map_is_averaged_down():
    guided, hint = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 4, 4)
    term = HintLoss(adapter=False)
    expected = (nn.AvgPool2d(2)(guided) - hint).square().mean()
    torch.testing.assert_close(term(output(guided), output(hint), torch.zeros(2)), expected)
    torch.testing.assert_close(term(output(hint), output(guided), torch.zeros(2)), expected)


def test_a_relu_ends_the_adapter_only_if_the_hint_is_never_negative():
    guided = torch.randn(4, 3)
    assert isinstance(prepared(guided, torch.rand(4, 5)).adapter[-1], nn.ReLU)
    assert not isinstance(prepared(guided, torch.randn(4, 5)).adapter[-1], nn.ReLU)
    assert isinstance(prepared(guided, torch.randn(4, 5), relu=True).adapter[-1], nn.ReLU)


def test_preparing_twice_keeps_the_adapter_and_the_same_seed_gives_the_same_one():
    guided, hint = torch.randn(2, 3), torch.rand(2, 5)
    torch.manual_seed(3)
    first = prepared(guided, hint)
    adapter = first.adapter
    first.prepare(output(guided), output(hint))
    assert first.adapter is adapter
    torch.manual_seed(3)
    torch.testing.assert_close(prepared(guided, hint).state_dict(), first.state_dict())


def test_the_adapter_learns_to_reach_the_hint():
    torch.manual_seed(0)
    guided = torch.randn(64, 6)
    hint = guided @ torch.randn(6, 4)
    term = prepared(guided, hint)
    optimizer = torch.optim.Adam(term.parameters(), lr=0.05)
    first = None
    for _ in range(200):
        optimizer.zero_grad()
        loss = term(output(guided), output(hint), torch.zeros(64))
        first = first or loss.item()
        loss.backward()
        optimizer.step()
    assert loss < 1e-3 * first


def test_the_methods_parameters_hold_the_adapter():
    method = Method({"hint": HintLoss()}, {"task": 1, "hint": 1})
    assert not list(method.parameters())
    method.prepare(output(torch.randn(2, 3)), output(torch.rand(2, 5)))
    assert len(list(method.parameters())) == 2


def test_half_precision_features_are_compared_in_float32():
    guided, hint = torch.randn(2, 3, 4, 4), torch.rand(2, 5, 4, 4)
    term = prepared(guided, hint)
    loss = term(output(guided.bfloat16()), output(hint.bfloat16()), torch.zeros(2))
    assert loss.dtype == torch.float32


def test_errors_name_tap_and_shapes():
    vector, maps = torch.randn(2, 3), torch.randn(2, 3, 4, 4)
    with pytest.raises(UserError, match=r"\(2, 3\).*\(2, 3, 4, 4\)"):
        prepared(vector, maps)
    with pytest.raises(UserError, match=r"student's tap 'hint'.*other.*method\.taps\.student\.hint"):
        HintLoss(adapter=False)(output(vector, "other"), output(vector), torch.zeros(2))
    with pytest.raises(UserError, match=r"\(2, 3\) does not fit the teacher's \(2, 5\).*adapter: true"):
        HintLoss(adapter=False)(output(vector), output(torch.randn(2, 5)), torch.zeros(2))
    short, long = torch.randn(2, 5, 3), torch.randn(2, 7, 3)
    with pytest.raises(UserError, match=r"\(2, 5, 3\) does not fit.*\(2, 7, 3\).*not their length L"):
        prepared(short, long)(output(short), output(long), torch.zeros(2))
    with pytest.raises(RuntimeError, match="prepare"):
        HintLoss()(output(vector), output(vector), torch.zeros(2))
