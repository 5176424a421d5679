"""Errors of files and disks, found in whatever was made of them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

DISK = frozenset((errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO))


def disk_error(error: BaseException | None) -> OSError | None:
    """The operating system's error that an error was made of, if it is one of files and disks."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK:
            return error
        error = error.__cause__ or error.__context__
    return None


def gone(error: BaseException | None, directory: Path) -> bool:
    """Whether an error was made of a file in ``directory`` that is not there any more."""
    place = directory.resolve()
    while error is not None:
        name = error.filename if isinstance(error, FileNotFoundError) else None
        if isinstance(name, (str, bytes)) and place in Path(os.fsdecode(name)).resolve().parents:
            return True
        error = error.__cause__ or error.__context__
    return False
