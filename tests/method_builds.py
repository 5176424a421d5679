"""Every shipped method, built, and one step of it as the Distiller computes it."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import OmegaConf

from kd_lightning.batch import Batch
from kd_lightning.joints import Clock
from kd_lightning.method import Method
from kd_lightning.models.mlp import MLP
from kd_lightning.models.resnet_cifar import resnet8, resnet14
from kd_lightning.models.small_cnn import SmallCNN
from kd_lightning.taps import Taps

ALL = sorted((Path(__file__).resolve().parents[1] / "conf" / "method").glob("*.yaml"), key=lambda path: path.stem)
OF_VALUES = {"ail", "bounded", "gaussian_kl", "huber", "mse", "outlier_aware"}
"""Methods for a regression's answers: tests/losses/test_value_losses.py."""
OF_MASKS = {"cwd_logits"}
"""Methods for an answer in every pixel: tests/running/test_segmentation_runs.py."""
METHODS = [path for path in ALL if path.stem not in OF_VALUES | OF_MASKS]
"""Methods for classes."""
# What to tap in the CIFAR ResNets, by the layer that a method taps in the small networks.
RESNET_LAYERS = {"hidden.0": "layer1", "hidden": "pool", "blocks.0": "layer1", "blocks.1": "layer2", "layer3": "layer3"}
OF_EQUAL_WIDTH = {"fsp", "kdsvd"}  # compare layers of equal channels


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def built(path: Path, overrides: dict | None = None) -> Method:
    config = OmegaConf.create({"method": OmegaConf.load(path), "data": {"batch_size": 8}})
    config = OmegaConf.merge(config, overrides or {})
    for term in config.method.terms.values():
        if term.get("train_samples") == "auto":
            term.train_samples = 100
    return instantiate(config.method)


def one_step(
    method: Method,
    student: torch.nn.Module,
    teacher: torch.nn.Module,
    inputs: torch.Tensor,
    other: torch.Tensor | None = None,
    target: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """Loss and gradients of one batch, as the Distiller computes them; ``other``: its second view."""
    if target is None:
        target = torch.tensor([0, 1, 2, 3, 4, -1, 6, 7])
    taps = Taps(student, method.taps["student"])
    teacher_taps = Taps(teacher.eval(), method.taps["teacher"], role="teacher")
    if other is None:
        other = inputs + 0.1 * torch.randn_like(inputs)
    with torch.no_grad():
        teacher_output, teacher_other = teacher_taps(teacher, inputs), teacher_taps(teacher, other)
        method.bind(student, teacher)
        method.prepare(taps(student.eval(), inputs[:2]), teacher_taps(teacher, inputs[:2]))
    output = taps(student.train(), inputs)
    views = [(taps(student, other), teacher_other)] if method.wants_views else []
    task_loss = F.cross_entropy(output.logits, target, ignore_index=-1)
    batch = Batch(inputs, target, torch.arange(len(inputs), device=inputs.device), split="train")
    clock = Clock(epoch=9, step=100, total_steps=1000, steps_per_epoch=10)
    total, parts = method(output, teacher_output, target, task_loss, clock=clock, batch=batch, views=views)
    total.backward()
    assert torch.isfinite(total)
    return parts


def tapped(path: Path) -> dict[str, set[str]]:
    """The layers that a method names, by the model that has to have them."""
    node = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    parts = [node.get("wrap") or {}, *node["terms"].values()]
    ours = {part["layer"] for part in parts if "layer" in part}
    return {"student": ours | set(node["taps"]["student"].values()), "teacher": set(node["taps"]["teacher"].values())}


def networks(path: Path) -> tuple[torch.nn.Module, torch.nn.Module]:
    """A student and a teacher of 8x8 images and 10 classes that have the layers which the method taps."""
    wanted = tapped(path)
    width = [8, 16] if path.stem in OF_EQUAL_WIDTH else [32, 64]
    students = (lambda: MLP([20], 64, 10), lambda: SmallCNN([8, 16], 32, 1, 10, 8), lambda: resnet8(10, 1))
    teachers = (lambda: SmallCNN(width, 128, 1, 10, 8, dropout=0.4), lambda: resnet14(10, 1))
    student, teacher = (
        next(made for made in (make() for make in makers) if wanted[role] <= dict(made.named_modules()).keys())
        for role, makers in (("student", students), ("teacher", teachers))
    )
    wrap = built(path).wrap
    if wrap is not None:
        student = wrap(student, teacher=teacher, example=torch.zeros(2, 1, 8, 8))
    return student, teacher
