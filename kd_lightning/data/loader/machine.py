"""How many threads a process may use."""

from __future__ import annotations

import os

_MOST_THREADS = 16


def default_threads() -> int:
    """Threads for this process: the CPUs it may run on, divided among the processes of a distributed run on this
    machine (``LOCAL_WORLD_SIZE``), at most 16."""
    if hasattr(os, "process_cpu_count"):
        cpus = os.process_cpu_count() or 1
    elif hasattr(os, "sched_getaffinity"):
        cpus = len(os.sched_getaffinity(0))
    else:
        cpus = os.cpu_count() or 1
    return max(1, min(_MOST_THREADS, cpus // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))))
