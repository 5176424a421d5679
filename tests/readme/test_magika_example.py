"""docs/tasks.md: the black box of somebody else's runs as the page writes it, where the package is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import markdown_blocks as markdown
import processes
import pytest

PAGE = "docs/tasks.md"
QUICK = ("+data.train.count=150", "trainer.max_epochs=2", "pictures.every_n_epochs=0", "trainer.accelerator=cpu")


def test_the_page_writes_its_files_and_has_one_command():
    files = [block.file for block in markdown.blocks(PAGE) if block.file]
    commands = [command for block in markdown.blocks(PAGE) for command in block.commands]
    assert files == ["my_files.py", "mine/student/bytes.yaml"]
    assert len(commands) == 1


@pytest.mark.slow
def test_a_file_types_teacher_of_whole_numbers_teaches_a_student_that_reads_something_else(tmp_path):
    for package in ("magika", "onnxruntime"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install --no-deps {package}")
    for _, what in markdown.steps(PAGE):
        if isinstance(what, str):
            words = [word for word in markdown.words(what)[1:] if not word.startswith("trainer.max_epochs")]
            ended = processes.run(
                tmp_path, *words, *QUICK, f"+data.train.folder={Path(json.__file__).parents[1]}", "run_dir=run"
            )
            assert ended.code == 0, ended.text
        elif what.file:
            (tmp_path / what.file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / what.file).write_text(what.text)
        else:
            done = subprocess.run([sys.executable, "-c", what.text], cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["data"]["sizes"]["num_classes"] == 214
    assert result["data"]["samples"]["labelled"] == 0
    assert result["monitor"]["metric"] == "agreement"
    assert result["metrics"]["test/agreement"] > 0.3  # 150 files of Python's own: mostly code
    again = processes.run(tmp_path, "run", program="evaluate")
    assert again.code == 0, again.text
