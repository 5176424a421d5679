"""Deep embedded clustering (DEC: Xie, Girshick & Farhadi 2016, arXiv:1511.06335): an encoder and its clusters, learned together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.rng import RngStream


class DeepEmbeddedClustering:
    """An estimator as scikit-learn's: ``fit(rows)``, then ``predict_proba(rows)``, for ``teacher.clusterer``.

    First an autoencoder learns to reconstruct the samples (mean squared error); k-means of its codes z gives the centres
    m_k. Then encoder and centres learn to sharpen their own soft assignments:

    ``q_ik ~ (1 + |z_i - m_k|^2)^-1``, ``p_ik ~ q_ik^2 / sum_i q_ik``, ``loss = mean_i KL(p_i || q_i) + reconstruction * mse``.

    The targets p are renewed each epoch. With ``reconstruction`` > 0 the decoder keeps the codes from collapsing (IDEC: Guo
    et al. 2017); 0 is the paper's.

    Args:
        n_clusters: K, >= 2.
        hidden: widths of the encoder's layers; the decoder's are the same in reverse.
        code: length of z, >= 1.
        pretrain_epochs, epochs: of the two stages, >= 0.
        batch_size: samples a step, >= 1.
        lr: of Adam, > 0.
        reconstruction: weight of the autoencoder's loss in the second stage, >= 0.
        random_state: of initial weights and order.
    """

    def __init__(
        self,
        n_clusters: int = 10,
        hidden: Sequence[int] = (256, 128),
        code: int = 10,
        pretrain_epochs: int = 40,
        epochs: int = 20,
        batch_size: int = 128,
        lr: float = 0.001,
        reconstruction: float = 0.1,
        random_state: int = 0,
    ) -> None:
        if n_clusters < 2:
            raise UserError(f"n_clusters must be >= 2, got {n_clusters}")
        self.n_clusters, self.hidden, self.code = n_clusters, list(hidden), code
        self.pretrain_epochs, self.epochs, self.batch_size = pretrain_epochs, epochs, batch_size
        self.lr, self.reconstruction, self.random_state = lr, reconstruction, random_state
        self.encoder: nn.Module = nn.Identity()
        self.centres = torch.zeros(0, 0)

    def fit(self, rows: np.ndarray) -> DeepEmbeddedClustering:
        """Learn from samples (N, D)."""
        from sklearn.cluster import KMeans

        values = torch.as_tensor(rows, dtype=torch.float32)
        self.mean, self.scale = values.mean(0), values.std().clamp_min(1e-12)
        values = (values - self.mean) / self.scale
        generator = torch.Generator().manual_seed(self.random_state)
        with RngStream(self.random_state), torch.enable_grad():
            widths = [values.shape[1], *self.hidden, self.code]
            self.encoder, decoder = _layers(widths), _layers(widths[::-1])
            both = [*self.encoder.parameters(), *decoder.parameters()]
            optimizer = torch.optim.Adam(both, self.lr)
            for _ in range(self.pretrain_epochs):
                for index in self._batches(len(values), generator):
                    _step(optimizer, F.mse_loss(decoder(self.encoder(values[index])), values[index]))
            with torch.no_grad():
                codes = self.encoder(values)
            found = KMeans(self.n_clusters, n_init=10, random_state=self.random_state).fit(codes.numpy())
            centres = nn.Parameter(torch.from_numpy(found.cluster_centers_).float())
            optimizer = torch.optim.Adam([*both, centres], self.lr)
            for _ in range(self.epochs):
                with torch.no_grad():
                    wanted = sharpened(assignments(self.encoder(values), centres))
                for index in self._batches(len(values), generator):
                    codes = self.encoder(values[index])
                    loss = F.kl_div(assignments(codes, centres).log(), wanted[index], reduction="batchmean")
                    if self.reconstruction > 0:
                        loss = loss + self.reconstruction * F.mse_loss(decoder(codes), values[index])
                    _step(optimizer, loss)
        self.centres = centres.detach()
        self.encoder.requires_grad_(False)
        self.n_numbers_ = sum(p.numel() for p in self.encoder.parameters()) + self.centres.numel()
        self.weights_ = np.concatenate([p.numpy().ravel() for p in [*self.encoder.parameters(), self.centres]])
        return self

    def predict_proba(self, rows: np.ndarray) -> np.ndarray:
        """Soft assignments (N, K) of samples (N, D)."""
        values = (torch.as_tensor(rows, dtype=torch.float32) - self.mean) / self.scale
        with torch.no_grad():
            return np.asarray(assignments(self.encoder(values), self.centres).double().numpy())

    def _batches(self, count: int, generator: torch.Generator) -> Sequence[Tensor]:
        return torch.randperm(count, generator=generator).split(self.batch_size)


def assignments(codes: Tensor, centres: Tensor) -> Tensor:
    """``q_ik`` by Student's t with one degree of freedom: codes (N, D) and centres (K, D) give (N, K)."""
    near = 1 / (1 + (codes[:, None] - centres[None]).square().sum(2))
    return near / near.sum(1, keepdim=True)


def sharpened(shares: Tensor) -> Tensor:
    """``p_ik``: the assignments (N, K) squared over each cluster's size, rows summing to 1."""
    weight = shares.square() / shares.sum(0)
    return weight / weight.sum(1, keepdim=True)


def _layers(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
