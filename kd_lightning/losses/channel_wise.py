"""Channel-wise distillation (CWD: Shu et al. 2021, arXiv:2011.13256): where each channel is active."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.adapters import of_equal_size
from kd_lightning.losses.inputs import MAPS_TO_TAP, as_reference, checked_temperature, full_precision
from kd_lightning.outputs import ModelOutput


class ChannelWiseLoss(nn.Module):
    """KL divergence between the channels' distributions over positions.

    ``loss = T^2 sum_nc KL( softmax_hw(t_nc / T) || softmax_hw(s_nc / T) ) / (N C)``. Without a tap the dense logits
    (N, C, H, W) are compared.

    Args:
        tap: for both models; None: the logits.
        temperature: softening T, > 0.
        adapter: map the student's channels to the teacher's by a 1x1 convolution, where they differ.
    """

    takes_mixed = True

    def __init__(self, tap: str | None = None, temperature: float = 4.0, adapter: bool = True) -> None:
        super().__init__()
        self.tap, self.temperature, self._adapt = tap, checked_temperature(temperature), adapter
        self.adapter: nn.Module = nn.Identity()

    def prepare(self, student: ModelOutput, teacher: ModelOutput) -> None:
        """Build the adapter where the numbers of channels differ; a second call changes nothing."""
        guided, hint = self._maps(student, teacher)
        if self._adapt and guided.shape[1] != hint.shape[1] and isinstance(self.adapter, nn.Identity):
            self.adapter = nn.Conv2d(guided.shape[1], hint.shape[1], 1).to(guided.device)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Maps (N, C, H, W) under the tap's name, or dense logits; returns a scalar >= 0."""
        guided, hint = self._maps(student, teacher)
        guided, hint = of_equal_size(full_precision(self.adapter(guided)), hint)
        if guided.shape != hint.shape:
            raise UserError(f"channel-wise distillation: {tuple(guided.shape)} does not fit {tuple(hint.shape)}")
        ours, theirs = (F.log_softmax(maps.flatten(2) / self.temperature, dim=2) for maps in (guided, hint))
        total = F.kl_div(ours, theirs, reduction="sum", log_target=True)
        return total * self.temperature**2 / (guided.shape[0] * guided.shape[1])

    def _maps(self, student: ModelOutput, teacher: ModelOutput) -> tuple[Tensor, Tensor]:
        pair = []
        for role, output in (("student", student), ("teacher", teacher)):
            if self.tap is not None and self.tap not in output.features:
                raise UserError(f"a loss needs the {role}'s tap {self.tap!r}: set method.taps.{role}.{self.tap}")
            maps = output.logits if self.tap is None else output.features[self.tap]
            if maps.ndim != 4:
                raise UserError(
                    f"channel-wise distillation needs maps (N, C, H, W), the {role} gives {tuple(maps.shape)}: "
                    f"{MAPS_TO_TAP}"
                )
            pair.append(maps)
        return full_precision(pair[0]), as_reference(pair[1])
