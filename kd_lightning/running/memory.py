"""How many students fit side by side."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from kd_lightning.config.build import build_model
from kd_lightning.rng import RngStream
from kd_lightning.running.accelerator import training_device
from kd_lightning.runs.latency import state_bytes
from kd_lightning.runs.provenance import peak_memory_bytes
from kd_lightning.runs.spec import RunSpec

log = logging.getLogger(__name__)

COPIES = 6  # weights, gradient, two moments of the optimizer, a checkpoint being written, the temporary of a step
OVERHEAD = 8 << 20  # loggers, buffers and allocator of a member
SHARE = 0.5  # of free memory that members may take; activations live one member at a time and use the rest


def free_memory(device: torch.device) -> int:
    """Free bytes of a device: of the GPU, else of main memory (with what the page cache would give back)."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
        available = int(fields["MemAvailable"].split()[0]) * 1024
        granted = granted_memory()
        return available if granted is None else max(0, min(available, granted))
    except (OSError, KeyError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def granted_memory() -> int | None:
    """Bytes that this process may still take of what a job scheduler or a container grants it; None: no limit is known."""
    left = []
    try:
        own = Path("/proc/self/cgroup").read_text(encoding="ascii").strip().rpartition("::")[2].lstrip("/")
        for group in (Path("/sys/fs/cgroup", own), *Path("/sys/fs/cgroup", own).parents):
            if (group / "memory.max").is_file() and (most := (group / "memory.max").read_text().strip()).isdigit():
                stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                used = int((group / "memory.current").read_text()) - int(stat["inactive_file"])  # that much comes back
                left.append(int(most) - used)
    except (OSError, ValueError, KeyError):
        log.debug("no control group says how much memory there is")
    slurm = os.environ.get("SLURM_MEM_PER_NODE", "")  # MiB; a site may grant it without holding us to it
    if slurm.isdigit() and int(slurm):
        left.append((int(slurm) << 20) - (peak_memory_bytes() or 0))
    return min(left, default=None)


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
    fit = max(1, int(SHARE * free_memory(training_device(specs[0].config)) / largest))
    if fit < len(specs):
        log.info("%d of %d runs at once: free memory holds no more (max_fused)", fit, len(specs))
    return fit
