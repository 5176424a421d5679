"""The documentation as a site: built strictly, every link and anchor is there, nothing is fetched from elsewhere."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = ("mkdocs", "material", "mkdocstrings")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in NEEDED), reason='needs pip install -e ".[docs]"'
    ),
]


class Page(HTMLParser):
    """Links and anchors of a page, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if tag in ("script", "img", "source", "iframe") and given.get("src"):
            self.loaded.append(given["src"])
        if tag == "link" and "canonical" not in given.get("rel", "") and given.get("href"):
            self.loaded.append(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> dict[Path, Page]:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return {path: Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}


def test_there_is_no_dead_link(site):
    dead = []
    for path, page in site.items():
        for link in page.links:
            if re.match(r"(https?|mailto):", link) or path.name == "404.html":
                continue
            name, _, anchor = unquote(link).partition("#")
            target = (path.parent / name).resolve() if name else path
            found = target in site or target.is_file()  # pages, and files such as the notebook
            if not found or (anchor and anchor not in site[target].anchors):
                dead.append(f"{path.name}: {link}")
    assert dead == []
    assert sum(len(page.links) for page in site.values()) > 500


def test_pages_load_nothing_from_elsewhere(site):
    assert [url for page in site.values() for url in page.loaded if re.match(r"(https?:)?//", url)] == []


def test_the_public_names_have_their_reference(site):
    import kd_lightning as kd

    (api,) = [page for path, page in site.items() if path.name == "api.html"]
    ends = {anchor.rpartition(".")[2] for anchor in api.anchors}
    assert sorted(set(kd.__all__) - {"__version__"} - ends) == []


def test_docstrings_show_no_marks_of_another_language(site):
    (text,) = [path.read_text() for path in site if path.name == "api.html"]
    body = text.partition("<article")[2].partition("</article>")[0]
    assert ":class:" not in body
    assert "<p>::" not in body
