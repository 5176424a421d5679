"""How many processes train one run: what ``trainer.devices`` and ``trainer.num_nodes`` say.

Each of them takes batches of its own, so the number decides the result; which devices they are does not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

PLACES = ("devices", "num_nodes", "strategy")
"""Arguments of the Trainer that say by how many processes, and how."""
STRATEGIES = ("auto", "ddp", "fsdp")
"""fsdp divides the weights of the frozen teacher among the processes; the student is small."""
SHARDED = ("fsdp_cpu_offload", "deepspeed", "model_parallel")
"""Strategies of Lightning that are not offered, with what is said of them in :mod:`kd_lightning.config.check`."""


def processes_of(trainer: Mapping[str, Any]) -> int:
    """Processes of one run, on all nodes together; 1 for what says no number."""
    return devices_of(trainer.get("devices")) * nodes_of(trainer)


def nodes_of(trainer: Mapping[str, Any]) -> int:
    """Nodes that train one run together."""
    return int(trainer.get("num_nodes") or 1)


def devices_of(devices: Any) -> int:
    """Devices on each node: a number of them, or their numbers (``[0, 2]``, "0,2")."""
    if isinstance(devices, (list, tuple)):
        return max(1, len(devices))
    if isinstance(devices, str) and re.fullmatch(r"\d+(,\d+)*,?", devices) and "," in devices:
        return len([number for number in devices.split(",") if number])
    if isinstance(devices, str) and devices.isdigit():
        devices = int(devices)
    return max(1, devices) if isinstance(devices, int) and not isinstance(devices, bool) else 1


def one_process(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """The Trainer's arguments for one process: on the first of the devices that are named."""
    devices = trainer.get("devices")
    first = list(devices)[:1] if isinstance(devices, (list, tuple)) else 1
    if isinstance(devices, str) and "," in devices:
        first = [int(devices.partition(",")[0])]
    return {**{key: value for key, value in trainer.items() if key not in PLACES}, "devices": first}
