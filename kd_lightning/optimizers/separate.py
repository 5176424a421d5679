"""An optimizer whose step is made of several gradients, each with a momentum of its own.

Lightning, torch and this project's Member call ``backward`` and ``step``. Between the two comes :meth:`collect`, once a
part of the loss: it takes the parameters' gradients as that part's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from kd_lightning.errors import UserError


class SeparateMomenta(Optimizer):
    """Base: gradients by part, momentum buffers by part.

    What the groups call ``base_momentum`` is no single momentum, so that schedulers which cycle one leave it alone.

    Args:
        params: parameters, or groups of them.
        parts: names of the parts, in the order in which a step applies them.
        defaults: of each group's settings.
    """

    def __init__(self, params: Iterable[Any], parts: tuple[str, ...], defaults: dict[str, Any]) -> None:
        for key, low in (("lr", 0.0), ("base_momentum", 0.0), ("dampening", 0.0), ("weight_decay", 0.0)):
            if not defaults[key] >= low:
                raise UserError(f"optimizer.{key.removeprefix('base_')} must be >= {low:g}, got {defaults[key]}")
        super().__init__(params, defaults)
        self.parts = parts
        self._gradients: dict[str, dict[Tensor, Tensor]] = {part: {} for part in parts}

    def collect(self, part: str) -> None:
        """Take the parameters' gradients as those of a part, adding to what was collected; they are None afterwards."""
        kept = self._gradients[part]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    known = kept.get(parameter)
                    kept[parameter] = parameter.grad if known is None else known + parameter.grad
                    parameter.grad = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Apply the parts that were collected since the last step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                given = {
                    part: self._gradients[part][parameter] for part in self.parts if parameter in self._gradients[part]
                }
                if given:
                    self._update(parameter, given, group)
        for kept in self._gradients.values():
            kept.clear()
        return loss

    def part_of(self, term: str) -> str:
        """To which part a term of the method (or "task") belongs.

        Raises:
            UserError: to none.
        """
        if term not in self.parts:
            raise UserError(
                f"method.terms.{term}: {type(self).__name__} knows the parts {', '.join(self.parts)} only: name the "
                "terms so, or take another optimizer"
            )
        return term

    def _update(self, parameter: Tensor, given: dict[str, Tensor], group: dict[str, Any]) -> None:
        """Change one parameter by its gradients of this step."""
        raise NotImplementedError

    def _apply(
        self, parameter: Tensor, part: str, gradient: Tensor, group: dict[str, Any], momentum: float, decays: float
    ) -> None:
        """One momentum step with one part's gradient; ``decays`` times the weight decay comes with it."""
        decay = decays * group["weight_decay"]
        change = gradient.add(parameter, alpha=decay) if decay else gradient
        name = f"momentum_{part}"
        state = self.state[parameter]
        if name not in state:
            state[name] = change.clone()
        else:
            state[name].mul_(momentum).add_(change, alpha=1 - group["dampening"])
        parameter.sub_(state[name], alpha=group["lr"])

    def _has_stepped(self, parameter: Tensor, part: str) -> bool:
        return f"momentum_{part}" in self.state[parameter]
