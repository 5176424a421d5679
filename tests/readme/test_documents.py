"""README and the pages in docs/ work as they are written: files are written, commands typed, in order, in an empty folder.

Only numbers of epochs are made smaller, and data sets that would be downloaded are made up.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import made_up_data
import markdown_blocks as markdown
import processes
import pytest
import yaml

DOCUMENTS = [
    "README.md",
    *(f"docs/{name}.md" for name in ("tutorial", "teachers", "looking", "runs", "loading")),
    "docs/augmentation.md",
    "docs/own_code.md",
    "docs/configuration.md",
    "docs/methods.md",
    "docs/results.md",
]
FAST = {
    "trainer.max_epochs": "2",
    "teacher.train.max_epochs": "2",
    "pictures.every_n_epochs": "0",
}
STEPS = [(document, name, what) for document in DOCUMENTS for name, what in markdown.steps(document)]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """An empty folder for each document, outside the repository."""
    made: dict[str, Path] = {}

    def folder(document: str) -> Path:
        if document not in made:
            made[document] = tmp_path_factory.mktemp(Path(document).stem)
        return made[document]

    return folder


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    made_up_data.write_fashion_mnist(folder)
    made_up_data.write_cifar100(folder)
    return folder


@pytest.mark.parametrize(("document", "name", "what"), STEPS, ids=[f"{d}: {n}" for d, n, _ in STEPS])
def test_the_next_step_works(document, name, what, folders, data_dir):
    folder = folders(document)
    if isinstance(what, markdown.Block):
        do_block(what, folder)
    else:
        do_command(markdown.words(what), folder, data_dir)


def do_block(block: markdown.Block, folder: Path) -> None:
    if block.file:
        path = folder / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)
    elif block.language == "python":
        done = subprocess.run([sys.executable, "-c", block.text], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    else:
        assert yaml.safe_load(block.text) is not None


def do_command(words: list[str], folder: Path, data_dir: Path) -> None:
    if words[0] == "pip":  # tests/packaging and .ci/run install; what comes after it is a command of its own
        assert words[1] == "install"
        rest = words[words.index("&&") + 1 :] if "&&" in words else []
        assert rest[:1] in ([], ["kd-train"], ["pytest"])
        words = rest
    if words[:1] == ["kd-train"]:
        train(words[1:], folder, data_dir)
    elif words[:1] == ["tensorboard"]:
        serve(words, folder)
    elif words and words[0] != "pytest":
        done = processes.run(folder, *words[1:], program=words[0].removeprefix("kd-"))
        assert done.code == 0, done.text


def train(arguments: list[str], folder: Path, data_dir: Path) -> None:
    if "sweep=optuna" in arguments:
        pytest.skip("tests/sweeps/search/test_search.py runs it")
    given = {argument.lstrip("+").partition("=")[0] for argument in arguments}
    quick = [f"{key}={value}" for key, value in FAST.items() if key not in given]
    if {"teacher=none", "teacher=sklearn", "teacher=stored", "teacher=tfidf"} & {*arguments}:  # they have no recipe
        quick = [override for override in quick if not override.startswith("teacher.")]
    if "--cfg" in arguments or "--help" in arguments:
        quick = []
    done = processes.run(folder, *arguments, *quick, timeout=600, KD_DATA_DIR=str(data_dir))
    assert done.code == 0, done.text
    told = {"--cfg", "--help", "launcher.dry_run=true"} & {*arguments}
    assert told or "report " in done.text or "files " in done.text


def serve(words: list[str], folder: Path) -> None:
    """TensorBoard comes up on the loopback address; the port is left to the system."""
    program = Path(sysconfig.get_path("scripts")) / words[0]
    log = folder / "tensorboard.log"
    with log.open("w") as output:
        server = subprocess.Popen([program, *words[1:], "--port", "0"], cwd=folder, stdout=output, stderr=output)
        try:
            until = time.monotonic() + 90
            while "http://127.0.0.1:" not in log.read_text():
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.2)
        finally:
            server.terminate()
            server.wait(20)


def test_readme_begins_with_the_two_commands():
    first = next(block for block in markdown.blocks("README.md") if block.commands)
    assert first.commands == [
        'pip install -e ".[dev]" && kd-train',
        'pip install -e ".[dev]" && pytest -n 2 --dist loadfile',
    ]
    assert first.line < 30


def test_the_page_of_methods_names_those_that_exist_and_the_library_all():
    page = (markdown.ROOT / "docs/methods.md").read_text()
    methods = {path.stem for path in (markdown.ROOT / "conf/method").glob("*.yaml") if not path.stem.startswith("_")}
    table = page.split("## What each imitates")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = {word.strip("`, ") for row in rows for word in row.split() if word.startswith("`")}
    assert len(named) > 15
    assert named <= methods
    library = (markdown.ROOT / "docs/method_library.md").read_text()
    assert [name for name in sorted(methods - {"none"}) if f"| `{name}`" not in library] == []


def test_readme_is_a_screen_or_two_and_leads_to_every_page():
    readme = (markdown.ROOT / "README.md").read_text()
    assert len(readme.splitlines()) < 110
    pages = {path.name for path in (markdown.ROOT / "docs").glob("*.md")}
    linked = {part.partition(")")[0].removeprefix("docs/") for part in readme.split("](")[1:]}
    behind = {"index.md", "api.md", "golden.md", "threads.md", "export_matrix.md"}  # behind those
    assert sorted(pages - linked - behind) == []


@pytest.mark.parametrize(
    "document", ["README.md", *sorted(f"docs/{p.name}" for p in (markdown.ROOT / "docs").glob("*.md"))]
)
def test_what_a_page_links_to_is_there(document):
    text = (markdown.ROOT / document).read_text()
    links = [part.partition(")")[0].partition("#")[0] for part in text.split("](")[1:]]
    local = [link for link in links if link and "://" not in link]
    assert [link for link in local if not (markdown.ROOT / document).parent.joinpath(link).exists()] == []


def test_the_figures_of_the_pages_are_those_beside_the_experiments():
    """A figure is kept in two places at most if a test holds them together."""
    results = (markdown.ROOT / "docs/results.md").read_text()
    readme = (markdown.ROOT / "README.md").read_text()
    config = (markdown.ROOT / "conf/experiment/fashion_mnist.yaml").read_text()
    for figure in ("92.4", "81.8 ± 0.4", "86.0 ± 0.3", "26,722", "241,770", "[3.8, 4.7]"):
        assert all(figure in text for text in (results, readme, config)), figure


def typed_and_answered() -> list[tuple[str, str]]:
    """The table of mistakes in docs/configuration.md."""
    lines = (markdown.ROOT / "docs/configuration.md").read_text().splitlines()
    rows = [line.split("|")[1:3] for line in lines if "| `error:" in line]
    return [(typed.strip(" `"), answer.strip(" `")) for typed, answer in rows]


@pytest.mark.parametrize(("typed", "answer"), typed_and_answered(), ids=[typed for typed, _ in typed_and_answered()])
def test_a_mistake_is_answered_as_the_page_says(typed, answer, tmp_path):
    done = processes.run(tmp_path, typed)
    assert done.code == 2
    assert done.text.startswith(answer)


def test_pictures_are_small_enough_for_a_repository():
    pictures = list((markdown.ROOT / "docs/images").iterdir())
    assert pictures
    assert all(os.path.getsize(picture) < 300_000 for picture in pictures)


def test_the_tutorials_models_were_the_ones_that_trained(folders):
    """Runs after the steps above: what they left is looked at."""
    runs = [json.loads(path.read_text()) for path in folders("docs/tutorial.md").glob("outputs/**/result.json")]
    if not runs:
        pytest.skip("the steps of docs/tutorial.md were not run")
    students = {run["config"]["student"]["_target_"] for run in runs if run["role"] == "distilled"}
    data = {run["config"]["data"].get("train", {}).get("_target_") for run in runs if "train" in run["config"]["data"]}
    terms = {t["_target_"] for run in runs for t in run["config"]["method"]["terms"].values()}
    assert "my_models.Net" in students
    assert data == {"my_data.Table"}
    assert "my_losses.HellingerLoss" in terms
    assert {run["status"] for run in runs} == {"finished"}
