"""LAMB (You et al. 2020, ICLR, arXiv:1904.00962, algorithm 2): Adam whose step is as long as the tensor that it changes.

With large batches and learning rates one rate is too much for some layers and too little for others. LAMB takes Adam's
direction and gives it the length of each parameter tensor itself, times the learning rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from kd_lightning.errors import UserError


class Lamb(Optimizer):
    """``x -= lr * |x| / |u| * u``, with ``u = m / (sqrt(v) + eps) + weight_decay * x`` for each parameter tensor x.

    m and v are Adam's averages of the gradient and of its square. Where x or u is 0, the ratio is 1. A tensor without
    weight decay takes Adam's step as it is, as in timm's and NVIDIA's versions; ``always_adapt`` gives it a ratio too.

    Args:
        params: parameters, or groups of them.
        lr: learning rate, >= 0.
        betas: of the two averages, in [0, 1).
        eps: > 0.
        weight_decay: >= 0.
        bias_correction: divide the averages by what they lack in the first steps, as Adam does.
        grad_averaging: weigh a new gradient with ``1 - betas[0]`` in m; False: with 1.
        max_grad_norm: the gradient of all parameters together is made as short as this first, > 0; None: it is not.
        trust_clip: no ratio above 1 (LAMBC).
        always_adapt: also where there is no weight decay.

    Raises:
        UserError: a setting is out of its range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        bias_correction: bool = True,
        grad_averaging: bool = True,
        max_grad_norm: float | None = 1.0,
        trust_clip: bool = False,
        always_adapt: bool = False,
    ) -> None:
        for key, value, fine, range_ in (
            ("lr", lr, lr >= 0, ">= 0"),
            ("betas", betas, len(betas) == 2 and all(0 <= beta < 1 for beta in betas), "two numbers in [0, 1)"),
            ("eps", eps, eps > 0, "> 0"),
            ("weight_decay", weight_decay, weight_decay >= 0, ">= 0"),
            ("max_grad_norm", max_grad_norm, max_grad_norm is None or max_grad_norm > 0, "> 0, or null for none"),
        ):
            if not fine:
                raise UserError(f"optimizer.{key} must be {range_}, got {value}")
        settings = {
            "lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "bias_correction": bias_correction,
            "grad_averaging": grad_averaging, "trust_clip": trust_clip, "always_adapt": always_adapt,
        }  # fmt: skip
        super().__init__(params, settings)
        self.max_grad_norm = max_grad_norm

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move the parameters that have a gradient; gradients stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        excess = self._excess()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad if excess is None else parameter.grad / excess, group)
        return loss

    def _excess(self) -> Tensor | None:
        """How many times the whole gradient is longer than it may be, at least 1."""
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        if self.max_grad_norm is None or not gradients:
            return None
        return (torch.nn.utils.get_total_norm(gradients) / self.max_grad_norm).clamp(min=1.0)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        first, second = group["betas"]
        mean, square = state["mean"], state["square"]
        mean.mul_(first).add_(gradient, alpha=1 - first if group["grad_averaging"] else 1.0)
        square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        lacks = [1 - beta ** state["step"] if group["bias_correction"] else 1.0 for beta in (first, second)]
        change = (mean / lacks[0]).div_((square / lacks[1]).sqrt_().add_(group["eps"]))
        if group["weight_decay"]:
            change.add_(parameter, alpha=group["weight_decay"])
        if group["weight_decay"] or group["always_adapt"]:
            length, wanted = change.norm(), parameter.norm()
            ratio = torch.where((length > 0) & (wanted > 0), wanted / length, 1.0)
            change.mul_(ratio.clamp(max=1.0) if group["trust_clip"] else ratio)
        parameter.sub_(change, alpha=group["lr"])
