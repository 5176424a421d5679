"""MNIST's IDX files (LeCun, Cortes & Burges 1998), plain or gzipped: finding, reading and fetching them."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from kd_lightning.errors import UserError

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def read_idx(path: Path) -> Tensor:
    """The uint8 array in an IDX file, in its own shape."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path}: {error}; delete the file and fetch it again") from error
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise UserError(f"{path} is not an IDX file of bytes: delete it and fetch it again")
    dims = raw[3]
    shape = struct.unpack(f">{dims}I", raw[4 : 4 + 4 * dims]) if len(raw) >= 4 + 4 * dims else (-1,)
    values = torch.frombuffer(bytearray(raw), dtype=torch.uint8)[4 + 4 * dims :]
    if values.numel() != torch.Size(shape).numel():
        raise UserError(f"{path} is truncated ({len(raw):,} bytes for shape {shape}): delete it and fetch it again")
    return values.view(shape)


def read_split(directory: Path, split: str) -> tuple[Tensor, Tensor]:
    """Images (N, 1, H, W) uint8 and class numbers (N,) int64 of ``split`` ("train" or "test")."""
    image_file, label_file = (_plain_or_gzipped(directory, name) for name in FILES[split])
    images, labels = read_idx(image_file), read_idx(label_file)
    if images.dim() != 3 or labels.dim() != 1 or len(images) != len(labels):
        raise UserError(
            f"{image_file} and {label_file} do not belong together: shapes {tuple(images.shape)}, {tuple(labels.shape)}"
        )
    return images.unsqueeze(1), labels.long()


def find_directory(candidates: Sequence[Path]) -> Path | None:
    """The first of the directories that has all four files."""
    for directory in candidates:
        if all(_plain_or_gzipped(directory, name) for pair in FILES.values() for name in pair):
            return directory
    return None


def download_once(root: Path, name: str, download: Callable[[], object]) -> None:
    """Call ``download`` while no other process does; a failure is told in one line."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{name}.lock"):
            download()
    except (
        OSError,
        RuntimeError,
    ) as error:  # URLError is an OSError; torchvision raises RuntimeError when no mirror answers
        reason = " ".join(str(error).split())
        raise UserError(f"cannot download {name} to {root}: {reason}; put its files there, or set data.root") from error


def _plain_or_gzipped(directory: Path, name: str) -> Path | None:
    return next((path for path in (directory / name, directory / f"{name}.gz") if path.is_file()), None)
