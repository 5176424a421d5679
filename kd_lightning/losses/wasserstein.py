"""Wasserstein distillation (WKD: Lv et al. 2024, arXiv:2412.08139): mass between like classes is cheap to move.

KL compares each class with itself only. The Wasserstein distance lets probability move between classes at a cost that
grows with how unlike they are; features are compared as Gaussians.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.adapters import bottleneck_between, of_equal_size
from kd_lightning.losses.classes import class_numbers, mean_over_labelled, other_classes
from kd_lightning.losses.heads import class_similarity_cost, classifier_of
from kd_lightning.losses.inputs import (
    checked_temperature,
    exactly,
    full_precision,
    paired_logits,
    paired_maps,
    require_rows,
)
from kd_lightning.outputs import ModelOutput

EPSILON = 1e-8  # added to divisors and cost, as the authors do


def transport_cost(student: Tensor, teacher: Tensor, cost: Tensor, sharpness: float, iterations: int) -> Tensor:
    """Entropic transport cost between distributions (N, C) by Sinkhorn's iterations; shape (N,).

    Args:
        student, teacher: probabilities.
        cost: (C, C), or (N, C, C); negative entries count as 0.
        sharpness: the regularisation lambda, > 0: ``K = exp(-cost / lambda)``.
        iterations: >= 1; the gradient goes through them.
    """
    with exactly(student):
        return _transport_cost(student, teacher, cost.clamp(min=0) + EPSILON, sharpness, iterations)


def _transport_cost(student: Tensor, teacher: Tensor, cost: Tensor, sharpness: float, iterations: int) -> Tensor:
    kernel = (-cost / sharpness).exp()
    kernel = kernel.expand(len(student), *kernel.shape[-2:])
    u = v = torch.full_like(student, 1 / student.shape[1])
    for _ in range(iterations):
        v = teacher / ((kernel.transpose(1, 2) @ u[:, :, None]).squeeze(2) + EPSILON)
        u = student / ((kernel @ v[:, :, None]).squeeze(2) + EPSILON)
    return (u[:, :, None] * kernel * v[:, None, :] * cost).sum(dim=(1, 2))


class WassersteinLogitLoss(nn.Module):
    """Mean Wasserstein distance of softened probabilities (WKD-L), over all classes or those that are not the true one.

    The cost of moving from class to class is ``1 - exp(-2 (1 - cos))`` of the teacher's classifier rows (:meth:`bind`),
    unless given. Without a factor T^2. The paper's whole loss is this with ``others`` (weight gamma), beside
    :class:`kd_lightning.losses.nkd.ConfidenceLoss` for the true class.

    Args:
        temperature: softening T, > 0.
        sharpness: regularisation lambda of the transport, > 0.
        iterations: of Sinkhorn, >= 1.
        others: only the classes that are not the true one; unlabelled samples are left out then.
    """

    cost: Tensor | None

    def __init__(
        self, temperature: float = 2.0, sharpness: float = 0.05, iterations: int = 10, others: bool = True
    ) -> None:
        super().__init__()
        if not sharpness > 0 or iterations < 1:
            raise UserError(f"sharpness must be > 0 and iterations >= 1, got {sharpness} and {iterations}")
        self.temperature = checked_temperature(temperature)
        self.sharpness, self.iterations, self.others = float(sharpness), iterations, others
        self.register_buffer("cost", None)

    def bind(self, student_model: nn.Module, teacher_model: nn.Module) -> None:
        """Take the costs from the teacher's classifier; a second call changes nothing."""
        if self.cost is None:
            self.cost = class_similarity_cost(classifier_of(teacher_model, "teacher"))

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Logits of shape (N, C), target of shape (N,); returns a scalar >= 0."""
        if self.cost is None:
            raise RuntimeError("WassersteinLogitLoss has no costs yet: call bind(student_model, teacher_model) first")
        require_rows(student.logits, "WKD-L")
        logits = paired_logits(student, teacher)
        cost = self.cost.to(logits[0].dtype)
        if cost.shape[-1] != logits[0].shape[1]:
            raise UserError(
                f"the teacher's classifier has {cost.shape[-1]} rows, the logits {logits[0].shape[1]} classes"
            )
        if not self.others:
            p, q = ((values / self.temperature).softmax(dim=1) for values in logits)
            return transport_cost(p, q, cost, self.sharpness, self.iterations).mean()
        numbers = class_numbers(target).clamp(min=0)
        p, q = ((other_classes(values, numbers) / self.temperature).softmax(dim=1) for values in logits)
        rows = torch.arange(cost.shape[0] - 1, device=cost.device)[None]
        rows = rows + (rows >= numbers[:, None])
        costs = cost[rows[:, :, None], rows[:, None, :]]
        return mean_over_labelled(transport_cost(p, q, costs, self.sharpness, self.iterations), target)


class WassersteinFeatureLoss(nn.Module):
    """Distance of the maps' means and standard deviations, in a grid of regions (WKD-F, diagonal covariances).

    ``loss = sum (ratio |mu_s - mu_t|^2 + |sd_s - sd_t|^2) / (g^2 N)`` over channels and regions.

    Args:
        tap: for both models; maps (N, C, H, W) of equal sizes after the adapter.
        grid: g, regions a side, >= 1.
        ratio: weight of the means, >= 0.
        epsilon: added to variances, > 0.
        adapter: map the student's channels to the teacher's by a 1x1 convolution, BatchNorm and ReLU.
        bottleneck: channels inside an adapter of three convolutions in its place; None: one convolution.
    """

    takes_mixed = True
    requires = frozenset({"features"})

    def __init__(
        self,
        tap: str = "hint",
        grid: int = 1,
        ratio: float = 2.0,
        epsilon: float = 1e-5,
        adapter: bool = True,
        bottleneck: int | None = None,
    ) -> None:
        super().__init__()
        if grid < 1 or not epsilon > 0:
            raise UserError(f"grid must be >= 1 and epsilon > 0, got {grid} and {epsilon}")
        self.tap, self.grid, self.ratio, self.epsilon = tap, grid, float(ratio), float(epsilon)
        self.bottleneck = bottleneck
        self.adapter: nn.Module | None = None if adapter else nn.Identity()

    def prepare(self, student: ModelOutput, teacher: ModelOutput) -> None:
        """Build the adapter for the shapes of these features; a second call changes nothing."""
        if self.adapter is None:
            guided, hint = of_equal_size(*paired_maps(student, teacher, self.tap))
            if self.bottleneck is not None:
                self.adapter = bottleneck_between(guided, hint, self.bottleneck)
                return
            self.adapter = nn.Sequential(
                nn.Conv2d(guided.shape[1], hint.shape[1], 1), nn.BatchNorm2d(hint.shape[1]), nn.ReLU()
            ).to(guided.device)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Maps (N, C, H, W) under the tap's name; returns a scalar >= 0."""
        if self.adapter is None:
            raise RuntimeError("WassersteinFeatureLoss has no adapter yet: call prepare(student, teacher) first")
        guided, hint = of_equal_size(*paired_maps(student, teacher, self.tap))
        guided = full_precision(self.adapter(guided))
        if guided.shape[1] != hint.shape[1]:
            raise UserError(
                f"tap {self.tap!r}: {guided.shape[1]} channels of the student, {hint.shape[1]} of the teacher"
            )
        (mean, deviation), (mean_t, deviation_t) = (self._moments(maps) for maps in (guided, hint))
        total = self.ratio * (mean - mean_t).square().sum() + (deviation - deviation_t).square().sum()
        return total / (self.grid**2 * len(guided))

    def _moments(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Means and standard deviations of the regions, both (N, C, g, g)."""
        rows, columns = ([_window(k, self.grid, size) for k in range(self.grid)] for size in maps.shape[2:])
        means, deviations = [], []
        for top, bottom in rows:
            for left, right in columns:
                part = maps[:, :, top:bottom, left:right].flatten(2)
                means.append(part.mean(dim=2))
                unbiased = part.var(dim=2) if part.shape[2] > 1 else torch.zeros_like(means[-1])
                deviations.append((unbiased + self.epsilon).sqrt())
        return torch.stack(means), torch.stack(deviations)


def _window(k: int, grid: int, size: int) -> tuple[int, int]:
    """First and last + 1 position of the k-th of ``grid`` windows that cover ``size``, as adaptive pooling has them."""
    return k * size // grid, -(-(k + 1) * size // grid)
