"""``kd-cache``: look at, verify and tidy up stored teacher outputs."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from kd_lightning.cli._streams import steady
from kd_lightning.errors import UserError
from kd_lightning.teachers.cache.sealed import CacheError
from kd_lightning.teachers.cache.size import human
from kd_lightning.teachers.cache.store import CacheStore

DAY = 86400.0


@dataclass
class Entry:
    """One cache as found on disk; ``store`` is None where its description cannot be read, and ``problem`` says why."""

    directory: Path
    store: CacheStore | None
    problem: str | None

    @property
    def nbytes(self) -> int:
        return sum(p.stat().st_size for p in self.directory.iterdir() if p.is_file())

    @property
    def idle_days(self) -> float:
        """Days since it was last read or written."""
        latest = max((p.stat().st_mtime for p in self.directory.iterdir()), default=self.directory.stat().st_mtime)
        return max(0.0, (time.time() - latest) / DAY)

    @property
    def lock(self) -> FileLock:
        return FileLock(self.directory.with_name(self.directory.name + ".lock"))


def find(root: Path) -> list[Entry]:
    """The caches in a directory, or the one cache that it is.

    Raises:
        UserError: there is no such directory.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a directory: give a directory of teacher caches, such as outputs/cache")
    candidates = [root] if _is_cache(root) else sorted(p for p in root.iterdir() if p.is_dir() and _is_cache(p))
    entries = []
    for directory in candidates:
        try:
            entries.append(Entry(directory, CacheStore(directory), None))
        except CacheError as error:
            entries.append(Entry(directory, None, str(error)))
    return entries


def list_caches(entries: Sequence[Entry]) -> int:
    """Print each cache's size, use and key."""
    for entry in entries:
        print(f"{entry.directory.name}  {human(entry.nbytes):>9}  used {_days(entry.idle_days)} ago  {_summary(entry)}")
        for part, value in (entry.store.parts if entry.store else {}).items():
            print(f"    {part}: {_shown(value)}")
    print(f"{len(entries)} caches, {human(sum(entry.nbytes for entry in entries))}")
    return 0


def verify_caches(entries: Sequence[Entry]) -> int:
    """Check every byte of every cache; 1 if any is damaged."""
    damaged = 0
    for entry in entries:
        problem = damage(entry)
        damaged += problem is not None
        print(f"{entry.directory.name}  {human(entry.nbytes):>9}  {problem or 'ok'}")
    print(f"{len(entries)} caches, {damaged} damaged")
    return 1 if damaged else 0


def damage(entry: Entry) -> str | None:
    """What is wrong with a cache, or None."""
    if entry.store is None:
        return entry.problem
    try:
        for view in entry.store.views():
            entry.store.verify(view)
        if entry.store.has_fitted:
            entry.store.fitted()
    except CacheError as error:
        return str(error)
    return None


def prune_caches(
    entries: Sequence[Entry], chosen: Callable[[Entry], str | None], confirmed: bool, announce: Callable = print
) -> int:
    """Delete the caches for which ``chosen`` gives a reason; without ``confirmed`` only say which."""
    freed = count = 0
    for entry in entries:
        reason = chosen(entry)
        if reason is None:
            continue
        size = entry.nbytes
        if not confirmed:
            announce(f"would delete {entry.directory.name}  {human(size):>9}  {reason}")
        elif not _delete(entry):
            announce(f"kept {entry.directory.name}: a process is writing it")
            continue
        else:
            announce(f"deleted {entry.directory.name}  {human(size):>9}  {reason}")
        freed, count = freed + size, count + 1
    if confirmed:
        announce(f"{count} caches deleted, {human(freed)} freed")
    else:
        announce(f"{count} caches, {human(freed)}: nothing was deleted; add --yes to delete")
    return 0


def _delete(entry: Entry) -> bool:
    try:
        with entry.lock.acquire(timeout=0.2):
            # the description goes first: what is left of an interrupted deletion is recognised as no cache
            (entry.directory / "meta.json").unlink(missing_ok=True)
            shutil.rmtree(entry.directory)
    except Timeout:
        return False
    return True


def _is_cache(directory: Path) -> bool:
    return (directory / "meta.json").exists() or any(directory.glob("view_*.npy"))


def _summary(entry: Entry) -> str:
    if entry.store is None:
        return "DAMAGED"
    kinds = "+".join(f"{c.name} {c.dtype}{list(c.shape)}" for c in entry.store.columns)
    views = entry.store.views()
    with contextlib.suppress(Timeout, OSError), entry.lock.acquire(timeout=0):
        return f"{len(views)} views of {entry.store.samples} samples, {kinds}, made {entry.store.created}"
    return f"{len(views)} views of {entry.store.samples} samples, {kinds}, BEING WRITTEN"


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_shown(v)}" for k, v in value.items())
    return value[:16] if isinstance(value, str) else str(value)


def _days(days: float) -> str:
    return f"{days:.0f} days" if days >= 2 else f"{days * 24:.1f} h"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="kd-cache", description="Stored teacher outputs: list, verify, prune.")
    commands = top.add_subparsers(dest="command", required=True)
    for name, text in (
        ("list", "sizes, ages and keys"),
        ("verify", "check every byte against its checksum; exit code 1 if any cache is damaged"),
        ("prune", "delete caches by age or damage; says what it would do unless --yes is given"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument(
            "directory", type=Path, metavar="DIR", help="the caches' directory (outputs/cache), or one cache"
        )
    prune = commands.choices["prune"]
    prune.add_argument("--unused", type=float, metavar="DAYS", help="not read or written for so many days")
    prune.add_argument("--corrupt", action="store_true", help="damaged ones")
    prune.add_argument("--all", action="store_true", help="all of them")
    prune.add_argument("--yes", action="store_true", help="delete, instead of only saying what would be deleted")
    return top


@steady
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 well, 1 damage was found, 2 the user's to mend."""
    options = parser().parse_args(argv)
    try:
        entries = find(options.directory)
        if options.command == "list":
            return list_caches(entries)
        if options.command == "verify":
            return verify_caches(entries)
        if options.unused is None and not (options.corrupt or options.all):
            raise UserError("kd-cache prune: say which: --unused DAYS, --corrupt or --all")

        def chosen(entry: Entry) -> str | None:
            if options.all:
                return "all"
            if options.unused is not None and entry.idle_days >= options.unused:
                return f"unused for {_days(entry.idle_days)}"
            return damage(entry) if options.corrupt else None

        return prune_caches(entries, chosen, options.yes)
    except UserError as error:
        print(f"kd-cache: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"kd-cache: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
