"""Small descriptions under their own checksum, and the error of a cache that must not be read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd_lightning.errors import UserError
from kd_lightning.runs.atomic import write_atomically

FORMAT = 2
DELETE = "delete its directory (kd-cache prune DIR --corrupt --yes) and start again"


class CacheError(UserError):
    """A cache that must not be read: damaged, incomplete, or of something else. The text names the file."""


def block_digest(block: bytes | bytearray) -> str:
    """The checksum of one block of a data file."""
    return hashlib.blake2b(block, digest_size=8).hexdigest()


def _seal(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write a small description with its own checksum."""
    content = {"format": FORMAT, **content}
    write_atomically(path, json.dumps({**content, "seal": _seal(content)}, indent=1) + "\n")


def read_sealed(path: Path) -> dict[str, Any]:
    """What :func:`write_sealed` wrote; CacheError where it is not that."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        seal = content.pop("seal")
    except FileNotFoundError:
        raise CacheError(f"{path}: missing, so this is not a complete teacher cache: {DELETE}") from None
    except (ValueError, KeyError, AttributeError, TypeError):
        raise CacheError(f"{path}: not the description of a teacher cache, or damaged: {DELETE}") from None
    if _seal(content) != seal:
        raise CacheError(f"{path}: altered since it was written: {DELETE}")
    if content.get("format") != FORMAT:
        raise CacheError(f"{path}: written in format {content.get('format')}, this version reads {FORMAT}: {DELETE}")
    return {**content, "seal": seal}
