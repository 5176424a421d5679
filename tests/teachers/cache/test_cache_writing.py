from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from cache_setup import CLASSES, Counting, TinyImages, make_teacher, opened
from filelock import FileLock
from torch import nn

from kd_lightning.data.loader.threaded_loader import LoaderTimeout
from kd_lightning.errors import UserError
from kd_lightning.teachers.cache import writer
from kd_lightning.teachers.cache.cached import CachedTeacher
from kd_lightning.teachers.cache.opening import open_or_write_cache
from kd_lightning.teachers.frozen import FrozenTeacher

SCRIPT = Path(__file__).with_name("cache_setup.py")


@pytest.fixture
def start():
    """Starts processes that write a cache, and ends those that a failing test leaves behind."""
    processes = []

    def started(directory: Path, *stand_still_in_view: int) -> subprocess.Popen:
        command = [sys.executable, str(SCRIPT), str(directory), *map(str, stand_still_in_view)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        processes.append(process)
        if stand_still_in_view:
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status), process.stdout.read()
        return process

    yield started
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


def contents(directory: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in directory.rglob("view_*.npy")}


def test_a_writer_that_takes_long_says_how_far_it_is(tmp_path, monkeypatch):
    told = "teacher cache: 32 of 1,080 answers, about 0:"
    assert not any("answers, about" in line for line in decide(tmp_path / "quick")[1])
    monkeypatch.setattr(writer, "SILENCE", 0.0)
    assert any(line.startswith(told) for line in decide(tmp_path / "slow")[1])


# -- whether to cache -------------------------------------------------------------------------------------------------
def decide(tmp_path, data=None, teacher=None, **settings):
    lines = []
    settings = {"mode": "auto", "epochs": 8, "directory": tmp_path, **settings}
    answer = open_or_write_cache(teacher or make_teacher(), data or TinyImages(), announce=lines.append, **settings)
    return answer, lines


@pytest.mark.parametrize(
    ("data", "settings", "reason"),
    [
        ({}, {"needs_features": True}, "hidden layers"),
        ({"views": 0}, {"epochs": None}, "number of epochs is not known"),
        ({"views": 0}, {}, "takes 8 passes over the training data, these runs need 8 "),
        ({}, {"epochs": 4}, "takes 4 passes over the training data, these runs need 4 "),
        ({"augment": False, "views": None}, {"epochs": 1}, "takes 1 pass over the training data, these runs need 1 "),
        ({}, {"limit_gb": 1e-6}, "4 views of 270 samples, .* in fp16, are above teacher.cache_limit_gb=1e-06"),
    ],
)
def test_auto_leaves_the_teacher_alone_and_says_why(tmp_path, data, settings, reason):
    teacher = make_teacher()
    answer, lines = decide(tmp_path, TinyImages(**data), teacher, **settings)
    assert answer is teacher
    assert len(lines) == 1
    assert re.search(f"teacher cache: not used, .*{reason}", lines[0])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "settings"),
    [({"views": 0}, {"expected_passes": 9}), ({}, {"epochs": 5}), ({"augment": False, "views": None}, {"epochs": 2})],
)
def test_auto_writes_what_saves_forward_passes_and_says_its_size_first(tmp_path, data, settings):
    answer, lines = decide(tmp_path, TinyImages(**data), **settings)
    assert isinstance(answer, CachedTeacher)
    assert "writing" in lines[0]
    assert "kB in fp16" in lines[0]


def test_auto_reads_what_is_there_even_where_writing_would_not_have_paid(tmp_path):
    opened(tmp_path, data=TinyImages(views=0))
    answer, lines = decide(tmp_path, TinyImages(views=0))
    assert isinstance(answer, CachedTeacher)
    assert len(lines) == 1


