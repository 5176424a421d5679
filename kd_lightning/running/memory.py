"""How many students fit side by side."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

import torch

from kd_lightning.config.build import build_model
from kd_lightning.rng import RngStream
from kd_lightning.runs.latency import state_bytes
from kd_lightning.runs.spec import RunSpec

log = logging.getLogger(__name__)

COPIES = 6  # weights, gradient, two moments of the optimizer, a checkpoint being written, the temporary of a step
OVERHEAD = 8 << 20  # loggers, buffers and allocator of a member
SHARE = 0.5  # of free memory that members may take; activations live one member at a time and use the rest


def free_memory() -> int:
    """Free bytes: of the GPU where there is one, else of main memory (with what the page cache would give back)."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def members_that_fit(specs: Sequence[RunSpec], datamodule: Any) -> int:
    """Members to train at once: ``max_fused`` if given, else as many as half the free memory holds, at least 1."""
    given = specs[0].config.get("max_fused")
    if given:
        return int(given)
    sizes: dict[str, int] = {}
    for spec in specs:
        node = spec.config["student"]
        if str(node) not in sizes:
            with RngStream(0):
                sizes[str(node)] = state_bytes(build_model(node, spec.config, datamodule, "student"))
    largest = max(sizes.values()) * COPIES + OVERHEAD
    fit = max(1, int(SHARE * free_memory() / largest))
    if fit < len(specs):
        log.info("%d of %d runs at once: free memory holds no more (max_fused)", fit, len(specs))
    return fit
