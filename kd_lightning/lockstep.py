"""One optimizer for Lightning to count, any number of optimizers that step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.optim import Optimizer


class Lockstep(Optimizer):
    """What Lightning sees of a group: one optimizer, so that ``global_step`` advances by one a batch.

    The members' own optimizers have already stepped when ``step`` is called; this one only ticks.

    Args:
        optimizers: the members' optimizers, in the members' order.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self.optimizers = list(optimizers)
        super().__init__([p for o in optimizers for group in o.param_groups for p in group["params"]], {})
        # the members' own groups, so that whoever asks for a learning rate (LearningRateMonitor) sees the current one
        self.param_groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        return None if closure is None else closure()

    def state_dict(self) -> dict[str, Any]:
        return {"members": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, state_dict["members"], strict=True):
            optimizer.load_state_dict(state)
