"""A remark that a start gives to what it starts (``note=…``), beside those that somebody writes by hand."""

from __future__ import annotations

from pathlib import Path

from kd_lightning.runs.directory import NOTES


def keep_note(directory: Path, note: str) -> None:
    """Add a line to the directory's ``notes.txt``, unless it stands there already: nothing that is there is lost."""
    path = directory / NOTES
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    if note not in before.splitlines():
        separator = "\n" if before and not before.endswith("\n") else ""
        path.write_text(f"{before}{separator}{note}\n", encoding="utf-8")
