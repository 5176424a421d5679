"""A small real data module, a teacher for it, and a process that writes their cache: shared by the cache's tests."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

from kd_lightning.data.module import DistillationDataModule
from kd_lightning.teachers.cache.opening import open_or_write_cache
from kd_lightning.teachers.frozen import FrozenTeacher
from kd_lightning.teachers.wrapper import TeacherWrapper

SAMPLES, CLASSES = 300, 6


class TinyImages(DistillationDataModule):
    """300 noise images of 1 x 8 x 8 in 6 classes; 30 of them are validation."""

    num_classes, in_channels, image_size, mean, std = CLASSES, 1, 8, [0.5], [0.3]

    def __init__(self, content: int = 0, **settings) -> None:
        super().__init__(**{"batch_size": 32, "augment": {"crop_padding": 2, "flip": True}, "views": 4, **settings})
        self.content = content

    def train_data(self):
        generator = torch.Generator().manual_seed(self.content)
        images = torch.randint(0, 256, (SAMPLES, 1, 8, 8), generator=generator, dtype=torch.uint8)
        return images, torch.arange(SAMPLES) % CLASSES

    def test_data(self):
        return self.train_data()


def make_teacher(seed: int = 0, **settings) -> FrozenTeacher:
    """A perceptron with weights from ``seed``."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, CLASSES))
    return FrozenTeacher(model, **settings)


class Counting(TeacherWrapper):
    """A teacher that counts the samples it was asked about."""

    def __init__(self, teacher: FrozenTeacher) -> None:
        super().__init__(teacher)
        self.samples = 0

    def __call__(self, batch):
        self.samples += len(batch.inputs)
        return self.teacher(batch)


class StandingStill(Counting):
    """A teacher that stops its process (SIGSTOP) in the middle of writing a view."""

    def __init__(self, teacher: FrozenTeacher, view: int) -> None:
        super().__init__(teacher)
        self.limit = (SAMPLES - 30) * view + 100

    def __call__(self, batch):
        answer = super().__call__(batch)
        if self.samples > self.limit:
            self.limit = float("inf")
            os.kill(os.getpid(), signal.SIGSTOP)
        return answer


def opened(directory: Path | str, teacher=None, data: TinyImages | None = None, **settings):
    """What ``open_or_write_cache`` gives for the directory, asked explicitly unless ``mode`` is given."""
    settings = {"mode": str(directory), "epochs": 8, **settings}
    return open_or_write_cache(teacher or make_teacher(), data or TinyImages(), directory=directory, **settings)


if __name__ == "__main__":  # python cache_setup.py DIRECTORY [VIEW]: write the cache, and stand still in that view
    teacher = StandingStill(make_teacher(), int(sys.argv[2])) if len(sys.argv) > 2 else make_teacher()
    opened(sys.argv[1], teacher, announce=lambda line: print(line, flush=True))
    print("opened", flush=True)
