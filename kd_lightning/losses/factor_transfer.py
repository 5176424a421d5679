"""Factor transfer (FT: Kim et al. 2018, arXiv:1802.04977): compare factors that both models' maps are translated to.

A paraphraser, an autoencoder on the teacher's map that is trained first without labels, gives factors that are easier
to follow; a translator maps the student's to the same size.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.joints import Clock
from kd_lightning.losses.adapters import of_equal_size
from kd_lightning.losses.inputs import full_precision, paired_maps
from kd_lightning.outputs import ModelOutput


def _block(channels: list[int], batch_norm: bool, transposed: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = []
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    for inside, outside in pairwise(channels):
        layers.append(kind(inside, outside, 3, padding=1))
        if batch_norm:
            layers.append(nn.BatchNorm2d(outside))
        layers.append(nn.LeakyReLU(0.1))
    return nn.Sequential(*layers)


class Paraphraser(nn.Module):
    """Autoencoder of the teacher's maps (N, C, H, W) with factors of ``rate * C`` channels between its halves."""

    def __init__(self, channels: int, rate: float = 0.5, batch_norm: bool = False) -> None:
        super().__init__()
        factors = max(1, int(channels * rate))
        self.encoder = _block([channels, channels, factors, factors], batch_norm)
        self.decoder = _block([factors, factors, channels, channels], batch_norm, transposed=True)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Factors and reconstruction."""
        factors = self.encoder(maps)
        return factors, self.decoder(factors)


class FactorTransferLoss(nn.Module):
    """Mean distance of normalised factors: ``loss = mean | F_s / |F_s| - F_t / |F_t| |^p`` over all their numbers.

    F_s are the translated, F_t the paraphrased maps. In the first ``paraphraser_epochs`` epochs the loss is the
    paraphraser's reconstruction error ``mean (P(f_t) - f_t)^2`` instead, as the paper's first stage; afterwards the
    paraphraser stands still. Two published codes average the p1-th power over channels before they normalise
    (``average_channels``), and so compare attention maps; the paper does not.

    Args:
        tap: for both models, maps (N, C, H, W).
        p: exponent of the difference, 1 or 2.
        rate: factors' channels as a share of the teacher's.
        paraphraser_epochs: length of the first stage, >= 0; 0 compares the maps as they are, without either network.
        average_channels: exponent of the channel mean, or None for the paper's form.
        form: "mean", or torchdistill's "norm" for p = 2: the mean over samples of the difference's Euclidean norm.
    """

    takes_mixed = True
    requires = frozenset({"features"})

    def __init__(
        self,
        tap: str = "hint",
        p: int = 1,
        rate: float = 0.5,
        paraphraser_epochs: int = 5,
        average_channels: int | None = None,
        form: str = "mean",
    ) -> None:
        super().__init__()
        if p not in (1, 2) or not rate > 0 or paraphraser_epochs < 0:
            raise UserError(
                f"p must be 1 or 2, rate > 0 and paraphraser_epochs >= 0, got {p}, {rate}, {paraphraser_epochs}"
            )
        if form not in ("mean", "norm"):
            raise UserError(f"form of factor transfer must be mean or norm, got {form!r}")
        self.tap, self.p, self.rate, self.form = tap, p, float(rate), form
        self.paraphraser_epochs, self.average_channels = paraphraser_epochs, average_channels
        self.paraphraser: Paraphraser | None = None
        self.translator: nn.Module | None = None

    def prepare(self, student: ModelOutput, teacher: ModelOutput) -> None:
        """Build both networks for the shapes of these features; a second call changes nothing."""
        if self.paraphraser_epochs and self.paraphraser is None:
            guided, hint = paired_maps(student, teacher, self.tap)
            self.paraphraser = Paraphraser(hint.shape[1], self.rate).to(hint.device)
            factors = max(1, int(hint.shape[1] * self.rate))
            self.translator = _block([guided.shape[1], guided.shape[1], factors, factors], True).to(guided.device)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor, clock: Clock | None = None) -> Tensor:
        """Maps (N, C, H, W) under the tap's name; returns a scalar >= 0."""
        guided, hint = paired_maps(student, teacher, self.tap)
        if self.paraphraser_epochs:
            if self.paraphraser is None or self.translator is None:
                raise RuntimeError("FactorTransferLoss has no networks yet: call prepare(student, teacher) first")
            if clock is not None and clock.epoch < self.paraphraser_epochs:
                return F.mse_loss(full_precision(self.paraphraser(hint)[1]), hint)
            with torch.no_grad():
                hint = full_precision(self.paraphraser(hint)[0])
            guided = full_precision(self.translator(guided))
        guided, hint = of_equal_size(guided, hint)
        difference = (self._normalised(guided) - self._normalised(hint)).abs()
        if self.form == "norm":
            squared = difference.square().flatten(1).sum(dim=1)  # the root has no gradient at 0
            return (torch.where(squared > 0, squared, 1.0).sqrt() * (squared > 0)).mean()
        return difference.pow(self.p).mean()

    def _normalised(self, maps: Tensor) -> Tensor:
        if self.average_channels is not None:
            maps = maps.pow(self.average_channels).mean(dim=1)
        return F.normalize(maps.flatten(1), dim=1)
