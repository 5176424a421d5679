"""docs/should_i_distil.md: the pairs' gains are those that their experiments' files state."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "should_i_distil.md").read_text(encoding="utf-8").replace("\u2212", "-")
ROWS = dict(re.findall(r"^\| `(\w+)` \|(.*)\|$", TEXT.partition("## Pairs that ship")[2], re.M))


def experiment(name: str) -> str:
    return (ROOT / "conf" / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")


def test_every_gain_stands_in_its_experiments_file():
    wrong = []
    for name, row in ROWS.items():
        (interval,) = re.findall(r"\[[^]]+\]", row)
        (gain,) = re.findall(r"([\d.]+)[^[\d]*(?:of [\d.]+ )?\[", row)
        if interval not in experiment(name) or not re.search(rf"(?<![\d.]){re.escape(gain)}(?![\d])", experiment(name)):
            wrong.append((name, gain, interval))
    assert wrong == []
