"""What a reader of our Markdown would copy: commands, and files to write."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"^(?:# @package \w+\n)?# ([\w/.-]+\.(?:py|yaml))\n")
PROGRAMS = ("kd-", "tensorboard ", "pip ")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language ("" for none), its text, the line where it starts."""

    language: str
    text: str
    line: int

    @property
    def file(self) -> str | None:
        """The file that a first line like ``# my_models.py`` names."""
        named = _FILE.match(self.text)
        return named[1] if named else None

    @property
    def commands(self) -> list[str]:
        """Lines that are typed in a shell; none in a listing."""
        if self.language:
            return []
        return [line for line in self.text.splitlines() if line.startswith(PROGRAMS)]


def blocks(document: str) -> list[Block]:
    """All fenced blocks of a document (path from the repository's top), in order."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return [Block(found[1], found[2], text.count("\n", 0, found.start()) + 1) for found in _FENCE.finditer(text)]


def steps(document: str) -> list[tuple[str, str | Block]]:
    """What to do in order, each with a short name: write a file, run a script, type a command."""
    made: list[tuple[str, str | Block]] = []
    for block in blocks(document):
        if block.language in ("python", "yaml"):
            made.append((block.file or f"line {block.line}", block))
        made += [(command, command) for command in block.commands]
    return made


def words(command: str) -> list[str]:
    """The command as a shell splits it, without a comment at its end."""
    return shlex.split(command, comments=True)
