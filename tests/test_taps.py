from __future__ import annotations

import gc
import os
import socket
import weakref

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from kd_lightning.errors import UserError
from kd_lightning.models.small_cnn import SmallCNN
from kd_lightning.outputs import ModelOutput
from kd_lightning.taps import Taps

LAYERS = {"map": "blocks.1", "vector": "hidden"}


def small_cnn():
    torch.manual_seed(0)
    return SmallCNN(channels=(4, 6), hidden=5, in_channels=1, num_classes=3, image_size=8)


def pictures(n=2):
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def features_by_hand(model, inputs):
    maps = model.blocks(inputs)
    return {"map": maps, "vector": model.hidden(maps.flatten(1))}


def test_features_are_the_named_layers_outputs_and_carry_gradient():
    model = small_cnn().eval()
    output = Taps(model, LAYERS)(model, pictures())
    torch.testing.assert_close(output.features, features_by_hand(model, pictures()))
    assert output.features["map"].shape == (2, 6, 2, 2)
    torch.testing.assert_close(output.logits, model(pictures()))
    output.features["map"].sum().backward()
    assert model.blocks[0][0].weight.grad.abs().sum() > 0


def test_input_of_a_layer_can_be_tapped():
    model = small_cnn().eval()
    output = Taps(model, {"embedding": "classifier:input"})(model, pictures())
    torch.testing.assert_close(output.features["embedding"], features_by_hand(model, pictures())["vector"])


def test_a_models_own_features_are_kept():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, inputs):
            logits = self.layer(inputs)
            return ModelOutput(logits, {"own": 2 * logits}, spread=logits - 1)

    model = Own()
    output = Taps(model, {"tap": "layer"})(model, torch.randn(2, 4))
    assert sorted(output.features) == ["own", "tap"]
    assert output.spread is not None


def test_without_taps_the_output_is_only_wrapped():
    model = small_cnn()
    taps = Taps(model, {})
    assert taps(model, pictures()).features == {}
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        ("blocks.7", r"no layer 'blocks\.7'; did you mean blocks\.[01]"),
        ("zzzzzz", r"no layer 'zzzzzz'; it has blocks, blocks\.0.*classifier"),
        ("", r"no layer ''; it has blocks"),
    ],
)
def test_an_unknown_layer_is_an_error_that_names_those_that_exist(layer, says):
    with pytest.raises(UserError, match=r"method\.taps\.teacher\.hint: .*" + says) as caught:
        Taps(small_cnn(), {"hint": layer}, role="teacher")
    assert "\n" not in str(caught.value)


class Detours(nn.Module):
    """A layer that never runs, one that gives no tensor, and one whose output a later layer overwrites."""

    def __init__(self):
        super().__init__()
        self.used = nn.Linear(4, 4)
        self.unused = nn.Linear(4, 4)
        self.before = nn.BatchNorm1d(4)
        self.inplace = nn.ReLU(inplace=True)
        self.lstm = nn.LSTM(4, 4, batch_first=True)

    def forward(self, inputs):
        maps = self.inplace(self.before(self.used(inputs)))
        return self.lstm(maps[:, None])[0][:, 0]


def test_a_layer_that_does_not_run_is_named():
    model = Detours()
    with pytest.raises(UserError, match=r"method\.taps\.student\.hint: layer 'unused' gave no tensor.*did not run"):
        Taps(model, {"hint": "unused"})(model, torch.randn(3, 4))


def test_a_feature_overwritten_in_place_is_named():
    model = Detours()
    with pytest.raises(UserError, match=r"layer 'before' was overwritten"):
        Taps(model, {"hint": "before"})(model, torch.randn(3, 4))
    assert Taps(model, {"hint": "inplace"})(model, torch.randn(3, 4)).features["hint"].min() >= 0


def test_the_first_tensor_of_a_tuple_is_taken():
    model = Detours()
    assert Taps(model, {"hint": "lstm"})(model, torch.randn(3, 4)).features["hint"].shape == (3, 1, 4)


