"""What produced a run: versions, commit and machine, so that its figures can be placed and repeated."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "lightning": "pytorch-lightning",
    "hydra": "hydra-core",
    "numpy": "numpy",
    "scikit-learn": "scikit-learn",
    "tensorboard": "tensorboard",
    "timm": "timm",
    "kd_lightning": "kd-lightning",
}


@functools.lru_cache(maxsize=1)
def _versions() -> tuple[tuple[str, str], ...]:
    found = [("python", platform.python_version())]
    for name, distribution in PACKAGES.items():
        # torch.__version__ tells cpu from cuda builds, which the distribution's version may not
        version = getattr(sys.modules.get(name), "__version__", None)
        try:
            found.append((name, str(version or importlib.metadata.version(distribution))))
        except importlib.metadata.PackageNotFoundError:
            continue
    return tuple(found)


def versions() -> dict[str, str]:
    """Version by name, of Python and of those of our dependencies that are installed."""
    return dict(_versions())


def commit(path: str | os.PathLike | None = None) -> dict[str, Any] | None:
    """``{"hash", "dirty"}`` of the git repository around ``path`` (default: the working directory).

    None where there is no repository, no commit yet or no git. ``dirty`` is true if a tracked file was changed:
    then the hash alone does not give back what ran.
    """
    directory = Path(path or Path.cwd())
    head = _git(directory, "rev-parse", "HEAD")
    if not head:
        return None
    status = _git(directory, "status", "--porcelain", "--untracked-files=no")
    return {"hash": head.strip(), "dirty": bool(status.strip()) if status is not None else None}


def commits() -> dict[str, Any] | None:
    """The commit of the user's working directory, and under ``"kd_lightning"`` that of our own checkout, if it is one.

    None where neither is known. Asked for once a process: its code was loaded at the start, and all runs of a sweep
    ran the same.
    """
    return _commits(Path.cwd())


@functools.lru_cache(maxsize=8)
def _commits(directory: Path) -> dict[str, Any] | None:
    ours = commit(Path(__file__).parent) if _is_checkout() else None
    theirs = commit(directory)
    if theirs is None and ours is None:
        return None
    return {**(theirs or {"hash": None, "dirty": None}), "kd_lightning": ours}


def peak_memory_bytes() -> int | None:
    """The most memory that this process has held so far: of the GPU where one is used, else main memory; None where the
    system does not tell. Runs that train side by side share it.
    """
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def host() -> dict[str, Any]:
    """Name, processor, number of usable cores and GPUs of this machine."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "hostname": socket.gethostname(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "gpus": gpus,
    }


@functools.lru_cache(maxsize=1)
def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.lower().startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        return platform.processor() or platform.machine()  # not Linux
    return platform.processor() or platform.machine()


def _is_checkout() -> bool:
    """Whether this package lies in its own repository, rather than in site-packages within somebody else's."""
    return (Path(__file__).parents[2] / "pyproject.toml").is_file()


def _git(directory: Path, *arguments: str) -> str | None:
    # GIT_OPTIONAL_LOCKS: `status` must not write to a repository in which the user may be committing
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *arguments], capture_output=True, text=True, timeout=10, env=environment
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None
