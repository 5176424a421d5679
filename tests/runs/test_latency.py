from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from kd_lightning.batch import Batch
from kd_lightning.runs.latency import latency_ms, parameters_count, state_bytes


class Clock:
    """A clock that moves only when it is told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


class Takes(nn.Module):
    """Takes known times by ``clock``, one after the other and the last for ever; notes the batch sizes that it saw."""

    def __init__(self, clock, *seconds):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.clock, self.seconds, self.seen = clock, seconds, []

    def forward(self, x):
        self.clock.now += self.seconds[min(len(self.seen), len(self.seconds) - 1)]
        self.seen.append((len(x), self.training, torch.is_grad_enabled()))
        return x


class Obstinate(nn.Sequential):
    """Counts its calls in a buffer and ignores train(), as a frozen teacher does."""

    def __init__(self, *parts):
        super().__init__(*parts)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        return super().forward(x)

    def train(self, mode=True):
        return self


def test_latency_is_the_time_of_one_sample_without_gradients_in_evaluation_mode(clock):
    model = Takes(clock, 0.005).train()
    assert latency_ms(model, torch.zeros(7, 3)) == pytest.approx(5)
    assert set(model.seen) == {(1, False, False)}


def test_latency_is_a_median_after_two_passes_that_warm_up(clock):
    warming_up, outlier = (9.0, 9.0), (3.0,)
    assert latency_ms(Takes(clock, *warming_up, *outlier, 0.005), torch.zeros(2, 3), budget=30) == pytest.approx(5)


def test_latency_keeps_to_its_time_budget_and_to_its_number_of_passes(clock):
    model = Takes(clock, 0.04)
    latency_ms(model, torch.zeros(2, 3), budget=0.2)
    assert clock.now == pytest.approx(0.2, abs=0.041)
    quick = Takes(clock, 0.0001)
    latency_ms(quick, torch.zeros(2, 3), repeats=7)
    assert len(quick.seen) == 2 + 7


def test_latency_leaves_modes_buffers_gradients_and_random_numbers_alone():
    model = Obstinate(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    nn.Module.train(model, True)
    model[1].training = False
    before = {name: value.clone() for name, value in model.state_dict().items()}
    inputs, random = torch.randn(3, 4), torch.get_rng_state()
    latency_ms(model, inputs)
    assert [part.training for part in model.modules()] == [True, True, False, True]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    model(torch.randn(3, 4)).sum().backward()  # buffers and parameters can still be trained


def test_latency_restores_the_modes_when_the_model_fails():
    model = nn.Linear(4, 4).train()
    with pytest.raises(RuntimeError):
        latency_ms(model, torch.randn(3, 5))
    assert model.training


def test_latency_takes_structures_of_tensors():
    class Two(nn.Module):
        def forward(self, inputs):
            assert len(inputs["a"]) == len(inputs["b"][0]) == 1
            return inputs["a"]

    assert latency_ms(Two(), {"a": torch.zeros(3, 2), "b": [torch.zeros(3)]}) > 0

    class Named(nn.Module):
        def forward(self, batch):
            return batch.inputs

    assert latency_ms(Named(), Batch(torch.zeros(3, 2), torch.zeros(3))) > 0


def test_shared_weights_are_counted_once():
    first, second = nn.Linear(10, 10, bias=False), nn.Linear(10, 10, bias=False)
    second.weight = first.weight
    assert parameters_count(nn.Sequential(first, second)) == 100
    assert state_bytes(nn.Sequential(first, second)) == 400


def test_size_counts_buffers_and_the_precision_of_the_weights():
    model = nn.Sequential(nn.Linear(10, 5), nn.BatchNorm1d(5))
    floats = 55 + 5 * 4  # weights and bias; scale, shift, running mean and variance
    assert state_bytes(model) == 4 * floats + 8  # and the int64 count of batches
    assert state_bytes(model.half()) == 2 * floats + 8
    assert parameters_count(model) == 65
