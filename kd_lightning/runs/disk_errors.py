"""Errors of files and disks, found in whatever was made of them."""

from __future__ import annotations

import errno

DISK = frozenset((errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO))


def disk_error(error: BaseException | None) -> OSError | None:
    """The operating system's error that an error was made of, if it is one of files and disks."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK:
            return error
        error = error.__cause__ or error.__context__
    return None
