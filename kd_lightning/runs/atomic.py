"""Replace a file as a whole or not at all, whatever happens in between: a kill, a full disk, a power cut."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_atomically(path: str | os.PathLike, content: str | bytes) -> None:
    """Write ``content`` beside ``path``, bring it to the disk, then rename it into place.

    Readers see the old content or the new one. Several processes may write the same path: the last one wins.

    Raises:
        OSError: no space, no permission; the old content is untouched and nothing is left lying about.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp's 0600 would hide results from the rest of a group
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync_directory(path.parent)


def rename_atomically(written: Path, path: Path) -> None:
    """Bring a file that lies on the same file system to the disk, then rename it into place."""
    with written.open("rb") as file:
        os.fsync(file.fileno())
    os.chmod(written, 0o666 & ~_umask())
    os.replace(written, path)
    _sync_directory(path.parent)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_directory(directory: Path) -> None:
    """Make the rename itself durable, where the platform can open a directory."""
    if os.name == "nt":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
