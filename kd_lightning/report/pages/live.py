"""The sweeps below TensorBoard's directory, and their report's content, kept fresh cheaply.

A page asks for a sweep's ``signature`` every few seconds: some file times, no file content. Only when it changes does
the page ask for the content, and then only the runs whose files have moved are read again.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from kd_lightning.report.pages.payload import payload, to_json
from kd_lightning.report.study.collect import collect
from kd_lightning.report.study.reading import RunReader, file_stamp, is_run, run_folders

SEARCH_SECONDS = 5.0
"""How long the list of sweeps is kept before the directory is searched again."""
CURVE_SECONDS = 10.0
"""Running curves are shown anew at most this often; a run that ends is shown at once."""
_DEPTH = 5
_SKIPPED = frozenset(("checkpoints", "teachers", "00_sweep", "lightning_logs"))


@dataclass(frozen=True)
class Place:
    """A directory with runs: a sweep, or a folder of single runs."""

    id: str  # path below the searched directory, "." for itself
    path: Path
    changed: float


class LiveReports:
    """Finds sweeps below some directories and gives their signature and content. Safe to use from several threads."""

    def __init__(self, roots: list[Path]) -> None:
        self.roots = roots
        self._lock = threading.Lock()
        self._readers: dict[str, RunReader] = {}
        self._contents: dict[str, tuple[str, str]] = {}
        self._places: list[Place] = []
        self._searched = float("-inf")

    def places(self) -> list[Place]:
        """The sweeps, the one that changed last first."""
        with self._lock:
            if time.monotonic() - self._searched > SEARCH_SECONDS:
                found = [place for i, root in enumerate(self.roots) for place in _search(root, i, len(self.roots))]
                self._places = sorted(found, key=lambda place: -place.changed)
                self._searched = time.monotonic()
            return list(self._places)

    def place(self, name: str | None) -> Place:
        """The sweep of that id (the newest for None).

        Raises:
            LookupError: if there is none; ids are looked up and never joined to a path.
        """
        places = self.places()
        for place in places:
            if name in (None, "", place.id):
                return place
        wanted = f"no sweep {name!r}" if name else "no sweep and no run"
        raise LookupError(f"{wanted} below {', '.join(str(root) for root in self.roots) or 'no local directory'}")

    def signature(self, name: str | None) -> str:
        """Changes when a run ends, starts or (every few seconds) makes progress."""
        place = self.place(name)
        digest = hashlib.sha1(repr(_stamp(place.path / "sweep.json")).encode())
        progress = 0.0
        for folder in run_folders(place.path):
            result = _stamp(folder / "result.json")
            digest.update(f"{folder}{result}".encode())
            if result is None:
                progress = max([progress, *(entry[1] / 1e9 for entry in file_stamp(folder))])
        digest.update(str(progress // CURVE_SECONDS).encode())
        return digest.hexdigest()

    def content(self, name: str | None) -> str:
        """The report's content as JSON text, with the signature that it belongs to."""
        place = self.place(name)
        signature = self.signature(place.id)
        with self._lock:
            known = self._contents.get(place.id)
            if known and known[0] == signature:
                return known[1]
            reader = self._readers.setdefault(place.id, RunReader())
            text = to_json({**payload(collect(place.path, reader)), "signature": signature, "sweep": place.id})
            self._contents[place.id] = (signature, text)
            return text


def _search(root: Path, number: int, count: int) -> list[Place]:
    """Directories that hold runs, down to ``_DEPTH`` levels, without looking into runs."""
    prefix = f"{number}:" if count > 1 else ""
    if is_run(root):
        return [Place(f"{prefix}.", root, _newest(root))]
    found: list[Place] = []
    waiting = [(root, 0)]
    while waiting:
        folder, depth = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                children = [Path(e.path) for e in entries if e.is_dir() and e.name[0] != "." and e.name not in _SKIPPED]
        except OSError:  # removed or locked since it was listed
            continue
        runs = {child for child in children if is_run(child)}
        if runs or (folder / "sweep.json").exists():
            name = os.path.relpath(folder, root)
            found.append(Place(prefix + name, folder, _newest(folder)))
        if depth < _DEPTH:
            waiting += [(child, depth + 1) for child in children if child not in runs]
    return found


def _newest(folder: Path) -> float:
    return max((s[0] / 1e9 for s in (_stamp(folder), _stamp(folder / "sweep.json")) if s), default=0.0)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
