"""As many students train side by side as there is memory for: that of the machine, or what a job is granted of it."""

from __future__ import annotations

import torch

from kd_lightning.running.memory import free_memory, granted_memory

HERE = torch.device("cpu")  # whatever GPU there is


def test_what_slurm_grants_a_job_is_a_limit(monkeypatch):
    monkeypatch.delenv("SLURM_MEM_PER_NODE", raising=False)
    everything, granted = free_memory(HERE), granted_memory()
    monkeypatch.setenv("SLURM_MEM_PER_NODE", str(10**9))  # more than there is
    assert free_memory(HERE) > everything // 2
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "1")  # MiB: this process has more already
    assert free_memory(HERE) == 0
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "0")  # all that the node has
    assert (granted_memory() is None) == (granted is None)
