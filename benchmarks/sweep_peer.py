"""The run that a sweep elsewhere is made of: an ordinary Lightning project, as the tutorials write it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms


class Pictures(Dataset):
    """Byte pictures with torchvision's transforms, one sample at a time.

    Args:
        images: uint8 (N, H, W).
        target: (N,).
        size: of the random crop.
    """

    def __init__(self, images: torch.Tensor, target: torch.Tensor, size: int) -> None:
        self.images, self.target = images.numpy(), target
        self.transform = transforms.Compose(
            [
                transforms.ToPILImage(),
                transforms.RandomCrop(size, padding=2),
                transforms.ToTensor(),
                transforms.Normalize(0.286, 0.353),
            ]
        )

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.transform(self.images[index]), self.target[index]


class OrdinaryDistillation(pl.LightningModule):
    """Teacher and student in one module, ``self.log`` at every step."""

    def __init__(self, teacher: nn.Module, student: nn.Module, temperature: float, weight: float, rate: float) -> None:
        super().__init__()
        self.teacher, self.student = teacher, student
        self.temperature, self.weight, self.rate = temperature, weight, rate
        self.teacher.eval().requires_grad_(False)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        inputs, target = batch
        self.teacher.eval()
        with torch.no_grad():
            taught = self.teacher(inputs)
        logits, t = self.student(inputs), self.temperature
        soft = F.kl_div(F.log_softmax(logits / t, 1), F.softmax(taught / t, 1), reduction="batchmean") * t * t
        hard = F.cross_entropy(logits, target)
        loss = self.weight * soft + (1 - self.weight) * hard
        self.log("train/loss", loss)
        self.log("train/soft", soft)
        self.log("train/acc", (logits.argmax(1) == target).float().mean())
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        inputs, target = batch
        self.log("val/acc", (self.student(inputs).argmax(1) == target).float().mean())

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(
            self.student.parameters(), self.rate, momentum=0.9, nesterov=True, weight_decay=5e-4
        )
        total = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=self.rate, total_steps=total)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def ordinary_run(
    teacher: Callable[[], nn.Module],
    student: Callable[[], nn.Module],
    train: tuple[torch.Tensor, torch.Tensor],
    val: tuple[torch.Tensor, torch.Tensor],
    batch_size: int,
    epochs: int,
) -> None:
    """One such run on byte images (N, H, W), without training a teacher."""
    size = train[0].shape[-1]
    loaders = [
        DataLoader(Pictures(*train, size), batch_size, shuffle=True, drop_last=True),
        DataLoader(Pictures(*val, size), 512),
    ]
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=epochs, accelerator="cpu", default_root_dir=folder, enable_progress_bar=False,
            enable_model_summary=False, num_sanity_val_steps=0,
        )  # fmt: skip
        trainer.fit(OrdinaryDistillation(teacher(), student(), 4.0, 0.9, 0.05), *loaders)
