"""How large stored outputs are, in words, and whether the disk holds them."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path


def human(size: float) -> str:
    """Bytes in words, by powers of ten."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def require_space(path: Path, needed: int) -> None:
    """Raise an OSError where the disk that ``path`` is to be on has not ``needed`` bytes to spare."""
    existing = next(parent for parent in path.parents if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < 1.05 * needed:
        raise OSError(errno.ENOSPC, f"{human(needed)} needed, {human(free)} free", str(path))
