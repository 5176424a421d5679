"""Contrastive representation distillation (CRD: Tian et al. 2020, arXiv:1910.10699): tell the sample's own pair apart.

A sample's two embeddings, one of each model, are to be alike, and unlike those of other samples. The others come from
memories of all training samples, one row each, which is why this loss asks for the samples' positions.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.classes import class_numbers
from kd_lightning.losses.embeddings import EmbeddingPair
from kd_lightning.losses.inputs import as_reference, exactly, full_precision
from kd_lightning.outputs import ModelOutput

EPSILON = 1e-7
ROUNDS = 40  # of drawing anew: with two equal classes one in 1e12 negatives is left of the sample's own


class ContrastiveLoss(EmbeddingPair):
    """Noise-contrastive estimation in both directions, with memories of all training samples.

    With ``d(a, b) = exp(a b / T) / Z`` and M = K / samples, for each direction
    ``-mean_i ( log d_i0 / (d_i0 + M) + sum_k log M / (d_ik + M) )``: index 0 is the sample's own row of the other
    model's memory, K others are drawn at random. Z is fixed by the first batch: the mean of ``exp`` times the samples.
    Rows move by ``m * row + (1 - m) * embedding``. Embeddings are linear maps to unit vectors.

    The memories (2 x samples x dimension numbers) travel in the run's checkpoint, not in the exported student.

    Args:
        train_samples: number of training samples; ``auto`` in a configuration takes it from the data.
        tap: of both models' last features; maps are averaged. None: the outputs themselves.
        dimension: of the embeddings, >= 1.
        negatives: K, >= 1; the paper's 16384 for CIFAR-100.
        temperature: T > 0.
        momentum: m in [0, 1) of the memories.
        other_classes: draw the K from samples with another label only, as the authors' loader does for their tables (in
            the first epoch, of those whose label has been seen). False: from all, the paper's form without labels.
    """

    takes_mixed = True
    labels: Tensor
    memory_student: Tensor
    memory_teacher: Tensor
    constants: Tensor

    def __init__(
        self,
        train_samples: int,
        tap: str | None = None,
        dimension: int = 128,
        negatives: int = 4096,
        temperature: float = 0.07,
        momentum: float = 0.5,
        other_classes: bool = False,
    ) -> None:
        super().__init__(tap, same_length=False)
        if train_samples < 2 or dimension < 1 or negatives < 1 or not temperature > 0 or not 0 <= momentum < 1:
            raise UserError(
                "ContrastiveLoss needs train_samples >= 2, dimension and negatives >= 1, temperature > 0 and momentum in "
                f"[0, 1), got {train_samples}, {dimension}, {negatives}, {temperature}, {momentum}"
            )
        self.samples, self.dimension, self.negatives = train_samples, dimension, negatives
        self.temperature, self.momentum = float(temperature), float(momentum)
        bound = 1 / math.sqrt(dimension / 3)
        for name in ("memory_student", "memory_teacher"):
            self.register_buffer(name, torch.empty(train_samples, dimension).uniform_(-bound, bound))
        self.register_buffer("constants", torch.full((2,), -1.0))
        self.other_classes = other_classes
        self.takes_mixed = not other_classes  # which class a mixed sample is of nobody can say
        if other_classes:
            self.register_buffer("labels", torch.full((train_samples,), -1))
        self.embed_student: nn.Linear | None = None
        self.embed_teacher: nn.Linear | None = None

    def prepare(self, student: ModelOutput, teacher: ModelOutput) -> None:
        """Build the linear maps for the shapes of these outputs; a second call changes nothing."""
        if self.embed_student is None:
            ours, theirs = self.raw(student), self.raw(teacher)
            self.embed_student = nn.Linear(ours.shape[1], self.dimension).to(ours.device)
            self.embed_teacher = nn.Linear(theirs.shape[1], self.dimension).to(ours.device)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor, index: Tensor) -> Tensor:
        """Embeddings' sources under the tap's name and the samples' positions (N,); returns a scalar >= 0."""
        if len(index) and int(index.max()) >= self.samples:
            raise UserError(f"train_samples={self.samples}, but a sample is number {int(index.max())}: give all")
        drawn = torch.randint(self.samples, (len(index), self.negatives), device=index.device)
        if self.other_classes:
            self.labels, numbers = _noted(self.labels, index, target)
            drawn = _of_other_classes(drawn, self.labels, numbers)
        return self.against(student, teacher, index, torch.cat([index[:, None], drawn], dim=1))

    def against(self, student: ModelOutput, teacher: ModelOutput, index: Tensor, compared: Tensor) -> Tensor:
        """The loss with given rows (N, 1 + K) to compare with, the first the sample's own."""
        if self.embed_student is None or self.embed_teacher is None:
            raise RuntimeError("ContrastiveLoss has no maps yet: call prepare(student, teacher) with examples first")
        ours = _unit(full_precision(self.embed_student(self.raw(student))))
        theirs = _unit(full_precision(self.embed_teacher(as_reference(self.raw(teacher)))))
        memories = [memory[compared].to(ours.dtype) for memory in (self.memory_student, self.memory_teacher)]
        with exactly(ours):
            products = [
                (memory @ rows[:, :, None]).squeeze(2) for memory, rows in ((memories[1], ours), (memories[0], theirs))
            ]
        scores = (torch.stack(products) / self.temperature).exp()
        if float(self.constants[0]) < 0:
            self.constants = (scores.detach().mean(dim=(1, 2)) * self.samples).to(self.constants)
        scores = scores / self.constants.to(scores.dtype)[:, None, None]
        if self.training:
            self._remember(index, ours, theirs)
        return torch.stack([_estimation(part, compared.shape[1] - 1, self.samples) for part in scores]).sum()

    @torch.no_grad()
    def _remember(self, index: Tensor, ours: Tensor, theirs: Tensor) -> None:
        for name, rows in (("memory_student", ours), ("memory_teacher", theirs)):
            memory = getattr(self, name).clone()
            moved = memory[index] * self.momentum + rows.to(memory) * (1 - self.momentum)
            memory[index] = F.normalize(moved, dim=1)
            setattr(self, name, memory)


def _noted(labels: Tensor, index: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The labels of all samples with those of a batch filled in, and the batch's, (N,)."""
    numbers = class_numbers(target)
    if numbers.is_floating_point():
        raise UserError(
            "other_classes: true draws by class numbers, and these targets have none: set other_classes: false"
        )
    labels = labels.clone()
    labels[index] = numbers.to(labels)
    return labels, numbers


def _of_other_classes(drawn: Tensor, labels: Tensor, numbers: Tensor) -> Tensor:
    """Negatives (N, K), those with their sample's own label drawn anew."""
    for _ in range(ROUNDS):
        same = (labels[drawn] == numbers[:, None]) & (numbers[:, None] >= 0)
        if not same.any():
            break
        drawn = drawn.masked_scatter(same, torch.randint_like(drawn, len(labels)))
    return drawn


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.square().sum(dim=1, keepdim=True).sqrt()


def _estimation(scores: Tensor, negatives: int, samples: int) -> Tensor:
    """Noise-contrastive loss of (N, 1 + K) scores, the first of the true pair."""
    noise = negatives / samples
    true = scores[:, 0] / (scores[:, 0] + noise + EPSILON)
    false = noise / (scores[:, 1:] + noise + EPSILON)
    return -(true.log().sum() + false.log().sum()) / len(scores)
