"""Cost of a training step of each method, as a ratio to plain soft targets (``kd``) on the same networks.

``python benchmarks/methods.py [NAME …]``: forward and backward of a student of the tests' small networks with the
teacher's answer, 64 pictures of 8x8, on one thread: the median of 31 steps after 3, in turn with those of ``kd`` on the
same two networks. The processor's time is counted, not the clock's, so that other programs matter little.
``python benchmarks/methods.py > benchmarks/methods.txt`` writes what docs/method_library.md shows.
``python benchmarks/methods.py --cifar NAME …``: a ResNet 8x4 from a ResNet 32x4, pictures of 32x32, the authors' weights
and layers; the median of 5 steps after 1, the teacher's pass included. Its second column is the ratio of the floating
point operations of convolutions and matrix products, counted by torch: what the time can at best come down to.
``benchmarks/methods_cifar.txt`` is ``--cifar kd dkd dist lskd logits_mse wttm review attention sp``, on an AMD EPYC.
``--device cuda``: the same on a GPU, float32 as torch has it by default; each step's time by the clock, from an idle
device to an idle device, the median of 20 after 5. A method that fails is a row with its error, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from method_builds import METHODS, RESNET_LAYERS, built, networks, one_step

from kd_lightning.batch import Batch
from kd_lightning.joints import Clock
from kd_lightning.method import Method
from kd_lightning.taps import Taps

SAMPLES, STEPS, WARMUP = 64, 31, 3
CIFAR_STEPS, CIFAR_WARMUP = 5, 1
GPU_STEPS, GPU_WARMUP = 20, 5
CIFAR = "experiment=cifar100_resnet32x4_resnet8x4"


def a_step(path: Path, of: Path, device: torch.device) -> Callable[[], None]:
    """A training step of the method ``path`` on the networks that suit the method ``of``."""
    torch.manual_seed(0)
    method, (student, teacher) = built(path, {"data": {"batch_size": SAMPLES}}), networks(of)
    return stepping(method, student, teacher, torch.randn(SAMPLES, 1, 8, 8), device)


@functools.lru_cache(maxsize=2)
def a_cifar_step(name: str, device: torch.device) -> Callable[[], None]:
    """A training step of the method called ``name`` as the CIFAR-100 experiment composes it.

    Where the authors' layers are unknown, those of the method's file are taken that lie in the same place.
    """
    with initialize_config_dir(str(Path(__file__).resolve().parents[1] / "conf"), version_base=None):
        config = compose("train", [CIFAR, f"method={name}", f"data.batch_size={SAMPLES}"])
    torch.manual_seed(0)
    sizes = {"num_classes": 100, "in_channels": 3}
    student, teacher = (instantiate({**node, **sizes}) for node in (config.student, config.teacher.model))
    for taps in config.method.taps.values():
        for tap, layer in taps.items():
            taps[tap] = RESNET_LAYERS.get(layer, layer)
    for part in (*config.method.terms.values(), config.method.get("wrap") or {}):
        if part.get("train_samples") == "auto":
            part.train_samples = 50_000
        if "layer" in part:
            part.layer = RESNET_LAYERS.get(part.layer, part.layer)
    method = instantiate(config.method)
    inputs = torch.randn(SAMPLES, 3, 32, 32)
    if method.wrap is not None:
        student = method.wrap(student, teacher=teacher, example=inputs[:2])
    return stepping(method, student, teacher, inputs, device)


def stepping(
    method: Method, student: nn.Module, teacher: nn.Module, inputs: torch.Tensor, device: torch.device
) -> Callable[[], None]:
    """Forward and backward of the student on these inputs, with the teacher's answer to them."""
    method, student, teacher, inputs = (part.to(device) for part in (method, student, teacher, inputs))
    target = torch.arange(SAMPLES, device=device) % 10
    one_step(method, student, teacher, inputs, target=target)  # prepares and binds
    taps, hints = Taps(student, method.taps["student"]), Taps(teacher.eval(), method.taps["teacher"], role="teacher")
    batch = Batch(inputs, target, torch.arange(SAMPLES, device=device), split="train")
    clock = Clock(9, 100, 1000, 10)

    def step() -> None:
        with torch.no_grad():
            answer = hints(teacher, inputs)
        output = taps(student, inputs)
        views = [(taps(student, inputs), answer)] if method.wants_views else []
        loss = F.cross_entropy(output.logits, target)
        method(output, answer, target, loss, clock=clock, batch=batch, views=views)[0].backward()

    return step


def seconds_of(step: Callable[[], None], device: torch.device) -> float:
    """Of the processor, or of the clock until the device has nothing left to do."""
    if device.type == "cpu":
        started = time.process_time()
        step()
        return time.process_time() - started
    torch.cuda.synchronize(device)
    started = time.perf_counter()
    step()
    torch.cuda.synchronize(device)
    return time.perf_counter() - started


def ratio(steps: Sequence[Callable[[], None]], count: int, warm_up: int, device: torch.device) -> float:
    """Seconds of a step of the second kind to those of one of the first."""
    seconds: list[list[float]] = [[], []]
    for _ in range(warm_up + count):
        for step, taken in zip(steps, seconds, strict=True):
            taken.append(seconds_of(step, device))
    plain, own = (statistics.median(taken[warm_up:]) for taken in seconds)
    return own / plain


def operations(step: Callable[[], None]) -> float:
    """Floating point operations of a step's convolutions and matrix products; nan where torch cannot count them."""
    try:
        with FlopCounterMode(display=False) as counter:
            step()
    except RuntimeError as error:
        if "_will_engine_execute_node" not in str(error):  # torch's counter and gradients by an input
            raise
        return float("nan")
    return counter.get_total_flops()


def measured(path: Path, kd: Path, cifar: bool, device: torch.device) -> list[float]:
    """The columns of a method: the ratio of times, of the CIFAR pair that of operations as well."""
    count, warm_up = (CIFAR_STEPS, CIFAR_WARMUP) if cifar else (STEPS, WARMUP)
    if device.type != "cpu":
        count, warm_up = GPU_STEPS, GPU_WARMUP
    if not cifar:
        return [ratio([a_step(kd, path, device), a_step(path, path, device)], count, warm_up, device)]
    plain, own = a_cifar_step("kd", device), a_cifar_step(path.stem, device)
    return [ratio([plain, own], count, warm_up, device), operations(own) / operations(plain)]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="methods; all without")
    parser.add_argument("--cifar", action="store_true", help="ResNet 32x4 -> ResNet 8x4 in place of small networks")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="cpu, cuda or cuda:1")
    given = parser.parse_args()
    chosen = [path for path in METHODS if not given.names or path.stem in given.names]
    kd = next(path for path in METHODS if path.stem == "kd")
    torch.set_num_threads(1)
    where = f"one thread of {os.cpu_count()} {platform.machine()} cores"
    if given.device.type != "cpu":
        where = torch.cuda.get_device_name(given.device)
    print(f"# {where}, torch {torch.__version__.partition('+')[0]}")
    failed = False
    for path in chosen:
        try:
            columns = [f"{value:5.2f}" for value in measured(path, kd, given.cifar, given.device)]
        except Exception as error:  # one method says nothing of the next
            failed = True
            columns = [f"failed: {type(error).__name__}: {' '.join(str(error).split())}"]
        print(f"{path.stem:16}", *columns, flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
