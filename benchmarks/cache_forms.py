"""What storing a teacher's answers in fewer bytes costs: bytes a view, and the accuracy of students that learn from them.

    OMP_NUM_THREADS=1 python benchmarks/cache_forms.py [--pictures 3]

Pictures of 100 classes: two pictures of Fashion-MNIST beside each other, 14 x 14 each, drawn once at random; the class
is the pair of classes (with three pictures 1000 of them, a product of few: kinder to principal axes than other classes
may be). A perceptron learns from 60,000 of them with all labels, students (5 seeds of initial weights) from 6,000, a
fresh shifted view in each of 40 epochs. Students of one temperature differ in the form of the stored answers only: same
weights to start with, same batches, same views. Printed are accuracies on 10,000 such pictures of the test set, mean and
sample standard deviation over the seeds, and the mean difference of each seed to fp16 with its standard error. Top-k at
temperature 4 is what kd-train refuses.
"""

from __future__ import annotations

import argparse
import functools
import logging
import statistics
import tempfile
import warnings
from pathlib import Path
from typing import NamedTuple

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.data.fashion_mnist import FashionMnistData
from kd_lightning.data.module import DistillationDataModule
from kd_lightning.distiller import Distiller
from kd_lightning.losses.soft_target import SoftTargetLoss
from kd_lightning.member import Member
from kd_lightning.method import Method
from kd_lightning.models.mlp import MLP
from kd_lightning.recorder import Recorder
from kd_lightning.tasks.classification import ClassificationTask
from kd_lightning.teachers.cache.cached import CachedTeacher
from kd_lightning.teachers.cache.opening import open_or_write_cache
from kd_lightning.teachers.frozen import FrozenTeacher

SIDE = 14
TEMPERATURES = {2: (1.0, 4.0), 3: (1.0, 2.0, 4.0)}
ADAM = functools.partial(torch.optim.AdamW, lr=2e-3)


class Form(NamedTuple):
    """A form of the stored answers."""

    name: str
    precision: str
    top_k: int | None = None


FORMS = (Form("fp16", "fp16"), Form("6bit", "6bit"), Form("top 10", "fp16", 10), Form("top 25", "fp16", 25))
FORMS_OF_1000 = (Form("fp16", "fp16"), Form("scores", "scores"), Form("top 10", "fp16", 10), Form("6bit", "6bit"))


class FashionRows(DistillationDataModule):
    """Fashion-MNIST pictures beside each other, in 10 ** pictures classes."""

    in_channels, mean, std = 1, [0.286], [0.32]

    def __init__(self, pictures: int, **settings) -> None:
        super().__init__(**settings)
        self.pictures, self.num_classes = pictures, 10**pictures

    @property
    def pixels(self) -> int:
        """Numbers in one sample."""
        return SIDE * SIDE * self.pictures

    def train_data(self) -> tuple[Tensor, Tensor]:
        return in_rows(*FashionMnistData().train_data(), self.pictures, seed=0)

    def test_data(self) -> tuple[Tensor, Tensor]:
        return in_rows(*FashionMnistData().test_data(), self.pictures, seed=1)


