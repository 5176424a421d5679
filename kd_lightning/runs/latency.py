"""What a model costs to use: parameters, size of its weights, time for one sample."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.batch import Batch, unnamed
from kd_lightning.calling import ask
from kd_lightning.joints import Teacher


def parameters_count(module: nn.Module) -> int:
    """Number of parameters, shared ones counted once; buffers are not parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def state_bytes(module: nn.Module) -> int:
    """Size in bytes of the weights as stored: parameters and persistent buffers, a shared tensor counted once."""
    tensors = [tensor for tensor in module.state_dict().values() if isinstance(tensor, Tensor)]
    sizes = {(tensor.data_ptr(), tensor.shape): tensor.numel() * tensor.element_size() for tensor in tensors}
    return sum(sizes.values())


def latency_ms(module: nn.Module, example_inputs: Any, budget: float = 0.2, repeats: int = 50) -> float:
    """Median time in milliseconds of a forward pass over one sample (batch size 1) in evaluation mode.

    The module is left as it was: each part's training mode, its buffers and the random number generators. A compiled
    module is timed uncompiled, since a new batch size would have it compiled again.

    Args:
        module: any model.
        example_inputs: what the model takes, a tensor or a structure of them with N >= 1 samples; the first is used.
        budget: seconds after which no further repetition starts (two warm-up passes come first).
        repeats: the most passes that are timed.
    """
    module = getattr(module, "_orig_mod", module)
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    inputs = _first_sample(example_inputs, device)
    with _evaluating(module), _uncompiled(module):
        return median_ms(lambda: ask(module, inputs), device, budget, repeats)


def teacher_latency_ms(teacher: Teacher, example: Batch, budget: float = 0.2, repeats: int = 50) -> float:
    """Median time in milliseconds of a teacher's answer about one sample that no store knows.

    On the CPU, to which the teacher is moved: there the students are timed too once their Trainer is done.
    """
    device = torch.device("cpu")
    teacher.to(device)
    batch = unnamed(example)._replace(inputs=_first_sample(example.inputs, device), target=None)
    batch = batch._replace(index=None if example.index is None else example.index[:1].to(device))
    module = getattr(teacher, "module", None)
    with _uncompiled(module) if isinstance(module, nn.Module) else contextlib.nullcontext():
        return median_ms(lambda: teacher(batch), device, budget, repeats)


def median_ms(call: Callable[[], Any], device: torch.device, budget: float, repeats: int) -> float:
    """Median time in milliseconds of a call, after two that are not timed; arguments as in :func:`latency_ms`."""
    times: list[float] = []
    started = time.perf_counter()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.inference_mode():
        for _ in range(2):
            call()
        _synchronise(device)
        while len(times) < repeats and (not times or time.perf_counter() - started < budget):
            begin = time.perf_counter()
            call()
            _synchronise(device)
            times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e3


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, set part by part: a model may mix modes, and a frozen teacher's own ``train`` does nothing."""
    modes = [(part, part.training) for part in module.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    try:
        for part, _ in modes:
            part.training = False
        yield
    finally:
        for part, mode in modes:
            part.training = mode
        with torch.no_grad():
            for buffer, before in buffers:
                if not torch.equal(buffer, before):  # unchanged ones are not written: they may be shared or read-only
                    buffer.copy_(before)


@contextlib.contextmanager
def _uncompiled(module: nn.Module) -> Iterator[None]:
    """A module whose own ``compile`` was called, as it is without."""
    compiled = vars(module).pop("_compiled_call_impl", None)  # an attribute more would be another module to a digest
    try:
        yield
    finally:
        if compiled is not None:
            module._compiled_call_impl = compiled


def _first_sample(inputs: Any, device: torch.device) -> Any:
    if isinstance(inputs, Tensor):
        return inputs[:1].detach().to(device)
    if isinstance(inputs, dict):
        return {key: _first_sample(value, device) for key, value in inputs.items()}
    if isinstance(inputs, list) and all(isinstance(value, str) for value in inputs):
        return inputs[:1]
    if isinstance(inputs, (list, tuple)):
        parts = [_first_sample(value, device) for value in inputs]
        return type(inputs)(*parts) if hasattr(inputs, "_fields") else type(inputs)(parts)
    return inputs


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
