"""Tasks whose samples are no labelled images train with pictures on, from a user's own folder."""

from __future__ import annotations

import json

import pytest
from processes import run

MODELS = '''
import torch
from torch import nn
from torch.utils.data import Dataset


class Pixels(Dataset):
    """12 x 12 noise; a pixel's class is whether it is positive."""

    def __init__(self):
        self.x = torch.randn(160, 1, 12, 12, generator=torch.Generator().manual_seed(0))
        self.targets = (self.x[:, 0] > 0).long()

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index], self.targets[index]


class Brightness(Pixels):
    """The same pictures with their mean as a value to be told."""

    def __init__(self):
        super().__init__()
        self.targets = 20 * self.x.mean((1, 2, 3))


def pixelwise(width, num_classes):
    return nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, num_classes, 1))


def pooled(width, num_classes):
    return nn.Sequential(pixelwise(width, num_classes), nn.AdaptiveAvgPool2d(1), nn.Flatten())
'''
TEACHER = """defaults: [none]
name: wide
model: {{_target_: my_pixels.{model}, width: 8}}
train:
  max_epochs: 2
  seed: 0
  optimizer: {{_target_: torch.optim.AdamW, _partial_: true, lr: 0.003}}
  scheduler: null
  scheduler_interval: step
data: {{}}
"""
DATA = "defaults: [dataset]\ntrain: {{_target_: my_pixels.{data}}}\nval_size: 40\nbatch_size: 32\n"
REGRESSION = """_target_: kd_lightning.tasks.collection.CollectionTask
name: regression
monitor: rmse
loss: {_target_: torch.nn.MSELoss}
metrics: {rmse: {_target_: torchmetrics.MeanSquaredError, squared: false}}
"""


@pytest.mark.parametrize(
    ("data", "model", "words"),
    [
        ("Pixels", "pixelwise", ("method=kd",)),
        ("Brightness", "pooled", ("method=logits_mse", "task=regression")),
    ],
    ids=["segmentation", "regression on images"],
)
def test_images_without_a_class_each_train_with_pictures_on(tmp_path, data, model, words):
    files = {
        "my_pixels.py": MODELS,
        "mine/data/pixels.yaml": DATA.format(data=data),
        "mine/teacher/wide.yaml": TEACHER.format(model=model),
        "mine/student/narrow.yaml": f"_target_: my_pixels.{model}\nwidth: 2\n",
        "mine/task/regression.yaml": REGRESSION,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    mine = ("--config-dir", "mine", "data=pixels", "teacher=wide", "student=narrow", *words)
    ended = run(tmp_path, *mine, "trainer.max_epochs=2", "pictures.every_n_epochs=1", "baseline=false", "run_dir=r")
    assert ended.code == 0, ended.text
    assert "no pictures" not in ended.text
    assert json.loads((tmp_path / "r" / "result.json").read_text())["status"] == "finished"