def in_rows(images: Tensor, numbers: Tensor, pictures: int, seed: int) -> tuple[Tensor, Tensor]:
    """Each picture with others beside it: uint8 (N, 1, 14, 14 * pictures), classes (N,) of 10 ** pictures."""
    generator = torch.Generator().manual_seed(seed)
    small = F.avg_pool2d(images.float(), 28 // SIDE).round().to(torch.uint8)
    row, target = small, numbers
    for _ in range(pictures - 1):
        other = torch.randperm(len(images), generator=generator)
        row, target = torch.cat([row, small[other]], dim=3), 10 * target + numbers[other]
    return row, target


def trained_teacher(data: FashionRows, epochs: int) -> nn.Module:
    """A perceptron that has learned from all labels."""
    torch.manual_seed(0)
    model = MLP([800, 400], data.pixels, data.num_classes, dropout=0.3)
    images, target = data.train_data()
    inputs = (images.float() / 255 - data.mean[0]) / data.std[0]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    steps = epochs * (len(inputs) // 256)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(epochs):
        for index in torch.randperm(len(inputs))[: len(inputs) // 256 * 256].split(256):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs[index]), target[index]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def member(data: FashionRows, seed: int, temperature: float | None, epochs: int) -> Member:
    """A student; without a temperature it learns from the labels alone."""
    torch.manual_seed(seed)
    student = MLP([128], data.pixels, data.num_classes)
    soft = 0.0 if temperature is None else 0.9
    method = Method({"kd": SoftTargetLoss(temperature or 1.0)}, {"task": 1.0 - soft, "kd": soft}, temperature)
    schedule = functools.partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=epochs)
    return Member(student, method, ClassificationTask(), optimizer=ADAM, scheduler=schedule, seed=seed)


def learned(answers: object, data: FashionRows, members: list[Member], epochs: int) -> list[float]:
    """Test accuracies, in %, of members that were trained in lockstep."""
    trainer = pl.Trainer(
        max_epochs=epochs, limit_val_batches=0, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Distiller(answers, members, [Recorder() for _ in members]), data.train_dataloader())
    images, target = data.test_data()
    inputs = (images.float() / 255 - data.mean[0]) / data.std[0]
    with torch.no_grad():
        return [100 * float((m.student.eval()(inputs).argmax(1) == target).float().mean()) for m in members]


def shown(values: list[float], beside: list[float] | None = None) -> str:
    """Mean and standard deviation; the mean difference to other values of the same seeds and its standard error."""
    text = f"{statistics.mean(values):6.2f} ± {statistics.stdev(values):.2f} %"
    if beside is None:
        return text
    gaps = [a - b for a, b in zip(values, beside, strict=True)]
    return f"{text}, {statistics.mean(gaps):+.2f} ± {statistics.stdev(gaps) / len(gaps) ** 0.5:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=2, choices=(2, 3))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--teacher-epochs", type=int, default=15)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    for logger in ("pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    settings = {"batch_size": 128, "augment": {"crop_padding": 1, "flip": False}, "views": 0}
    data = FashionRows(options.pictures, **settings, train_size=6000)
    data.setup("fit")
    teacher = FrozenTeacher(trained_teacher(data, options.teacher_epochs))
    images, target = data.test_data()
    with torch.no_grad():
        answers = teacher.module((images.float() / 255 - data.mean[0]) / data.std[0])
    mass = answers.softmax(1).topk(10).values.sum(1).mean()
    right = 100 * float((answers.argmax(1) == target).float().mean())
    print(f"torch {torch.__version__}; teacher {right:.1f} %, its 10 likeliest classes hold {mass:.3f}", flush=True)
    seeds, epochs = range(options.seeds), options.epochs
    alone = learned(teacher, data, [member(data, seed, None, epochs) for seed in seeds], epochs)
    print(f"labels alone {shown(alone)}; n = {len(seeds)}", flush=True)
    first: dict[float, list[float]] = {}
    with tempfile.TemporaryDirectory() as directory:
        for form in FORMS if options.pictures == 2 else FORMS_OF_1000:
            cached = open_or_write_cache(
                teacher, data, directory, epochs=epochs, precision=form.precision, top_k=form.top_k
            )
            assert isinstance(cached, CachedTeacher)
            size = Path(cached.store.paths(0)[0]).stat().st_size
            print(f"{form.name}: {size / data.train_samples:.1f} bytes a sample, {size:,} a view", flush=True)
            for temperature in TEMPERATURES[options.pictures]:
                found = learned(cached, data, [member(data, seed, temperature, epochs) for seed in seeds], epochs)
                beside = first.setdefault(temperature, found)
                print(f"  temperature {temperature:g}: {shown(found, None if found is beside else beside)}", flush=True)


if __name__ == "__main__":
    main()
