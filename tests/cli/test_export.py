"""``kd-export``: its options, its exit codes, and how soon it answers."""

from __future__ import annotations

import subprocess
import sys

import pytest
from processes import run

from kd_lightning.cli.export import options
from kd_lightning.errors import UserError


def test_help_loads_nothing_heavy():
    code = (
        "import sys, kd_lightning.cli.export as command\n"
        "try:\n    command.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'pytorch_lightning', 'onnxruntime', 'numpy'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage: kd-export" in done.stdout


def test_options_are_the_commands_own_or_changes_of_the_data():
    words = ["format=onnx,safetensors", "data.eval_batch_size=64", "preprocess=true"]
    assert options(words) == ({"format": "onnx,safetensors", "preprocess": "true"}, ["data.eval_batch_size=64"])


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("frmat=onnx", "frmat: no such option; did you mean 'format'?"),
        ("onnx", "onnx: is no key=value"),
        ("preprocess=yes", "preprocess=yes: must be true or false"),
    ],
)
def test_a_mistaken_option_is_told(word, text):
    with pytest.raises(UserError, match=text.replace("?", r"\?")):
        options([word])


def test_a_directory_without_a_run_is_one_line_and_exit_code_2(tmp_path):
    ended = run(tmp_path, "nowhere", "format=torch_export", program="export")
    assert ended.code == 2
    assert ended.text.strip() == "error: nowhere: holds no result.json; give the directory of a finished run"


def test_a_run_becomes_files_and_a_table(tmp_path):
    quick = ("teacher=none", "method=none", "trainer.max_epochs=1", "trainer.accelerator=cpu", "student.hidden=[16]")
    trained = run(tmp_path, *quick, "pictures.every_n_epochs=0", "run_dir=run")
    assert trained.code == 0, trained.text
    ended = run(tmp_path, "run", "format=torch_export", "preprocess=true", "data.eval_batch_size=100", program="export")
    assert ended.code == 0, ended.text
    assert "597 test samples" in ended.text
    assert "student.pt2" in ended.text
    left = {path.name for path in (tmp_path / "run" / "export").iterdir()}
    assert left == {"student.pt2", "README.md", "preprocessing.json", "export.json"}