def test_nothing_is_held_after_a_step():
    model = small_cnn()
    taps = Taps(model, LAYERS)
    output = taps(model, pictures())
    watched = [weakref.ref(feature) for feature in output.features.values()]
    sum(feature.sum() for feature in output.features.values()).backward()
    del output
    gc.collect()
    assert [reference() for reference in watched] == [None, None]


def test_a_failed_step_leaves_nothing_behind():
    model = small_cnn()
    taps = Taps(model, LAYERS)
    with pytest.raises(RuntimeError):
        taps(model, torch.randn(2, 3, 8, 8))
    model(pictures())  # outside of taps nothing is recorded either
    assert not taps._captured
    assert sorted(taps(model, pictures()).features) == ["map", "vector"]


def test_two_taps_on_one_model_do_not_mix():
    model = small_cnn()
    first, second = Taps(model, {"a": "blocks.0"}), Taps(model, {"b": "hidden"})
    assert list(first(model, pictures()).features) == ["a"]
    assert list(second(model, pictures()).features) == ["b"]


def test_removed_taps_leave_the_model_as_it_was():
    model = small_cnn()
    Taps(model, LAYERS).remove()
    assert not any(module._forward_hooks for module in model.modules())


def test_layers_rerun_by_checkpointing_in_backward_are_not_kept():
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = small_cnn()

        def forward(self, inputs):
            return torch.utils.checkpoint.checkpoint(self.body, inputs, use_reentrant=False)

    model = Checkpointed()
    taps = Taps(model, {"map": "body.blocks.0"})
    output = taps(model, pictures())
    output.logits.sum().backward()
    assert not taps._captured


@pytest.mark.parametrize(
    "backend",
    ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)],
)
def test_a_compiled_model_gives_the_same_features_and_gradients_without_graph_breaks(backend):
    torch._dynamo.reset()
    plain, model = small_cnn(), small_cnn()
    plain_taps, taps = Taps(plain, LAYERS), Taps(model, LAYERS)
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    for step in range(3):
        inputs = pictures() + step
        expected, output = plain_taps(plain, inputs), taps(compiled, inputs)
        torch.testing.assert_close(output.features, expected.features, rtol=1e-4, atol=1e-5)
        assert not taps._captured
        for answer in (expected, output):
            (answer.logits.sum() + answer.features["map"].square().sum()).backward()
    for one, other in zip(plain.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-4)


def test_a_model_compiled_in_place_gives_its_features_too():
    torch._dynamo.reset()
    model = small_cnn().eval()
    taps = Taps(model, LAYERS)
    expected = features_by_hand(model, pictures())
    model.compile(backend="aot_eager")
    torch.testing.assert_close(taps(model, pictures()).features, expected)


def test_names_are_those_of_the_model_inside_a_compiled_one():
    torch._dynamo.reset()
    model = small_cnn()
    compiled = torch.compile(model, backend="eager")
    assert sorted(Taps(compiled, LAYERS)(compiled, pictures()).features) == ["map", "vector"]


def _train_on_one_rank(rank, port, results):
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    model = small_cnn().eval()  # eval: BatchNorm's statistics of half a batch would differ from the whole batch's
    taps = Taps(model, LAYERS)
    wrapped = DistributedDataParallel(model)
    output = taps(wrapped, pictures(4)[2 * rank : 2 * rank + 2])
    (output.features["map"].mean() + output.logits.mean()).backward()
    results[rank] = model.blocks[0][0].weight.grad.clone()
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ddp_processes_average_the_gradient_through_the_taps(monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    results = mp.get_context("spawn").Manager().dict()
    mp.spawn(_train_on_one_rank, args=(port, results), nprocs=2)
    model = small_cnn().eval()
    output = Taps(model, LAYERS)(model, pictures(4))
    (output.features["map"].mean() + output.logits.mean()).backward()
    for rank in range(2):
        torch.testing.assert_close(results[rank], model.blocks[0][0].weight.grad)
