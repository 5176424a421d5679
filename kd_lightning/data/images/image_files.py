"""Finding the images of a directory with one folder a class, and finding out which of them cannot be read."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from kd_lightning.batch import UNLABELLED
from kd_lightning.data.images.decode import ImageError, read_image, shown
from kd_lightning.errors import UserError

_log = logging.getLogger(__name__)
_CHECKED = 2  # raise it where the decoder comes to take, or refuse, other files: remembered answers are asked again
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm")


def class_folders(directory: Path, key: str) -> list[str]:
    """The names of the folders in ``directory``, sorted; ``key`` is the config key to name in errors."""
    if not directory.is_dir():
        raise UserError(f"{key}: there is no directory {directory}: set it to a directory with one folder a class")
    names = sorted(entry.name for entry in os.scandir(directory) if entry.is_dir() and not entry.name.startswith("."))
    unprintable = next((name for name in names if shown(name) != name), None)
    if unprintable is not None:  # the name becomes the class's: in tables, results, event files
        raise UserError(f"{key}: the name of the folder {shown(directory / unprintable)} is not UTF-8: rename it")
    if not names:
        raise UserError(
            f"{key}: {directory} has no folders: put the images of each class into a folder of their own; data.labels=none "
            "takes them without classes"
        )
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
    owners: dict[tuple[int, int], str] = {}  # which class a real directory belongs to
    for number, name in enumerate(classes):
        found = _images_below(directory / name, name, owners, key)
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


def unlabelled_images(directory: Path, key: str) -> tuple[list[str], Tensor]:
    """The images in a directory and in all folders below it, in sorted order, and ``UNLABELLED`` for each.

    Args:
        directory: holds them.
        key: the config key to name in errors.
    """
    if not directory.is_dir():
        raise UserError(f"{key}: there is no directory {directory}: set it to one that holds images")
    files = _images_below(directory, "", {}, key)
    if not files:
        raise UserError(f"{key}: {directory} and the folders below it hold no images ({', '.join(EXTENSIONS[:3])}, …)")
    return files, torch.full((len(files),), UNLABELLED)


def _images_below(folder: Path, name: str, owners: dict[tuple[int, int], str], key: str) -> list[str]:
    """The images in a class's folder and below, sorted. Links are followed, each real directory is visited once: one
    that leads back up is left out, one into another class's folder is an error."""
    found: list[str] = []
    above = {_identity(parent) for parent in folder.absolute().parents}
    waiting = [os.fspath(folder)] if folder.is_dir() else []
    while waiting:
        place = waiting.pop()
        here = _identity(place)
        if here in above or owners.get(here) == name:
            _log.warning(
                "%s: %s leads to a folder that holds it, or that was read already: left out", key, shown(place)
            )
            continue
        if here in owners:
            raise UserError(f"{key}: {shown(place)} is the same folder as one of class {owners[here]!r}: remove one")
        owners[here] = name
        try:
            entries = list(os.scandir(place))
        except OSError as error:
            raise UserError(f"{key}: {shown(place)} cannot be listed: {error.strerror}") from error
        for entry in entries:
            if entry.is_dir():
                waiting.append(entry.path)
            elif entry.name.lower().endswith(EXTENSIONS) and not entry.name.startswith("."):
                found.append(entry.path)
    return sorted(found)


def _identity(path: str | Path) -> tuple[int, int]:
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino


def left_out(directory: Path, classes: Sequence[str]) -> str:
    """Words on the files below the class folders that are no images by their suffix; empty where there are none."""
    found = Counter(
        os.path.splitext(file)[1].lower() or "no suffix"
        for name in classes
        for _, _, names in os.walk(directory / name)
        for file in names
        if not file.lower().endswith(EXTENSIONS) and not file.startswith(".")
    )
    kinds = ", ".join(f"{suffix} {count:,}" for suffix, count in found.most_common(4))
    return f"{found.total():,} files left out by suffix ({kinds})" if found else ""


def unreadable(
    files: Sequence[str], num_threads: int | None, max_pixels: int, cache_dir: Path, grey_white: int | None = None
) -> dict[str, str]:
    """Which files cannot be decoded, and why. Decodes each once, and remembers the answer for unchanged files.

    Args:
        files: the paths.
        num_threads: None: as many as there are processors, at most 16.
        max_pixels: larger images count as unreadable.
        grey_white: see :func:`~kd_lightning.data.images.decode.read_image`.
        cache_dir: where the answers are kept, a small JSON file for each list of files.
    """
    digest = hashlib.blake2b(f"{_CHECKED} {max_pixels} {grey_white}".encode(), digest_size=12)
    for file in files:
        try:
            stat = os.stat(file)
        except OSError:  # a link to nowhere: the decoder will say so
            digest.update(os.fsencode(file) + b"\0-\n")
        else:
            digest.update(os.fsencode(os.path.abspath(file)) + f"\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    kept = cache_dir / f"unreadable-images-{digest.hexdigest()}.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    with ThreadPoolExecutor(num_threads or min(16, os.cpu_count() or 1), "kd-check") as pool:
        reasons = list(pool.map(partial(_reason, max_pixels=max_pixels, grey_white=grey_white), files, chunksize=64))
    bad = {file: reason for file, reason in zip(files, reasons, strict=True) if reason is not None}
    cache_dir.mkdir(parents=True, exist_ok=True)
    partly = kept.with_suffix(f".{os.getpid()}")
    partly.write_text(json.dumps(bad, indent=1))
    partly.replace(kept)
    return bad


def digest_files(files: Sequence[str], root: Path, choice: str, sampled: int = 256) -> str:
    """Hex digest of ``choice``, the files' names below ``root``, their sizes, and the content of about ``sampled``."""
    digest = hashlib.blake2b(choice.encode(), digest_size=16)
    try:
        for file in files:
            digest.update(os.fsencode(os.path.relpath(file, root)) + f"\0{os.path.getsize(file)}\n".encode())
        for file in files[:: max(1, len(files) // sampled)]:
            digest.update(Path(file).read_bytes())
    except OSError as error:
        raise UserError(
            f"data.root: {shown(file)} cannot be read ({error.strerror}; a link to nowhere?): remove it, or set "
            "data.on_bad_image=skip"
        ) from error
    return digest.hexdigest()


def _reason(file: str, max_pixels: int, grey_white: int | None) -> str | None:
    try:
        read_image(file, max_pixels=max_pixels, grey_white=grey_white)
    except ImageError as error:
        return str(error)
    return None
