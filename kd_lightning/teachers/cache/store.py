"""A teacher's stored outputs on disk: one directory per key, one memory map per view, a checksum over every byte.

::

    <cache directory>/<key>/meta.json          what the outputs belong to (the key in full), and what a row looks like
                            view_00003.npy     (samples, row): the outputs on view 3, in the order of the data set
                            view_00003.json    written last: that view is complete; its size and block checksums
                            fitted.npy, fitted.json        what rows are read with, where their form needs it
    <cache directory>/<key>.lock               held by whoever writes; the kernel frees it when the holder dies

A view is there as a whole or not at all (written beside, brought to the disk, renamed), so a reader needs no lock and a
killed writer costs the view that it was at. A longer run adds views; nothing that was written is changed.
Nothing here imports torch, so that ``kd-cache`` starts at once. Files are little-endian.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kd_lightning.runs.atomic import write_atomically
from kd_lightning.teachers.cache.sealed import DELETE, CacheError, block_digest, read_sealed, write_sealed

BLOCK_BYTES = 4 << 20  # a checksum each: tells where in a large file the damage is
NUMPY_DTYPES = {  # numpy has no bfloat16: its bits
    "fp16": "<f2", "bf16": "<u2", "fp32": "<f4", "int32": "<i4", "uint16": "<u2", "uint8": "|u1", "int8": "|i1"
}  # fmt: skip
_VIEW = re.compile(r"view_(\d{5,})\.json")


@dataclass(frozen=True)
class Column:
    """One part of a row: its name, storage type (a key of ``NUMPY_DTYPES``) and shape without the sample dimension."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(NUMPY_DTYPES[self.dtype]).itemsize


