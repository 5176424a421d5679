"""A teacher whose weights are divided among the processes that train a run: each holds its share of every layer.

For a teacher that is too large for one device (``trainer.strategy=fsdp``). torch's ``fully_shard`` gathers a part of the
network when its forward pass begins and lets go of it afterwards. That is a matter of all processes: whoever asks, all
have to. They do in training, where all take the same number of steps. In an evaluation one may have a batch less, so
each says at each question whether it asks, and who is done helps until all are (:meth:`DividedTeacher.finish`).
"""

from __future__ import annotations

import logging
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from kd_lightning.batch import Batch
from kd_lightning.errors import UserError
from kd_lightning.joints import Teacher
from kd_lightning.outputs import ModelOutput
from kd_lightning.teachers.frozen import FrozenTeacher, TeacherChanged
from kd_lightning.teachers.weights import tensor_digests
from kd_lightning.teachers.wrapper import TeacherWrapper

log = logging.getLogger(__name__)

PARTS = 16
"""A part that is gathered at a time has about one in so many of the parameters, or is a layer that has more."""


class DividedTeacher(TeacherWrapper):
    """In front of a FrozenTeacher: divides its weights when it is moved to where the processes train together.

    Args:
        teacher: a FrozenTeacher.
        example: samples that it answers once, on the CPU, to see which of its layers are called.
        device: on which this process trains.

    Raises:
        UserError: the teacher is no single network.
    """

    def __init__(self, teacher: Teacher, example: Batch, device: torch.device) -> None:
        super().__init__(teacher)
        if not isinstance(teacher, FrozenTeacher):
            raise UserError(
                f"trainer.strategy=fsdp: divides the weights of a teacher that is one network, {teacher.name} is none: use ddp"
            )
        self._device, self._example = device, example
        self._shares: dict[str, str] | None = None  # digests of this process's shares, once there are some

    def to(self, device: torch.device | str) -> DividedTeacher:
        """Divide the weights, if that is where all processes train; afterwards they stay there."""
        here = torch.device(device).type == self._device.type
        if self._shares is None and here and dist.is_initialized():
            self._divide()
        elif self._shares is None:
            super().to(device)
        return self

    def __call__(self, batch: Batch) -> ModelOutput:
        if self._shares is not None and batch.split != "train":
            self._askers(1)
        return super().__call__(batch)

    def finish(self) -> None:
        """Called by all processes when an evaluation is over here: help until it is over everywhere."""
        if self._shares is None:
            return
        while self._askers(0):
            self.teacher(self._example)

    def verify(self) -> None:
        """Raise :class:`TeacherChanged` if this process's share moved."""
        if self._shares is None:
            super().verify()
        elif tensor_digests(self.module) != self._shares:
            raise TeacherChanged(f"teacher {self.name!r} changed since it was divided among the processes")

    def _askers(self, asking: int) -> int:
        """How many processes ask now."""
        number = torch.tensor(asking, device=self._device)
        dist.all_reduce(number)
        return int(number)

    def _divide(self) -> None:
        try:
            from torch.distributed.fsdp import fully_shard
        except ImportError:
            raise UserError("trainer.strategy=fsdp: needs torch 2.6 or newer, use ddp") from None
        from torch.distributed.device_mesh import init_device_mesh

        super().verify()
        whole = sum(parameter.numel() for parameter in self.module.parameters())
        mesh = init_device_mesh(self._device.type, (dist.get_world_size(),))
        for part in parts(self.module, lambda: self.teacher(self._example)):
            fully_shard(part, mesh=mesh, reshard_after_forward=True)
        super().to(self._device)
        self._example = _moved(self._example, self._device)
        self._shares = tensor_digests(self.module)
        share = sum(_local(parameter).numel() for parameter in self.module.parameters())
        log.info("teacher: each process holds its share of the weights, here %s of %s", f"{share:,}", f"{whole:,}")


def parts(network: nn.Module, run: Any) -> list[nn.Module]:
    """The modules to gather one after the other, inner ones first, the network itself last.

    Args:
        network: whose parameters are divided.
        run: calls it once: a module that its parent does not call (but takes the weights of) is no part of its own.
    """
    called: set[nn.Module] = set()
    hooks = [module.register_forward_pre_hook(lambda module, _: called.add(module)) for module in network.modules()]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    owners: dict[nn.Parameter, set[nn.Module]] = {}
    for module in network.modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(parameter, set()).add(module)
    if any(len(of) > 1 for of in owners.values()):
        return [network]  # tied weights have to be gathered together
    least = max(1, sum(parameter.numel() for parameter in owners) // PARTS)
    found: list[nn.Module] = []

    def left_over(module: nn.Module) -> int:
        """Parameters of a module that are in no part yet."""
        own = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        own += sum(left_over(child) for child in module.children())
        if module is not network and own >= least and module in called:
            found.append(module)
            return 0
        return own

    left_over(network)
    return [*found, network]


def _local(value: Any) -> Any:
    return value.to_local() if hasattr(value, "to_local") else value


def _moved(batch: Batch, device: torch.device) -> Batch:
    from lightning_fabric.utilities.apply_func import move_data_to_device

    return move_data_to_device(batch, device)