@pytest.mark.parametrize("mode", ["off", False, None])
def test_off_is_off_however_yaml_spells_it(tmp_path, mode):
    answer, lines = decide(tmp_path, mode=mode)
    assert isinstance(answer, FrozenTeacher)
    assert not lines


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"needs_features": True}, "hidden layers"),
        ({"limit_gb": 1e-6}, "cache_limit_gb"),
        ({"precision": "fp8"}, "fp8"),
    ],
)
def test_a_directory_that_was_asked_for_and_cannot_be_served_is_an_error(tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        opened(tmp_path, **settings)


def test_a_directory_writes_even_where_it_does_not_pay_for_this_run(tmp_path):
    assert isinstance(opened(tmp_path, data=TinyImages(views=0), epochs=2), CachedTeacher)


@pytest.mark.parametrize(
    ("largest", "message"), [(1e5, "fp16 cannot hold .*1e\\+05.*use bf16"), (float("inf"), "nan or inf")]
)
def test_logits_that_cannot_be_stored_are_not(tmp_path, largest, message):
    class Extreme(nn.Module):
        def forward(self, x):
            return torch.where(x.mean((1, 2, 3), keepdim=True)[..., 0] > 0.3, largest, 0.0).repeat(1, CLASSES, 1)[
                ..., 0
            ]

    with pytest.raises(UserError, match=message):
        opened(tmp_path, FrozenTeacher(Extreme()))
    answer, lines = decide(tmp_path, teacher=FrozenTeacher(Extreme()))
    assert isinstance(answer, FrozenTeacher)
    assert "not used" in lines[-1]


def test_a_folder_that_cannot_be_made_is_off_in_auto_and_an_error_where_asked_for(tmp_path):
    (tmp_path / "file").write_text("in the way")
    answer, lines = decide(tmp_path / "file" / "cache")
    assert isinstance(answer, FrozenTeacher)
    assert "cannot be written" in lines[-1]
    with pytest.raises(UserError, match="cannot be written"):
        opened(tmp_path / "file" / "cache")


def in_a_process(code: str, directory: Path) -> str:
    """Run ``code`` where ``opened`` has been used once (so that everything is imported) and ``directory`` is a Path."""
    head = (
        f"import os, resource, sys, tempfile; sys.path.insert(0, {str(SCRIPT.parent)!r})\n"
        "from pathlib import Path\nfrom cache_setup import opened\n"
        f"opened(tempfile.mkdtemp(dir={str(directory.parent)!r}))\ndirectory = Path({str(directory)!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", head + code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_disk_that_fills_up_leaves_whole_views_only(tmp_path):
    """A limit on the size of files stands for the full disk: the write itself fails, in the middle of a view."""
    directory = tmp_path / "cache"
    output = in_a_process(
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "print(opened(directory, mode='auto', announce=print))",
        directory,
    )
    assert "cannot be written (File too large)" in output
    assert "FrozenTeacher" in output
    assert [p.name for p in directory.glob("*/*")] == ["meta.json"]
    assert isinstance(opened(directory), CachedTeacher)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs the permissions of a POSIX system")
def test_a_read_only_folder_is_read_like_any_other():
    """Permissions of files do not bind root, so a reader that is root becomes nobody."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        directory = Path(name) / "cache"
        opened(directory)
        used = directory / cached_directory(directory) / "last_used"
        before = used.stat().st_mtime_ns
        paths = [directory, *directory.rglob("*")]
        for path in paths:
            path.chmod(0o555 if path.is_dir() else 0o444)
        output = in_a_process(
            "if os.geteuid() == 0: os.setuid(65534)\n"
            "assert not os.access(directory, os.W_OK)\n"
            "print(type(opened(directory, announce=print)))",
            directory,
        )
        assert "reading" in output
        assert "CachedTeacher" in output
        assert used.stat().st_mtime_ns == before
        for path in paths:
            path.chmod(0o755)


def cached_directory(directory: Path) -> str:
    (found,) = (p.name for p in directory.iterdir() if p.is_dir())
    return found


# -- several processes, and killed ones -------------------------------------------------------------------------------
def read_until(process: subprocess.Popen, text: str) -> None:
    line = process.stdout.readline()
    while text not in line:
        assert line, f"the process ended without saying {text!r}"
        line = process.stdout.readline()


@pytest.mark.slow
def test_two_processes_at_once_write_every_view_once_and_read_the_same(tmp_path, start):
    first, second = start(tmp_path, 1), start(tmp_path)
    read_until(second, "waiting for it")
    os.kill(first.pid, signal.SIGCONT)
    outputs = [process.communicate(timeout=120)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    assert all("opened" in output for output in outputs)
    assert "written in" in outputs[0]
    assert "written in" not in outputs[1]
    assert not list(tmp_path.rglob(".*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize("view", [0, 1, 3])
def test_a_writer_killed_in_the_middle_costs_the_view_it_was_at_and_blocks_nobody(tmp_path, start, view):
    undisturbed = contents(opened(tmp_path / "whole").store.directory)
    writer, waiting = start(tmp_path / "cache", view), start(tmp_path / "cache")
    read_until(waiting, "waiting for it")
    written = contents(tmp_path / "cache")
    assert len(written) == view
    writer.kill()
    writer.communicate()
    rest = waiting.communicate(timeout=120)[0]
    assert waiting.returncode == 0, rest
    assert "written in" in rest
    assert contents(tmp_path / "cache") == undisturbed
    assert not list(tmp_path.rglob(".*.tmp"))


def test_what_is_stored_does_not_depend_on_who_wrote_it(tmp_path, start):
    opened(tmp_path / "here")
    start(tmp_path / "there").communicate(timeout=120)
    assert len(contents(tmp_path / "here")) == 4
    assert contents(tmp_path / "here") == contents(tmp_path / "there")


def test_an_interrupted_writer_leaves_nothing_half_written(tmp_path):
    class Interrupting(Counting):
        def __call__(self, batch):
            if self.samples > 400:  # in the second view
                raise KeyboardInterrupt
            return super().__call__(batch)

    with pytest.raises(KeyboardInterrupt):
        opened(tmp_path, Interrupting(make_teacher()))
    (directory,) = (p for p in tmp_path.iterdir() if p.is_dir())
    assert sorted(p.name for p in directory.iterdir()) == ["meta.json", "view_00000.json", "view_00000.npy"]
    second = Counting(make_teacher())
    assert isinstance(opened(tmp_path, second), CachedTeacher)
    assert second.samples < 4 * 270


def test_a_data_set_that_hangs_ends_the_writer_and_frees_the_lock(tmp_path):
    class Hanging(TinyImages):
        def build_splits(self):
            train, val, content = super().build_splits()
            read = train.gather
            train.gather = lambda indices, view: time.sleep(5) if view == 1 else read(indices, view)
            return train, val, content

    with pytest.raises(LoaderTimeout):
        opened(tmp_path, data=Hanging(timeout=0.5))
    (directory,) = (p for p in tmp_path.iterdir() if p.is_dir())
    with FileLock(f"{directory}.lock").acquire(timeout=1):
        assert sorted(p.name for p in directory.iterdir()) == ["meta.json", "view_00000.json", "view_00000.npy"]


@pytest.mark.parametrize("batch_size", [7, 270])
def test_the_run_that_writes_may_have_any_batch_size(tmp_path, batch_size):
    cached = opened(tmp_path, data=TinyImages(batch_size=batch_size))
    assert cached.store.views() == [0, 1, 2, 3]


def test_a_data_set_that_draws_at_random_is_not_stored_and_that_is_the_reason_given(tmp_path):
    class Drawing(TinyImages):
        def build_splits(self):
            train, *others = super().build_splits()
            gather, own = train.gather, torch.Generator()

            def drawn(indices, view):
                inputs, targets = gather(indices, view)
                return inputs + torch.rand(inputs.shape, generator=own), targets

            train.gather = drawn
            return train, *others

    answer, lines = decide(tmp_path, Drawing())
    assert isinstance(answer, FrozenTeacher)
    assert "gives other inputs each time it is read" in lines[-1]
    assert not list(tmp_path.glob("*/view*"))
