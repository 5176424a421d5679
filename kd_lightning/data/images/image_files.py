"""Finding the images of a directory with one folder a class, and finding out which of them cannot be read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from kd_lightning.data.images.decode import ImageError, read_image
from kd_lightning.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm")


def class_folders(directory: Path, key: str) -> list[str]:
    """The names of the folders in ``directory``, sorted; ``key`` is the config key to name in errors."""
    if not directory.is_dir():
        raise UserError(f"{key}: there is no directory {directory}: set it to a directory with one folder a class")
    names = sorted(entry.name for entry in os.scandir(directory) if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise UserError(f"{key}: {directory} has no folders: put the images of each class into a folder of their own")
    return names


def list_images(directory: Path, classes: Sequence[str], key: str, all_needed: bool = True) -> tuple[list[str], Tensor]:
    """The images below each class's folder, in sorted order.

    Args:
        directory: holds the folders.
        classes: their names; the position of a name is the class number.
        key: the config key to name in errors.
        all_needed: an empty or missing class folder is an error (a test split may lack a class).

    Returns:
        Paths, and class numbers int64 of shape (N,).
    """
    unknown = sorted(set(class_folders(directory, key)) - set(classes))
    if unknown:
        raise UserError(f"{key}: {directory / unknown[0]} is a class that the training images do not have: remove it")
    files: list[str] = []
    targets: list[int] = []
    for number, name in enumerate(classes):
        found = sorted(
            os.path.join(folder, file)
            for folder, _, names in os.walk(directory / name, followlinks=True)
            for file in names
            if file.lower().endswith(EXTENSIONS) and not file.startswith(".")
        )
        if not found and all_needed:
            raise UserError(
                f"{key}: {directory / name} has no images ({', '.join(EXTENSIONS[:3])}, …): "
                "add some or remove the folder"
            )
        files += found
        targets += [number] * len(found)
    if not files:
        raise UserError(f"{key}: there are no images in the class folders of {directory}")
    return files, torch.tensor(targets)


def unreadable(files: Sequence[str], num_threads: int | None, max_pixels: int, cache_dir: Path) -> dict[str, str]:
    """Which files cannot be decoded, and why. Decodes each once, and remembers the answer for unchanged files.

    Args:
        files: the paths.
        num_threads: None: as many as there are processors, at most 16.
        max_pixels: larger images count as unreadable.
        cache_dir: where the answers are kept, a small JSON file for each list of files.
    """
    digest = hashlib.blake2b(str(max_pixels).encode(), digest_size=12)
    for file in files:
        try:
            stat = os.stat(file)
        except OSError:  # a link to nowhere: the decoder will say so
            digest.update(f"{file}\0-\n".encode())
        else:
            digest.update(f"{os.path.abspath(file)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    kept = cache_dir / f"unreadable-images-{digest.hexdigest()}.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    with ThreadPoolExecutor(num_threads or min(16, os.cpu_count() or 1), "kd-check") as pool:
        reasons = list(pool.map(partial(_reason, max_pixels=max_pixels), files, chunksize=64))
    bad = {file: reason for file, reason in zip(files, reasons, strict=True) if reason is not None}
    cache_dir.mkdir(parents=True, exist_ok=True)
    partly = kept.with_suffix(f".{os.getpid()}")
    partly.write_text(json.dumps(bad, indent=1))
    partly.replace(kept)
    return bad


def digest_files(files: Sequence[str], root: Path, choice: str, sampled: int = 256) -> str:
    """Hex digest of ``choice``, the files' names below ``root``, their sizes, and the content of about ``sampled``."""
    digest = hashlib.blake2b(choice.encode(), digest_size=16)
    for file in files:
        digest.update(f"{os.path.relpath(file, root)}\0{os.path.getsize(file)}\n".encode())
    for file in files[:: max(1, len(files) // sampled)]:
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()


def _reason(file: str, max_pixels: int) -> str | None:
    try:
        read_image(file, max_pixels=max_pixels)
    except ImageError as error:
        return str(error)
    return None
