"""Fitted estimators from files: read with skops, which executes nothing that is in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kd_lightning.errors import UserError

PICKLES = (".pkl", ".pickle", ".joblib")
"""Endings of files whose reading executes what is in them."""


def load_estimator(path: str, trusted: Sequence[str] = (), unpickle: bool = False) -> Any:
    """The estimator in a file.

    Args:
        path: of the file.
        trusted: names of types, beside those that skops knows, that it may hold.
        unpickle: read a file of joblib or pickle.

    Raises:
        UserError: it cannot be read, holds other types, or skops is missing.
    """
    if Path(path).suffix in PICKLES:
        if not unpickle:
            raise UserError(f"teacher.file={path}: is a pickle, which is opened with teacher.unpickle=true only")
        import joblib

        return _read(path, lambda: joblib.load(path))
    try:
        from skops import io
    except ImportError as error:
        raise UserError(f'teacher.file={path}: needs skops: pip install "kd-lightning[sklearn]"') from error
    unknown = [name for name in _read(path, lambda: io.get_untrusted_types(file=path)) if name not in set(trusted)]
    if unknown:
        raise UserError(
            f"teacher.file={path}: holds {', '.join(map(str, unknown))}, which may run code of the file's maker: if you know "
            f"where it is from, name what you trust: teacher.trusted=[{','.join(map(str, unknown))}]"
        )
    return _read(path, lambda: io.load(path, trusted=list(trusted)))


def _read(path: str, read: Any) -> Any:
    try:
        return read()
    except Exception as error:  # of zip, JSON, the estimator's own class in another version
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"teacher.file={path}: holds no estimator that can be read ({text[:200]})") from error
