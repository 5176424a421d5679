"""docs/coming_from.md: each key that it gives as ours is one, and each of its command lines composes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from kd_lightning.cli._hydra_main import run_hydra
from kd_lightning.cli.train import check_job

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "coming_from.md").read_text()
NOWHERE = ["hydra.output_subdir=null", "run_dir=run", "hydra/launcher=basic"]
FILLED = {"FILE": "best.pth", "[…]": "[1,2]", "ALPHA": "0.3", "1-ALPHA": "0.7"}


def ours() -> list[str]:
    """What stands in code in the right columns, but for the last table, which compares."""
    tables = TEXT.split("## What each has")[0]
    cells = [
        line.strip("|").rsplit("|", 1)[1] for line in tables.splitlines() if line.startswith("| `") or " | `" in line
    ]
    return [span for cell in cells for span in re.findall(r"`([^`]+)`", cell)]


SPANS = ours()
LINES = sorted({span for span in SPANS if "=" in span and not span.endswith("=")})
KEYS = sorted({span for span in SPANS if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", span)})
GROUPS = sorted({span.rstrip("=") for span in SPANS if re.fullmatch(r"[a-z]+=", span)})


@pytest.fixture
def composed(tmp_path, monkeypatch):
    """The configuration of a command line; fails where it is refused."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "best.pth").touch()

    def compose(*words):
        jobs = []
        assert run_hydra(jobs.append, "train", [*words, *NOWHERE], check=check_job) == 0
        return jobs[0]

    return compose


def words(line: str) -> list[str]:
    for placeholder, value in sorted(FILLED.items(), key=lambda pair: -len(pair[0])):
        line = line.replace(f"={placeholder}", f"={value}")
    return line.split()


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES)
def test_a_command_line_of_the_page_composes(line, composed):
    composed(*words(line))


def test_a_key_of_the_page_is_one(composed):
    configs = [composed(words) for words in ("method=dkd", "method=kd", "method=fitnet")]
    found = {key for config in configs for key in KEYS if has(config, key)}
    assert sorted(found) == KEYS


def has(config: DictConfig, key: str) -> bool:
    above, _, last = key.rpartition(".")
    return last in (OmegaConf.select(config, above) or {})


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_of_the_page_is_one(group):
    assert (ROOT / "conf" / group).is_dir()


def test_the_other_names_in_the_right_column_are_methods_or_placeholders():
    methods = {path.stem for path in (ROOT / "conf" / "method").glob("*.yaml")}
    rest = {span for span in SPANS if span not in LINES and span not in KEYS and span.rstrip("=") not in GROUPS}
    known = {"_target_", "--cfg job", "method.weights.<term>", "{'model': …}"}
    assert rest - methods <= known
    assert len(LINES) > 15
    assert len(KEYS) > 5
