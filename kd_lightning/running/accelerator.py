"""What ``trainer.accelerator`` asks for: whether this machine has it, and which device that is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning.accelerators import AcceleratorRegistry, CUDAAccelerator, MPSAccelerator

from kd_lightning.config.processes import devices_of
from kd_lightning.config.rules import show
from kd_lightning.errors import UserError


def require_accelerator(config: Mapping[str, Any]) -> None:
    """Stop where the accelerator, or as many of its devices, are not on this machine.

    Raises:
        UserError: ``trainer.accelerator`` names one that is not here, ``trainer.devices`` more GPUs than there are.
    """
    name = str(config["trainer"].get("accelerator") or "auto")
    known: dict[str, Any] = {"gpu": (CUDAAccelerator, MPSAccelerator)}
    known |= {key: (entry["accelerator"],) for key, entry in AcceleratorRegistry.items()}
    kinds = known.get(name)
    if kinds is not None and not any(kind.is_available() for kind in kinds):
        here = [key for key, entry in AcceleratorRegistry.items() if entry["accelerator"].is_available()]
        raise UserError(f"trainer.accelerator={name}: this machine has none; it has {', '.join(here)} (or auto)")
    if training_device(config).type == "cuda":
        _require_gpus(config["trainer"].get("devices"))


def _require_gpus(devices: Any) -> None:
    """Two processes on one GPU would end in a message of NCCL's, long after the teacher was trained."""
    here = torch.cuda.device_count()
    if max(_numbers(devices)) >= here:
        raise UserError(
            f"trainer.devices={show(devices)}: this machine has {here} GPU{'s' * (here != 1)}, and each process takes one of its own; "
            "trainer.accelerator=cpu trains in processes on the CPU"
        )


def training_device(config: Mapping[str, Any]) -> torch.device:
    """Where Lightning's Trainer will train in this process; there the teacher answers before it, too."""
    trainer = config["trainer"]
    accelerator = str(trainer.get("accelerator") or "auto")
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        numbers = _numbers(trainer.get("devices"))
        return torch.device("cuda", numbers[int(os.environ.get("LOCAL_RANK") or 0) % len(numbers)])
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def _numbers(devices: Any) -> list[int]:
    """The numbers of the devices that ``trainer.devices`` means: those in its list, or the first so many."""
    listed = devices.split(",") if isinstance(devices, str) and "," in devices else devices
    if isinstance(listed, (list, tuple)):
        return [int(number) for number in listed if str(number)] or [0]
    return list(range(devices_of(devices)))
