"""The user's code behind a configuration: found through its imports, told apart by what it does, not by how it looks."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from kd_lightning.config.source import changed_files, source_fingerprint, targets_of


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text)
    if before:  # two writes may fall into one tick of the file system's clock
        os.utime(path, ns=(before + 10**9, before + 10**9))


def test_installed_code_and_our_own_are_left_out(project):
    targets = ["torch.optim.SGD", "kd_lightning.models.mlp.MLP", "builtins.dict", "json.loads", "no_such_module.Net"]
    assert source_fingerprint(targets) == {}


def test_what_is_installed_is_left_out_without_a_look_at_the_file(monkeypatch):
    def refused(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refused)
    assert source_fingerprint(["torch.nn.Linear"]) == {}


def test_a_file_counts_with_those_that_it_imports(project):
    write(project / "my_models.py", "import torch\nfrom my_layers import *\n\ndef net():\n    import my_late\n")
    write(project / "my_layers.py", "import my_pkg.deep.inner\n")
    write(project / "my_late.py", "import importlib\nimportlib.import_module('my_named')\n")
    write(project / "my_named.py", "import my_models\n")  # a circle ends
    write(project / "my_pkg/__init__.py", "from . import beside\n")
    write(project / "my_pkg/beside.py", "from .deep import inner\n")
    write(project / "my_pkg/deep/__init__.py", "")
    write(project / "my_pkg/deep/inner.py", "from ..other import thing\n")
    write(project / "my_pkg/other.py", "thing = 1\n")
    write(project / "not_imported.py", "")
    assert list(source_fingerprint(["my_models.net"])) == [
        "my_late.py",
        "my_layers.py",
        "my_models.py",
        "my_named.py",
        "my_pkg/__init__.py",
        "my_pkg/beside.py",
        "my_pkg/deep/__init__.py",
        "my_pkg/deep/inner.py",
        "my_pkg/other.py",
    ]


def test_nothing_of_the_users_is_executed(project):
    write(project / "my_pkg/__init__.py", "raise RuntimeError\n")
    write(project / "my_pkg/net.py", "raise RuntimeError\n")
    assert list(source_fingerprint(["my_pkg.net.Net"])) == ["my_pkg/__init__.py", "my_pkg/net.py"]


CODE = "class Net:\n    def act(self, x):\n        return x.relu()\n"


@pytest.mark.parametrize(
    "text",
    [
        "# a comment\n" + CODE,
        CODE.replace("return x", "return (\n            x").replace("()\n", "()\n        )\n"),
        '"""A docstring."""\n\n\n' + CODE.replace("    def", '    """Of a class."""\n\n    def'),
    ],
)
def test_what_does_not_run_does_not_count(project, text):
    write(project / "my_t.py", CODE)
    before = source_fingerprint(["my_t.Net"])
    write(project / "my_t.py", text)
    assert text != CODE
    assert source_fingerprint(["my_t.Net"]) == before


@pytest.mark.parametrize(
    "text", [CODE.replace("relu", "tanh"), CODE + "limit = 1\n", CODE.replace("relu()", "clamp(0)"), "class Net: pass"]
)
def test_what_runs_counts(project, text):
    write(project / "my_t.py", CODE)
    before = source_fingerprint(["my_t.Net"])
    write(project / "my_t.py", text)
    now = source_fingerprint(["my_t.Net"])
    assert now != before
    assert changed_files(before, now) == ["my_t.py"]


def test_the_type_of_a_constant_counts(project):
    texts = ["x = 1\n", "x = 1.0\n", "x = True\n", "x = '1'\n", "x = b'1'\n", "x = None\n"]
    found = []
    for text in texts:
        write(project / "my_t.py", text)
        found.append(source_fingerprint(["my_t.x"])["my_t.py"])
    assert len(set(found)) == len(texts)


def test_a_digest_is_the_same_in_every_version_of_python(project):
    write(project / "my_t.py", CODE)
    assert source_fingerprint(["my_t.Net"]) == {"my_t.py": "195e6b1f6ec3945b"}


def test_a_file_with_a_mistake_counts_as_it_is(project):
    write(project / "my_t.py", "class Net(\n")
    before = source_fingerprint(["my_t.Net"])
    write(project / "my_t.py", "class Net[\n")
    assert changed_files(before, source_fingerprint(["my_t.Net"])) == ["my_t.py"]


def test_a_class_itself_is_as_good_as_its_name():
    assert source_fingerprint([Sample]) == source_fingerprint([f"{__name__}.Sample"])
    assert Path(__file__).name in source_fingerprint([Sample])


class Sample:
    pass


def test_targets_are_found_wherever_they_stand():
    node = {
        "_target_": "a.B",
        "layers": [{"_target_": "c.D"}, 1],
        "make": {"_target_": "hydra.utils.get_class", "path": "e.F"},
        "plain": {"path": "g.H"},
    }
    assert set(targets_of(node)) == {"a.B", "c.D", "hydra.utils.get_class", "e.F"}