class CacheStore:
    """The directory of one key, open for reading.

    Args:
        directory: holds ``meta.json``.

    Attributes:
        parts: what the outputs belong to, by name (teacher, data, view, …).
        samples: rows a view.
        seal: checksum of ``meta.json``, by which other files say that they belong to it.
        columns: what a row consists of.

    Raises:
        CacheError: ``meta.json`` is missing, damaged or of another format.
    """

    def __init__(self, directory: str | os.PathLike) -> None:
        self.directory = Path(directory)
        meta = read_sealed(self.directory / "meta.json")
        self.seal: str = meta["seal"]
        self.parts: dict[str, Any] = meta["parts"]
        self.samples: int = meta["samples"]
        self.created: str = meta["created"]
        self.columns = [Column(c["name"], c["dtype"], tuple(c["shape"])) for c in meta["columns"]]
        self._open: dict[int, np.ndarray] = {}

    @classmethod
    def create(
        cls, directory: str | os.PathLike, parts: Mapping[str, Any], samples: int, columns: list[Column]
    ) -> CacheStore:
        """Make the directory of a key, without any view yet."""
        created = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        meta = {"parts": dict(parts), "samples": samples, "columns": [asdict(c) for c in columns], "created": created}
        write_sealed(Path(directory) / "meta.json", meta)
        return cls(directory)

    @property
    def row_bytes(self) -> int:
        return sum(column.nbytes for column in self.columns)

    @property
    def row_dtype(self) -> np.dtype:
        """A row as numpy sees it: a plain array for one column, a record of named fields for several."""
        if len(self.columns) == 1:
            return np.dtype((NUMPY_DTYPES[self.columns[0].dtype], self.columns[0].shape))
        return np.dtype([(c.name, NUMPY_DTYPES[c.dtype], c.shape) for c in self.columns])

    def require(self, parts: Mapping[str, Any]) -> None:
        """Raise CacheError, naming what differs, unless the outputs belong to exactly these ``parts``."""
        wanted = json.loads(json.dumps(dict(parts)))
        differ = [k for k in sorted({*wanted, *self.parts}) if wanted.get(k) != self.parts.get(k)]
        if differ:
            raise CacheError(
                f"{self.directory / 'meta.json'}: these outputs were stored for another {', '.join(differ)} than this "
                "run's: choose another cache directory, or delete this one (kd-cache prune)"
            )

    def views(self) -> list[int]:
        """The complete views, in order."""
        found = (_VIEW.fullmatch(entry.name) for entry in self.directory.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def paths(self, view: int) -> tuple[Path, Path]:
        """The data file and the seal file of a view."""
        return self.directory / f"view_{view:05d}.npy", self.directory / f"view_{view:05d}.json"

    def rows(self, view: int) -> np.ndarray:
        """The rows of a view as bytes, uint8 of shape (samples, row_bytes): a memory map, verified when first opened.

        Writing to it changes a private copy, never the file.

        Raises:
            CacheError: the view is missing, truncated, altered, or not of this store.
        """
        if view not in self._open:
            self.verify(view)
            data = self.paths(view)[0]
            array = np.load(data, mmap_mode="c", allow_pickle=False)
            self._open[view] = array.reshape(self.samples, -1).view(np.uint8).reshape(self.samples, self.row_bytes)
        return self._open[view]

    def verify(self, view: int) -> None:
        """Check size and every checksum of a view; CacheError names the file and the place."""
        data, seal_file = self.paths(view)
        seal = read_sealed(seal_file)
        if (seal["view"], seal["meta"]) != (view, self.seal):
            raise CacheError(f"{seal_file}: belongs to another cache or view: {DELETE}")
        if not data.is_file():
            raise CacheError(f"{data}: missing: {DELETE}")
        if data.stat().st_size != seal["bytes"]:
            raise CacheError(
                f"{data}: has {data.stat().st_size} bytes instead of {seal['bytes']} (truncated?): {DELETE}"
            )
        with open(data, "rb") as file:
            for number, expected in enumerate(seal["blocks"]):
                if block_digest(file.read(BLOCK_BYTES)) != expected:
                    start = number * BLOCK_BYTES
                    raise CacheError(f"{data}: altered or damaged after byte {start} (checksum differs): {DELETE}")

    @property
    def has_fitted(self) -> bool:
        """Whether what rows are read with is there (:mod:`.fitted`); most forms need nothing."""
        return any(self._fitted.with_suffix(suffix).exists() for suffix in (".npy", ".json"))

    def fitted(self) -> bytes:
        """The content of ``fitted.npy``; CacheError where it is missing, altered, or another cache's."""
        seal = read_sealed(self._fitted.with_suffix(".json"))
        try:
            content = self._fitted.read_bytes()
        except FileNotFoundError:
            raise CacheError(f"{self._fitted}: missing: {DELETE}") from None
        if seal["meta"] != self.seal or seal["digest"] != block_digest(content):
            raise CacheError(f"{self._fitted}: altered, damaged or another cache's (checksum differs): {DELETE}")
        return content

    def write_fitted(self, content: bytes) -> None:
        """Write ``fitted.npy``, then its seal."""
        write_atomically(self._fitted, content)
        write_sealed(self._fitted.with_suffix(".json"), {"meta": self.seal, "digest": block_digest(content)})

    @property
    def _fitted(self) -> Path:
        return self.directory / "fitted.npy"

    def nbytes(self) -> int:
        """Bytes on disk of everything in the directory."""
        return sum(entry.stat().st_size for entry in self.directory.iterdir() if entry.is_file())

    def touch(self) -> None:
        """Note that the cache was used now, for ``kd-cache prune --unused``."""
        with contextlib.suppress(OSError):  # a read-only share can be read as well as any other
            (self.directory / "last_used").touch()


class ViewWriter:
    """Writes one view of a store from the first row to the last; the view appears when the ``with`` block ends well.

    Leaving the block by an exception leaves nothing behind; a killed process leaves a file whose name begins with a
    dot, which the next writer removes (:func:`remove_leftovers`).
    """

    def __init__(self, store: CacheStore, view: int) -> None:
        self._store, self._view = store, view
        self._data, self._seal_file = store.paths(view)
        self._temporary = self._data.with_name(f".{self._data.name}.{os.getpid()}.tmp")
        self._blocks: list[str] = []
        self._pending = bytearray()
        self._bytes = self._rows = 0

    def __enter__(self) -> ViewWriter:
        self._file = open(self._temporary, "wb")
        dtype = self._store.row_dtype
        base, inner = dtype.subdtype or (dtype, ())
        header = {"descr": np.lib.format.dtype_to_descr(base), "fortran_order": False}
        np.lib.format.write_array_header_2_0(self, {**header, "shape": (self._store.samples, *inner)})
        return self

    def write(self, data: bytes | memoryview) -> None:
        """Append raw bytes, keeping count and checksums."""
        self._file.write(data)
        self._bytes += len(data)
        self._pending += data
        while len(self._pending) >= BLOCK_BYTES:
            self._blocks.append(block_digest(self._pending[:BLOCK_BYTES]))
            del self._pending[:BLOCK_BYTES]

    def append(self, rows: np.ndarray) -> None:
        """Append rows: uint8 of shape (N, row_bytes), C-contiguous."""
        if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != self._store.row_bytes:
            raise ValueError(f"rows must be uint8 of shape (N, {self._store.row_bytes}), got {rows.dtype} {rows.shape}")
        self._rows += len(rows)
        self.write(np.ascontiguousarray(rows).reshape(-1).data)

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        try:
            if kind is None:
                if self._rows != self._store.samples:
                    raise ValueError(f"a view has {self._store.samples} rows, got {self._rows}")
                self._file.flush()
                os.fsync(self._file.fileno())
                os.replace(self._temporary, self._data)
        finally:
            try:
                self._file.close()  # fails where the disk is full
            finally:
                self._temporary.unlink(missing_ok=True)
        if kind is None:
            blocks = [*self._blocks, block_digest(self._pending)] if self._pending else self._blocks
            seal = {"view": self._view, "meta": self._store.seal, "bytes": self._bytes, "blocks": blocks}
            write_sealed(self._seal_file, seal)


def remove_leftovers(directory: Path) -> None:
    """Delete what killed writers left half written; only for who holds the lock."""
    for path in directory.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def cache_key(parts: Mapping[str, Any]) -> str:
    """The directory name of a cache: 20 hex digits of a hash over all parts."""
    return hashlib.sha256(json.dumps(dict(parts), sort_keys=True).encode()).hexdigest()[:20]
