"""Instance relationship graph (IRG: Liu et al. 2019, CVPR): samples, their relations, and how these change by layer."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.adapters import of_equal_size
from kd_lightning.losses.inputs import exactly, paired_features, paired_logits, paired_maps
from kd_lightning.outputs import ModelOutput

EPSILON = 1e-12  # smallest squared distance


def relations(features: Tensor) -> Tensor:
    """Squared distances between samples over their largest: (N, ...) give (N, N)."""
    rows = features.flatten(1)
    squares = rows.square().sum(dim=1)
    distances = (squares[:, None] + squares - 2 * rows @ rows.T).clamp(min=EPSILON)
    return distances / distances.max()


def transformation(first: Tensor, second: Tensor) -> Tensor:
    """Squared distance that each sample moves between two layers, over the largest: (N, C, H, W) each give (N,).

    The larger map is averaged down, and the wider one's neighbouring channels to the narrower's number where it is a multiple.
    """
    first, second = of_equal_size(first, second)
    if second.shape[1] % first.shape[1] == 0 and second.shape[1] != first.shape[1]:
        n, channels, height, width = second.shape
        factor = channels // first.shape[1]
        second = second.view(n, first.shape[1], factor, height, width).mean(dim=2)
    if first.shape != second.shape:
        raise UserError(f"IRG needs taps whose channels divide each other, got {first.shape[1]} and {second.shape[1]}")
    moved = (first - second).flatten(1).square().sum(dim=1)
    return moved / moved.max()


class InstanceGraphLoss(nn.Module):
    """Vertices, edges and transformations: ``w_v mse(logits) + w_e mean_k edge_k + w_t transformation``.

    ``edge_k`` is the mean squared difference of :func:`relations` at the two maps and the vector, over three.

    Args:
        first, second: taps of two maps (N, C, H, W), shallow and deep, in both models.
        vector: tap of the pooled features (N, D).
        vertices, edges, transformations: weights >= 0.
    """

    takes_mixed = True
    tap_arguments = ("first", "second", "vector")

    def __init__(
        self,
        first: str = "first",
        second: str = "second",
        vector: str = "vector",
        vertices: float = 0.1,
        edges: float = 5.0,
        transformations: float = 5.0,
    ) -> None:
        super().__init__()
        self.taps = (first, second, vector)
        self.vertices, self.edges, self.transformations = float(vertices), float(edges), float(transformations)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Logits (N, C) and features under the taps' names; returns a scalar >= 0."""
        pairs = [paired_maps(student, teacher, tap, "IRG") for tap in self.taps[:2]]
        pairs.append(paired_features(student, teacher, self.taps[2]))
        with exactly(student.logits):
            vertices = F.mse_loss(*paired_logits(student, teacher))
            edges = sum((relations(ours) - relations(theirs)).square().mean() for ours, theirs in pairs) / 3
            moved = [transformation(pairs[0][role], pairs[1][role]) for role in (0, 1)]
            change = (moved[0] - moved[1]).square().mean()
        return self.vertices * vertices + self.edges * edges + self.transformations * change
