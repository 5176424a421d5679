"""Cost of a training step of each method, as a ratio to plain soft targets (``kd``) on the same networks.

``python benchmarks/methods.py [NAME …]``: forward and backward of a student of the tests' small networks with the
teacher's answer, 64 pictures of 8x8, on one thread: the median of 31 steps after 3, in turn with those of ``kd`` on the
same two networks. The processor's time is counted, not the clock's, so that other programs matter little.
``python benchmarks/methods.py > benchmarks/methods.txt`` writes what docs/method_library.md shows.
``python benchmarks/methods.py --cifar NAME …``: a ResNet 8x4 from a ResNet 32x4, pictures of 32x32, the authors' weights
and layers; the median of 5 steps after 1, the teacher's pass included. Its second column is the ratio of the floating
point operations of convolutions and matrix products, counted by torch: what the time can at best come down to.
``benchmarks/methods_cifar.txt`` is ``--cifar kd dkd dist lskd logits_mse wttm review attention sp``, on an AMD EPYC.
"""

from __future__ import annotations

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
from method_builds import METHODS, built, networks, one_step

from kd_lightning.batch import Batch
from kd_lightning.joints import Clock
from kd_lightning.method import Method
from kd_lightning.taps import Taps

SAMPLES, STEPS, WARMUP = 64, 31, 3
CIFAR_STEPS, CIFAR_WARMUP = 5, 1
CIFAR = "experiment=cifar100_resnet32x4_resnet8x4"


def a_step(path: Path, of: Path) -> Callable[[], None]:
    """A training step of the method ``path`` on the networks that suit the method ``of``."""
    torch.manual_seed(0)
    method, (student, teacher) = built(path, {"data": {"batch_size": SAMPLES}}), networks(of)
    return stepping(method, student, teacher, torch.randn(SAMPLES, 1, 8, 8))


def a_cifar_step(name: str) -> Callable[[], None]:
    """A training step of the method called ``name`` as the CIFAR-100 experiment composes it."""
    with initialize_config_dir(str(Path(__file__).resolve().parents[1] / "conf"), version_base=None):
        config = compose("train", [CIFAR, f"method={name}", f"data.batch_size={SAMPLES}"])
    torch.manual_seed(0)
    sizes = {"num_classes": 100, "in_channels": 3}
    student, teacher = (instantiate({**node, **sizes}) for node in (config.student, config.teacher.model))
    for term in config.method.terms.values():
        if term.get("train_samples") == "auto":
            term.train_samples = 50_000
    return stepping(instantiate(config.method), student, teacher, torch.randn(SAMPLES, 3, 32, 32))


def stepping(method: Method, student: nn.Module, teacher: nn.Module, inputs: torch.Tensor) -> Callable[[], None]:
    """Forward and backward of the student on these inputs, with the teacher's answer to them."""
    target = torch.arange(SAMPLES) % 10
    one_step(method, student, teacher, inputs, target=target)  # prepares and binds
    taps, hints = Taps(student, method.taps["student"]), Taps(teacher.eval(), method.taps["teacher"], role="teacher")
    batch, clock = Batch(inputs, target, torch.arange(SAMPLES), split="train"), Clock(9, 100, 1000, 10)

    def step() -> None:
        with torch.no_grad():
            answer = hints(teacher, inputs)
        output = taps(student, inputs)
        views = [(taps(student, inputs), answer)] if method.wants_views else []
        loss = F.cross_entropy(output.logits, target)
        method(output, answer, target, loss, clock=clock, batch=batch, views=views)[0].backward()

    return step


def ratio(steps: Sequence[Callable[[], None]], count: int, warm_up: int) -> float:
    """Seconds of a step of the second kind to those of one of the first."""
    seconds: list[list[float]] = [[], []]
    for _ in range(warm_up + count):
        for step, taken in zip(steps, seconds, strict=True):
            started = time.process_time()
            step()
            taken.append(time.process_time() - started)
    plain, own = (statistics.median(taken[warm_up:]) for taken in seconds)
    return own / plain


def operations(step: Callable[[], None]) -> int:
    """Floating point operations of a step's convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def main() -> None:
    cifar = sys.argv[1:2] == ["--cifar"]
    names = sys.argv[2:] if cifar else sys.argv[1:]
    chosen = [path for path in METHODS if not names or path.stem in names]
    kd = next(path for path in METHODS if path.stem == "kd")
    torch.set_num_threads(1)
    print(f"# one thread of {os.cpu_count()} {platform.machine()} cores, torch {torch.__version__.partition('+')[0]}")
    for path in chosen:
        if cifar:
            plain, own = a_cifar_step("kd"), a_cifar_step(path.stem)
            found = [ratio([plain, own], CIFAR_STEPS, CIFAR_WARMUP), operations(own) / operations(plain)]
        else:
            found = [ratio([a_step(kd, of=path), a_step(path, of=path)], STEPS, WARMUP)]
        print(f"{path.stem:16}", *(f"{value:5.2f}" for value in found), flush=True)


if __name__ == "__main__":
    main()
