"""docs/threads.md is a lesson: its examples run as they stand, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "threads.md"


def test_every_example_of_the_threads_page_runs_in_the_order_of_the_page():
    text = PAGE.read_text()
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    session: dict = {"__name__": "threads_page"}
    for block in blocks:
        line = text[: block.start()].count("\n") + 1  # so that a traceback shows the line of the page
        exec(compile("\n" * line + block.group(1), str(PAGE), "exec"), session)
    assert len(blocks) >= 15


def test_every_link_of_the_threads_page_leads_somewhere():
    text = PAGE.read_text()
    headings = {
        re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert {link[1:] for link in links if link.startswith("#")} <= headings
    for link in links:
        if not link.startswith("#"):
            assert (PAGE.parent / link).exists(), link
