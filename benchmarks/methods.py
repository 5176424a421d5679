"""Cost of a training step of each method, as a ratio to plain soft targets (``kd``) on the same networks.

``python benchmarks/methods.py [NAME …]``: forward and backward of a student of the tests' small networks with the
teacher's answer, 64 pictures of 8x8, the median of 15 steps after 3, each method beside ``kd`` on its own two networks.
Ratios of one run may be compared; on a machine that does other work they may not.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from method_builds import METHODS, built, networks, one_step

from kd_lightning.batch import Batch
from kd_lightning.joints import Clock
from kd_lightning.taps import Taps

SAMPLES, STEPS, WARMUP = 64, 15, 3


def median_step(path: Path, of: Path) -> float:
    """Seconds of a step of the method ``path`` on the networks that suit the method ``of``."""
    torch.manual_seed(0)
    method, (student, teacher) = built(path, {"data": {"batch_size": SAMPLES}}), networks(of)
    inputs, target = torch.randn(SAMPLES, 1, 8, 8), torch.arange(SAMPLES) % 10
    one_step(method, student, teacher, inputs, target=target)  # prepares and binds
    taps, hints = Taps(student, method.taps["student"]), Taps(teacher.eval(), method.taps["teacher"], role="teacher")
    batch, clock = Batch(inputs, target, torch.arange(SAMPLES), split="train"), Clock(9, 100, 1000, 10)
    seconds = []
    for _ in range(WARMUP + STEPS):
        started = time.perf_counter()
        with torch.no_grad():
            answer = hints(teacher, inputs)
        output = taps(student, inputs)
        views = [(taps(student, inputs), answer)] if method.wants_views else []
        loss = F.cross_entropy(output.logits, target)
        method(output, answer, target, loss, clock=clock, batch=batch, views=views)[0].backward()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[WARMUP:])


def main() -> None:
    chosen = [path for path in METHODS if len(sys.argv) < 2 or path.stem in sys.argv[1:]]
    kd = next(path for path in METHODS if path.stem == "kd")
    torch.set_num_threads(1)
    for path in chosen:
        plain = median_step(kd, of=path)
        try:
            print(f"{path.stem:16} {median_step(path, of=path) / plain:5.2f}", flush=True)
        except Exception as error:
            print(f"{path.stem:16} not measured: {error}", flush=True)


if __name__ == "__main__":
    main()
