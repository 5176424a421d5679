"""Closed outputs, readers that go early and poor terminals: the command does its work and ends in good order."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

WORK = """
from kd_lightning.cli._streams import steady

@steady
def main(argv=None):
    print("first \\u2013 \\u00b1 \\u2026 line\\n" * {lines})
    open("done", "w").close()
    return 0

raise SystemExit(main())
"""


def shell(command: str, folder) -> subprocess.CompletedProcess:
    return subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_a_character_that_a_terminal_does_not_know_is_written_plainly(encoding, tmp_path):
    (tmp_path / "work.py").write_text(WORK.format(lines=1))
    command = [sys.executable, "work.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding})
    assert (done.returncode, done.stderr) == (0, b"")
    expected = {
        "latin-1": b"first - \xb1 ... line",
        "ascii": b"first - +- ... line",
        "utf-8": "first \u2013 ± … line".encode(),
    }
    assert done.stdout.startswith(expected[encoding])


def test_a_closed_output_is_no_error(tmp_path):
    (tmp_path / "work.py").write_text(WORK.format(lines=1))
    done = shell(f"{sys.executable} work.py >&-", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "done").read_text() == ""  # what was printed did not go into the next file that was opened


def test_a_reader_that_goes_early_sees_no_traceback(tmp_path):
    (tmp_path / "work.py").write_text(WORK.format(lines=100_000))
    done = shell(f"{sys.executable} work.py | head -1", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("first")


def test_ctrl_c_is_a_word_and_no_traceback(tmp_path):
    work = WORK.replace("    return 0", "    import signal\n    signal.raise_signal(signal.SIGINT)\n    return 0")
    (tmp_path / "work.py").write_text(work.format(lines=1))
    done = shell(f"{sys.executable} work.py", tmp_path)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
