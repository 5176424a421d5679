"""What GitHub shows as a list or a table the site shows as one too: its Markdown wants an empty line before either."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
BEGINS = re.compile(r"\s*([-*] |\d+\. |\|)")


def run_together(text: str) -> list[str]:
    """The first lines of lists and tables that follow a line of text."""
    found, fenced, before = [], False, ""
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and BEGINS.match(line) and before.strip() and not before.startswith(("#", "<!--")):
            within = BEGINS.match(before) or before.startswith("  ")  # the line before is of the same list
            if not within:
                found.append(line)
        before = line
    return found


def test_lists_and_tables_begin_after_an_empty_line():
    assert run_together("Beside them are\n- one\n- two") == ["- one"]
    assert run_together("# Head\n- one\n  more\n- two\n\n| a |\n|---|") == []
    found = {
        path.name: lines for path in DOCS.glob("*.md") if (lines := run_together(path.read_text(encoding="utf-8")))
    }
    assert found == {}
