"""How many validation or test pictures are training pictures too: files of equal content, whatever they are called."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence

from kd_lightning.data.images.decode import shown

LOOKED_AT, READ = 500, 5_000
"""So many of the pictures are looked at, and at most so many training pictures read for them."""
LEAST = 0.05
"""The share of pictures from which on it is told: fewer copies are in many a published set."""


def shared_files(others: Mapping[str, Sequence[str]], train: Sequence[str]) -> list[str]:
    """Words on how many of some files are copies of training files, for each kind of which that is worth telling.

    Args:
        others: files by what the pictures are, "test" or "validation"; some of them are looked at, evenly spread.
        train: the training pictures' files; those of a looked-at file's size are read, up to 64 KiB of each.
    """
    sized = [(file, _size(file)) for file in train]
    return [*filter(None, (_told(name, files, sized) for name, files in others.items()))]


def _told(name: str, files: Sequence[str], train: Sequence[tuple[str, int]]) -> str | None:
    by_size: dict[int, list[str]] = defaultdict(list)
    for file in _spread(files, LOOKED_AT):
        by_size[_size(file)].append(file)
    candidates = [file for file, size in train if size in by_size]
    read = {_digest(file): file for file in _spread(candidates, READ)}
    looked_at = [file for same in by_size.values() for file in same]
    copies = [(file, read[digest]) for file in looked_at if (digest := _digest(file)) in read]
    covered = min(1.0, READ / max(1, len(candidates)))
    if len(copies) < max(2, LEAST * covered * len(looked_at)):
        return None
    share = len(copies) / len(looked_at) / covered
    whole = len(looked_at) == len(files) and covered == 1.0
    told = f"{len(copies):,} of the {len(files):,}" if whole else f"about {min(1.0, share):.0%} of the {len(files):,}"
    first, second = copies[0]
    return (
        f"{told} {name} pictures are training pictures too ({shown(first)} is {shown(second)}): their figures say what is "
        "remembered, not what new pictures would show"
    )


def _spread(files: Sequence[str], most: int) -> list[str]:
    count = min(most, len(files))
    return [files[place * len(files) // count] for place in range(count)]


def _size(file: str) -> int:
    try:
        return os.path.getsize(file)
    except OSError:  # a link to nowhere, which is told where the file is read
        return -1


def _digest(file: str) -> bytes:
    try:
        with open(file, "rb") as opened:
            return hashlib.blake2b(opened.read(1 << 16), digest_size=16).digest()
    except OSError:
        return os.fsencode(file)
