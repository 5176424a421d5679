"""Cost of a training step of each method, as a ratio to plain soft targets (``kd``) on the same networks.

``python benchmarks/methods.py [NAME …]``: forward and backward of a student of the tests' small networks with the
teacher's answer, 64 pictures of 8x8, on one thread: the median of 31 steps after 3, in turn with those of ``kd`` on the
same two networks. The processor's time is counted, not the clock's, so that other programs matter little.
``python benchmarks/methods.py > benchmarks/methods.txt`` writes what docs/method_library.md shows.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from method_builds import METHODS, built, networks, one_step

from kd_lightning.batch import Batch
from kd_lightning.joints import Clock
from kd_lightning.taps import Taps

SAMPLES, STEPS, WARMUP = 64, 31, 3


def a_step(path: Path, of: Path) -> Callable[[], None]:
    """A training step of the method ``path`` on the networks that suit the method ``of``."""
    torch.manual_seed(0)
    method, (student, teacher) = built(path, {"data": {"batch_size": SAMPLES}}), networks(of)
    inputs, target = torch.randn(SAMPLES, 1, 8, 8), torch.arange(SAMPLES) % 10
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


def ratio(path: Path, kd: Path) -> float:
    """Seconds of a step of the method to those of a step of ``kd``."""
    steps = [a_step(kd, of=path), a_step(path, of=path)]
    seconds: list[list[float]] = [[], []]
    for _ in range(WARMUP + STEPS):
        for step, taken in zip(steps, seconds, strict=True):
            started = time.process_time()
            step()
            taken.append(time.process_time() - started)
    plain, own = (statistics.median(taken[WARMUP:]) for taken in seconds)
    return own / plain


def main() -> None:
    chosen = [path for path in METHODS if len(sys.argv) < 2 or path.stem in sys.argv[1:]]
    kd = next(path for path in METHODS if path.stem == "kd")
    torch.set_num_threads(1)
    print(f"# one thread of {os.cpu_count()} {platform.machine()} cores, torch {torch.__version__.partition('+')[0]}")
    for path in chosen:
        print(f"{path.stem:16} {ratio(path, kd):5.2f}", flush=True)


if __name__ == "__main__":
    main()
