"""Models as a user has them: at the top of a module."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Net(nn.Module):
    def __init__(self, in_features: int, num_classes: int, width: int = 6) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(in_features, width), nn.Linear(width, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(torch.relu(self.hidden(inputs)))


def blobs(rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Three clouds of points in eight dimensions."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.arange(rows) % 3
    centres = torch.randn(3, 8, generator=torch.Generator().manual_seed(7))
    return centres[target] + 0.7 * torch.randn(rows, 8, generator=generator), target


def trained(width: int = 32) -> nn.Module:
    """A teacher that knows them."""
    torch.manual_seed(0)
    inputs, target = blobs(300, seed=1)
    model = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 3))
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), target).backward()
        optimizer.step()
    return model
