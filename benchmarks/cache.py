"""What stored teacher outputs save in a single run: the same training with the live teacher, the cache, and no teacher.

    OMP_NUM_THREADS=1 python benchmarks/cache.py

Distiller under a Lightning Trainer on all of Fashion-MNIST (54,000 training images, batch 128, shifted and flipped
views), read by the ThreadedLoader. Live, cached and the student from labels alone take turns, so that a machine that slows down slows both. Each
ratio is of one turn; the median and range over turns are printed, in CPU time and in wall time. That ratio is of a run
that finds its cache; below it is what remains for a run that has to write its one fixed view first, by its epochs. Both
are of training steps alone: validation, logging and checkpoints are switched off.
Without Fashion-MNIST on the machine, noise of the same size takes its place (the times do not depend on the pixels).
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch

from kd_lightning.data.fashion_mnist import FashionMnistData
from kd_lightning.data.module import DistillationDataModule
from kd_lightning.distiller import Distiller
from kd_lightning.losses.soft_target import SoftTargetLoss
from kd_lightning.member import Member
from kd_lightning.method import Method
from kd_lightning.models.mlp import MLP
from kd_lightning.models.resnet_cifar import resnet8
from kd_lightning.models.small_cnn import SmallCNN
from kd_lightning.recorder import Recorder
from kd_lightning.tasks.classification import ClassificationTask
from kd_lightning.teachers.cache.opening import open_or_write_cache
from kd_lightning.teachers.frozen import FrozenTeacher

FASHION = "/usr/share/datasets/fashion-mnist"
SGD = functools.partial(torch.optim.SGD, lr=0.01, momentum=0.9, weight_decay=5e-4)
PAIRS = {  # teacher, student, steps a turn, the ratio to reach (the third pair is the one that ships; it and the last, a costlier student, have no goal)
    "MLP 1200x2 -> 100x2": (lambda: MLP([1200, 1200], 784, 10), lambda: MLP([100, 100], 784, 10), 200, 2.0),
    "CNN 32-64-128 -> 8": (lambda: SmallCNN([32, 64, 128]), lambda: SmallCNN([8], hidden=0), 60, 4.0),
    "CNN 32-64 -> 8-16": (lambda: SmallCNN([32, 64], hidden=128), lambda: SmallCNN([8, 16], hidden=32), 60, None),
    "CNN 32-64-128 -> ResNet 8": (
        lambda: SmallCNN([32, 64, 128]),
        lambda: resnet8(10, 1),
        20,
        None,
    ),
}


class Noise(DistillationDataModule):
    """60,000 pictures of noise, 28 x 28, in 10 classes."""

    num_classes, in_channels, image_size, mean, std = 10, 1, 28, [0.5], [0.3]

    def train_data(self) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (60_000, 1, 28, 28), generator=generator, dtype=torch.uint8)
        return images, torch.arange(60_000) % 10


class Clock(pl.Callback):
    """CPU and wall seconds from the first batch of an epoch to its end."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.cpu, self.wall = time.process_time(), time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.cpu, self.wall = time.process_time() - self.cpu, time.perf_counter() - self.wall


def train(student: torch.nn.Module, answers, data: DistillationDataModule, steps: int) -> tuple[float, float]:
    """CPU and wall milliseconds a step of a run of ``steps``; without ``answers`` the labels are all that is learned."""
    if answers is None:
        method = Method(None, {"task": 1.0})
    else:
        method = Method({"kd": SoftTargetLoss(4.0)}, {"task": 0.1, "kd": 0.9}, 4.0)
    member = Member(student, method, ClassificationTask(), optimizer=SGD)
    clock = Clock()
    trainer = pl.Trainer(
        max_epochs=1, limit_train_batches=steps, limit_val_batches=0, accelerator="cpu", logger=False,
        callbacks=[clock], enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Distiller(answers, member, [Recorder()]), data.train_dataloader())
    return 1000 * clock.cpu / steps, 1000 * clock.wall / steps


def measure(name: str, data: DistillationDataModule, turns: int, directory: Path, precision: str) -> None:
    """Print one pair's figures."""
    make_teacher, make_student, steps, wanted = PAIRS[name]
    torch.manual_seed(0)
    teacher = FrozenTeacher(make_teacher())
    start = time.process_time()
    cached = open_or_write_cache(teacher, data, str(directory), epochs=1, precision=precision)
    written = time.process_time() - start
    start = time.process_time()
    cached = open_or_write_cache(teacher, data, str(directory), epochs=1, precision=precision)
    opened = time.process_time() - start
    batch = next(iter(data.train_dataloader()))
    live_logits = teacher(batch).logits
    off = float((cached(batch).logits - live_logits).abs().max() / live_logits.abs().max())
    train(make_student(), teacher, data, 5)  # everything is loaded and warm
    sides = [
        tuple(train(make_student(), answers, data, steps) for answers in (teacher, cached, None)) for _ in range(turns)
    ]
    lines = []
    for which, unit in enumerate(("CPU", "wall")):
        ratios = [live[which] / stored[which] for live, stored, _ in sides]
        above = [stored[which] / alone[which] for _, stored, alone in sides]
        live, stored, alone = (statistics.median(side[which] for side in column) for column in zip(*sides, strict=True))
        lines.append(
            f"  {unit:4} ms a step: live {live:6.2f}, cached {stored:6.2f}: {statistics.median(ratios):.2f} x "
            f"({min(ratios):.2f} to {max(ratios):.2f}, n = {turns} turns of {steps} steps)"
        )
        lines.append(
            f"       labels alone {alone:6.2f}: cached KD takes {statistics.median(above):.2f} times that "
            f"({min(above):.2f} to {max(above):.2f})"
        )
        if which == 0:
            medians, saved = (live, stored), (live - stored) / 1000 * data.steps_per_epoch
            met = wanted is None or statistics.median(ratios) >= wanted
    goal = (
        ""
        if wanted is None
        else f", goal for a run that finds its cache >= {wanted:g} x CPU: {'reached' if met else 'MISSED'}"
    )
    print(f"{name}{goal}")
    print("\n".join(lines))
    whole_live, whole_stored = (value / 1000 * data.steps_per_epoch for value in medians)
    net = ", ".join(f"{n} epochs {n * whole_live / (written + n * whole_stored):.2f} x" for n in (5, 20, 50, 200))
    print(f"  with the writing of the view, CPU: {net}")
    print(
        f"  writing a view of {data.train_samples} samples {written:.1f} s CPU, paid for by {written / saved:.1f} "
        f"epochs on it; opening {opened:.2f} s; largest deviation of logits {off:.1e} of the largest"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--pairs", nargs="*", default=list(PAIRS), choices=list(PAIRS))
    parser.add_argument("--precision", default="fp16", help="of the cache, as teacher.cache_precision")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    for logger in ("pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    settings = {"batch_size": 128, "augment": {"crop_padding": 2, "flip": True}, "views": 1}
    data = FashionMnistData(**settings) if os.path.isdir(FASHION) else Noise(**settings)
    data.setup("fit")
    threads = torch.get_num_threads()
    print(f"{type(data).__name__}, torch {torch.__version__} with {threads} threads, {os.cpu_count()} CPUs")
    with tempfile.TemporaryDirectory() as directory:
        for name in options.pairs:
            measure(name, data, options.turns, Path(directory), options.precision)


if __name__ == "__main__":
    main()
