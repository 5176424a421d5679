"""The lists of keys in docs/configuration.md, written from the table.

After a change of the table: ``python -m kd_lightning.config.keys_page docs/configuration.md``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from kd_lightning.config.keys import KEYS, Key

_CONTAINERS = frozenset({"target", "targets", "arguments", "overlay", "choice"})


def groups() -> str:
    """The config groups as a Markdown table."""
    rows = [f"| `{name}` | {key.meaning} |" for name, key in KEYS.items() if key.group]
    return "\n".join(["| group | says |", "|---|---|", *rows])


def plain_keys() -> str:
    """The plain keys as a Markdown table: what each may hold, what it is for, its meaning."""
    rows = [
        f"| `{name}` | {key.rule.words()} | {_for(key)} | {key.meaning} |"
        for name, key in KEYS.items()
        if key.rule.kind not in _CONTAINERS and not (key.group and key.rule.kind == "mapping")
    ]
    return "\n".join(["| key | holds | for | |", "|---|---|---|---|", *rows])


def _for(key: Key) -> str:
    return key.role + (", own" if key.own else "")


def renewed(page: str) -> str:
    """The page with both lists as the table has them, between ``<!-- groups -->`` and ``<!-- keys -->`` and their ends."""
    for name, table in (("groups", groups()), ("keys", plain_keys())):
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, _, rest = page.partition(start)
        page = f"{before}{start}\n{table}\n{end}{rest.partition(end)[2]}"
    return page


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")
