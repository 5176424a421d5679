"""What the site needs beyond Markdown: links that leave docs/ (to code, for readers of the repository) become their text,
and reStructuredText's marks in docstrings (``::``, ``:class:``) go."""

from __future__ import annotations

import re
from typing import Any

_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./[^)]*\)")
_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):<code>~?([^<]*)</code>")


def on_page_markdown(markdown: str, **_: Any) -> str:
    return _OUTSIDE.sub(r"\1", markdown)


def on_page_content(html: str, **_: Any) -> str:
    html = _ROLE.sub(lambda role: f"<code>{role[1].rpartition('.')[2]}</code>", html)
    return html.replace("<p>::</p>", "").replace("::</p>", ":</p>")
