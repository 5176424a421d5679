"""A process that is stopped for a while (Ctrl-Z, a job that Slurm suspends) goes on: that time is nobody's reading."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

CODE = """
import sys, time
from kd_lightning.data.loader.threaded_loader import ThreadedLoader

class Slow:
    def __len__(self):
        return 3

    def __getitem__(self, index):
        print("reading", index, flush=True)
        time.sleep(1.2)
        return index

print([batch.tolist() for batch in ThreadedLoader(Slow(), 1, num_threads=1, prefetch=1, timeout=2)])
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no SIGSTOP")
def test_the_seconds_in_which_a_process_was_stopped_do_not_count_for_its_timeout():
    child = subprocess.Popen([sys.executable, "-c", CODE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "reading 0\n"
    time.sleep(0.2)
    os.kill(child.pid, signal.SIGSTOP)
    time.sleep(2.5)  # beyond the timeout, with a second of reading left to do
    os.kill(child.pid, signal.SIGCONT)
    out, error = child.communicate(timeout=120)
    assert out.splitlines()[-1] == "[[0], [1], [2]]", error
