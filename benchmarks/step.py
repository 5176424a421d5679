"""What Lightning and this project add to a training step: Distiller against a bare PyTorch loop, in one run.

    OMP_NUM_THREADS=1 python benchmarks/step.py

A KD step of resnet8x4 from resnet32x4 at batch 64 (32x32 images), and of an MLP pair, where overhead shows most; then 16
MLP students in lockstep. Both sides do the same arithmetic on the same batches; they take turns, so that a machine that
slows down slows both. Printed are medians of CPU milliseconds a step and the ratio of the two.
"""

from __future__ import annotations

import argparse
import functools
import logging
import statistics
import time
import warnings

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from kd_lightning.batch import Batch
from kd_lightning.distiller import Distiller
from kd_lightning.losses.soft_target import SoftTargetLoss
from kd_lightning.member import Member
from kd_lightning.method import Method
from kd_lightning.models.mlp import MLP
from kd_lightning.models.resnet_cifar import resnet8x4, resnet32x4
from kd_lightning.recorder import Recorder
from kd_lightning.tasks.classification import ClassificationTask
from kd_lightning.teachers.frozen import FrozenTeacher

SGD = functools.partial(torch.optim.SGD, lr=0.01, momentum=0.9, weight_decay=5e-4)
MLPS = (lambda: MLP([1200, 1200], 784, 10), lambda: MLP([100, 100], 784, 10), (1, 28, 28), 10)
PAIRS = {  # name: teacher, student, shape, classes, students, steps
    "resnet32x4 -> resnet8x4": (lambda: resnet32x4(100), lambda: resnet8x4(100), (3, 32, 32), 100, 1, 20),
    "mlp 1200x2 -> mlp 100x2": (*MLPS, 1, 400),
    "mlp 1200x2 -> 16 x mlp 100x2": (*MLPS, 16, 60),
}


def bare(teacher: nn.Module, students: list[nn.Module], batches: list[Batch]) -> float:
    """CPU seconds a step of the loop that one would write by hand."""
    teacher.eval().requires_grad_(False)
    optimizers = [SGD(student.parameters()) for student in students]
    for student in students:
        student.train()
    start = time.process_time()
    for batch in batches:
        with torch.no_grad():
            teacher_logits = teacher(batch.inputs)
        for student, optimizer in zip(students, optimizers, strict=True):
            logits = student(batch.inputs)
            soft = F.kl_div(
                F.log_softmax(logits / 4, 1),
                F.log_softmax(teacher_logits / 4, 1),
                reduction="batchmean",
                log_target=True,
            )
            loss = 0.9 * 16 * soft + 0.1 * F.cross_entropy(logits, batch.target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return (time.process_time() - start) / len(batches)


class Timed(pl.Callback):
    """CPU time between the first and the last batch of the run."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.start = time.process_time()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seconds = time.process_time() - self.start


def ours(teacher: nn.Module, students: list[nn.Module], batches: list[Batch]) -> float:
    """CPU seconds a step of the Distiller under a Lightning Trainer."""
    members = [
        Member(
            student,
            Method({"kd": SoftTargetLoss(4.0)}, {"task": 0.1, "kd": 0.9}, 4.0),
            ClassificationTask(),
            optimizer=SGD,
        )
        for student in students
    ]
    timed = Timed()
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, callbacks=[timed],
    )  # fmt: skip
    trainer.fit(
        Distiller(FrozenTeacher(teacher), members, [Recorder() for _ in members]), DataLoader(batches, batch_size=None)
    )
    return timed.seconds / len(batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), batch 64, median of {rounds} rounds")
    for name, (make_teacher, make_student, shape, classes, students, steps) in PAIRS.items():
        batches = [Batch(torch.randn(64, *shape), torch.randint(0, classes, (64,))) for _ in range(steps)]
        times: dict[str, list[float]] = {"bare": [], "ours": []}
        for number in range(rounds + 1):
            for side, measure in (("bare", bare), ("ours", ours)):
                torch.manual_seed(0)
                seconds = measure(make_teacher(), [make_student() for _ in range(students)], batches)
                if number:  # the first round warms up
                    times[side].append(seconds)
        a, b = statistics.median(times["bare"]), statistics.median(times["ours"])
        ratio = statistics.median(y / x for x, y in zip(times["bare"], times["ours"], strict=True))
        print(f"{name:29} bare {1000 * a:8.2f} ms   Distiller {1000 * b:8.2f} ms   ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
