"""Errors, time-outs, Ctrl-C, forgotten iterators, interpreter exit: nothing hangs and nothing is left behind."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest
import torch
from torch.utils.data import Dataset, IterableDataset

from kd_lightning.data.loader.threaded_loader import LoaderTimeout, SampleError, ThreadedLoader
from kd_lightning.errors import UserError


def loader_threads() -> list[str]:
    """The loaders' threads that are alive although those that are about to leave have had all the time for it."""
    deadline = time.monotonic() + 30
    while True:
        alive = [thread.name for thread in threading.enumerate() if thread.name.startswith("kd-loader")]
        if not alive or time.monotonic() > deadline:
            return alive
        time.sleep(0.005)


class Troubled(Dataset):
    """Samples 0..n-1, of which some raise and some wait for an event."""

    thread_safe = True

    def __init__(self, n: int = 64, bad: tuple[int, ...] = (), hanging: tuple[int, ...] = (), error=OSError) -> None:
        self.n, self.bad, self.hanging, self.error = n, bad, hanging, error
        self.released, self.reached = threading.Event(), threading.Event()
        self.read = 0

    def __len__(self) -> int:
        return self.n

    def describe(self, index: int) -> str:
        return f"folder/{index}.jpg"

    def __getitem__(self, index: int) -> torch.Tensor:
        self.read += 1
        if index in self.hanging:
            self.reached.set()
            self.released.wait(60)
        if index in self.bad:
            raise self.error("the file is\ntruncated")
        return torch.full((100,), float(index))


class TroubledFill(Troubled):
    def allocate(self, n: int) -> torch.Tensor:
        return torch.empty(n, 100)

    def fill(self, buffers, start, indices, view, stop) -> None:
        for at, index in enumerate(indices.tolist(), start):
            if stop():
                return
            buffers[at] = self[index]

    def finish(self, buffers, indices, view):
        return buffers, indices


class TroubledUndeclared(Troubled):
    thread_safe = False


class TroubledStream(IterableDataset):
    def __init__(self, at: int, error: Exception) -> None:
        self.at, self.error = at, error

    def __iter__(self):
        yield from range(self.at)
        raise self.error


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("dataset", [Troubled, TroubledFill, TroubledUndeclared])
def test_a_bad_sample_is_named_with_its_file_in_the_place_of_its_batch(dataset, threads):
    loader = ThreadedLoader(dataset(bad=(22, 23, 41)), 8, num_threads=threads)
    batches = iter(loader)
    assert len([next(batches), next(batches)]) == 2
    with pytest.raises(
        SampleError, match=r"^sample 22 \(folder/22.jpg\), in batch 2: OSError: the file is truncated$"
    ) as e:
        next(batches)
    assert e.value.index == 22
    assert isinstance(e.value.__cause__, OSError)
    assert loader.state_dict()["delivered"] == 2  # a run that ends here meets it again


@pytest.mark.parametrize("order", ["input", "completion"])
@pytest.mark.parametrize("dataset", [Troubled, TroubledFill, TroubledUndeclared])
def test_whoever_goes_on_behind_a_bad_sample_gets_the_other_batches(dataset, order):
    loader = ThreadedLoader(dataset(bad=(22, 23, 41)), 8, num_threads=2, order=order)
    batches, got, errors = iter(loader), [], []
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            break
        except SampleError as error:
            errors.append(error.index)
        else:
            got.append(int((batch[0] if isinstance(batch, list) else batch)[0, 0]))
    assert (sorted(got), sorted(errors)) == ([0, 8, 24, 32, 48, 56], [22, 41])
    assert loader.state_dict()["delivered"] == 8
    assert loader_threads() == []


def test_a_stream_that_raised_is_over_for_whoever_goes_on():
    batches = iter(ThreadedLoader(TroubledStream(9, ValueError("line 10")), 4))
    assert [len(next(batches)), len(next(batches))] == [4, 4]
    with pytest.raises(SampleError):
        next(batches)
    assert list(batches) == []


def test_an_exception_that_cannot_say_what_it_is_arrives_all_the_same():
    class Speechless(Exception):
        def __str__(self):
            return self.args[1]

    for kind in (Troubled, TroubledUndeclared):
        with pytest.raises(SampleError, match=r"sample 3 .*: Speechless: \(its text cannot be made: IndexError\)"):
            list(ThreadedLoader(kind(bad=(3,), error=Speechless), 8, num_threads=2))


@pytest.mark.parametrize("dataset", [Troubled, TroubledFill, TroubledUndeclared])
def test_batches_and_errors_come_under_another_default_device_too(dataset):
    with torch.device("meta"):
        batches = iter(ThreadedLoader(dataset(bad=(9,)), 8, shuffle=False, num_threads=2))
        first = next(batches)
        with pytest.raises(SampleError, match="sample 9 "):
            next(batches)
        shuffled = next(iter(ThreadedLoader(dataset(), 8, shuffle=True)))
    for batch in (first, shuffled):
        assert (batch[0] if isinstance(batch, list) else batch).device.type == "cpu"


def test_a_users_error_keeps_its_own_words():
    with pytest.raises(SampleError, match=r"in batch 0: the file is truncated$"):
        list(ThreadedLoader(Troubled(bad=(3,), error=UserError), 8))


def test_even_a_system_exit_in_a_data_set_arrives_as_an_error():
    with pytest.raises(SampleError, match=r"sample 3 .*SystemExit"):
        list(ThreadedLoader(Troubled(bad=(3,), error=SystemExit), 8))


def test_the_file_of_a_torchvision_folder_is_named():
    class Folder(Dataset):
        samples = [(f"cats/{i}.png", 0) for i in range(64)]

        def __getitem__(self, index):
            raise OSError("truncated")

    subset = torch.utils.data.Subset(Folder(), [9, 5])
    with pytest.raises(SampleError, match=r"sample 0 \(cats/9\.png\)"):
        list(ThreadedLoader(subset, 2))


def test_an_error_of_a_whole_batch_names_its_samples():
    class Vectorised(Troubled):
        def gather(self, indices, view):
            raise IndexError("no such row")

    with pytest.raises(
        SampleError, match=r"batch 0, samples 0, 1, 2, 3, 4, 5, 6, 7, … \(16 in all\): IndexError: no such"
    ):
        list(ThreadedLoader(Vectorised(), 16))


def test_samples_that_do_not_fit_together_are_an_error_of_their_batch():
    class Uneven(Troubled):
        def __getitem__(self, index):
            return torch.zeros(1 + (index == 13))

    with pytest.raises(SampleError, match=r"batch 3, samples 12, 13, 14, 15: RuntimeError: stack expects"):
        list(ThreadedLoader(Uneven(), 4))


def test_a_description_that_fails_does_not_hide_the_error():
    class Speechless(Troubled):
        def describe(self, index):
            raise KeyError(index)

    with pytest.raises(SampleError, match=r"sample 3 \(describe\(\) failed: KeyError: 3\), in batch 0: OSError"):
        list(ThreadedLoader(Speechless(bad=(3,)), 8))


def test_a_stream_that_fails_delivers_what_came_before():
    batches = iter(ThreadedLoader(TroubledStream(9, ValueError("line 10")), 4, num_threads=3))
    assert [next(batches).tolist(), next(batches).tolist()] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(SampleError, match="batch 2 of the stream: ValueError: line 10"):
        next(batches)


def test_a_data_set_that_cannot_be_opened_in_a_thread_is_an_error():
    class Locked(Troubled):
        def per_thread(self):
            raise PermissionError("no second handle")

    class LockedStream(TroubledStream):
        def per_thread(self):
            raise PermissionError("no second handle")

    for dataset in (Locked(), LockedStream(3, ValueError())):
        with pytest.raises(SampleError, match="PermissionError: no second handle"):
            list(ThreadedLoader(dataset, 4))


def timed_out(loader: ThreadedLoader, reached: threading.Event, batches: int) -> LoaderTimeout:
    """The error of a loader whose ``timeout`` runs out once a sample is known to hang, behind some good batches."""
    iterator = iter(loader)
    for _ in range(batches):
        next(iterator)
    if iterator._pass is not None and batches:
        assert reached.wait(60)
        iterator._pass.timeout = 0.01
    with pytest.raises(LoaderTimeout) as caught:
        next(iterator)
    return caught.value


@pytest.mark.parametrize("order", ["input", "completion"])
@pytest.mark.parametrize("dataset", [Troubled, TroubledFill])
def test_a_hanging_sample_is_named_and_the_others_are_cancelled(dataset, order):
    data = dataset(n=2000, hanging=(5,))
    loader = ThreadedLoader(data, 4, num_threads=2, timeout=60, prefetch=4, order=order)
    error = timed_out(loader, data.reached, 1 if order == "input" else 499)
    assert "timeout=0.01 s: sample 5 (folder/5.jpg), in batch 1, has been read" in str(error)
    assert isinstance(error, TimeoutError)
    assert error.index == 5
    data.released.set()
    assert loader_threads() == []
    if order == "input":
        assert data.read <= 24  # of 2000: what the window held, the others were cancelled


def test_a_hanging_sample_of_a_data_set_that_is_read_alone_is_named():
    data = TroubledUndeclared(n=2000, hanging=(5,))
    error = timed_out(ThreadedLoader(data, 8, timeout=1), data.reached, 0)
    assert "timeout=1 s: sample 5 (folder/5.jpg), in batch 0, has been read" in str(error)
    data.released.set()
    assert loader_threads() == []
    assert data.read == 6


def test_a_hanging_whole_batch_and_a_hanging_stream_are_named():
    released = threading.Event()

    class Vectorised(Troubled):
        def gather(self, indices, view):
            released.wait(60)

    class Stream(IterableDataset):
        def __iter__(self):
            yield from range(4)
            released.wait(60)

    with pytest.raises(LoaderTimeout, match="batch 0 hangs in one of samples 0, 1, 2, 3"):
        list(ThreadedLoader(Vectorised(), 4, timeout=0.2))
    with pytest.raises(LoaderTimeout, match="the stream has not given batch 1"):
        list(ThreadedLoader(Stream(), 4, timeout=0.2))
    released.set()
    assert loader_threads() == []


def test_a_loader_works_again_after_a_sample_hung():
    data = Troubled(hanging=(5,))
    loader = ThreadedLoader(data, 8, num_threads=1, timeout=0.2)
    with pytest.raises(LoaderTimeout):
        list(loader)
    data.hanging, loader.timeout = (), 60
    assert len(list(loader)) == 8  # the thread that still hangs is not one of this pass
    data.released.set()
    assert loader_threads() == []


@pytest.mark.parametrize("leave", ["break", "exception", "forget", "end", "generator"])
def test_no_thread_outlives_a_pass_however_it_is_left(leave):
    loader = ThreadedLoader(TroubledFill(n=400), 8, num_threads=3)
    if leave == "break":
        for _ in loader:
            break
        del _
    elif leave == "exception":
        with pytest.raises(ZeroDivisionError):
            [1 // 0 for _ in loader]
    elif leave == "forget":
        batches = iter(loader)
        next(batches)
        del batches
    elif leave == "generator":
        numbers = (len(batch) for batch in loader)
        next(numbers)
        numbers.close()
        del numbers
    else:
        assert len(list(loader)) == 50
    gc.collect()
    assert loader_threads() == []


def test_an_epoch_that_ended_has_no_threads_at_once():
    for _ in ThreadedLoader(range(50), 5, num_threads=3):
        pass
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("kd-loader")]


def test_pool_threads_are_no_daemons():
    batches = iter(ThreadedLoader(range(50), 5, num_threads=3))
    next(batches)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("kd-loader")]
    assert threads
    assert not any(thread.daemon for thread in threads)


def test_close_waits_for_the_threads_and_the_iterator_says_so():
    with ThreadedLoader(TroubledFill(n=400), 8, num_threads=3) as loader:
        batches = iter(loader)
        next(batches)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("kd-loader")]
    with pytest.raises(RuntimeError, match="closed"):
        next(batches)
    assert len(list(loader)) == 50


def test_close_wakes_a_consumer_that_waits_in_another_thread():
    data = Troubled(hanging=(0,))
    loader = ThreadedLoader(data, 8, num_threads=1, timeout=None)
    caught: list[Exception] = []

    def consume() -> None:
        try:
            list(loader)
        except RuntimeError as error:
            caught.append(error)

    consumer = threading.Thread(target=consume)
    consumer.start()
    assert data.reached.wait(60)
    threading.Timer(0.1, data.released.set).start()
    loader.close()
    consumer.join(60)
    assert [str(error) for error in caught] == ["the loader was closed while this iterator was in use"]


SCRIPT = """
import os, sys, time, threading, torch
from kd_lightning.data.loader.threaded_loader import ThreadedLoader

class Slow:
    thread_safe = DECLARED
    def __len__(self): return 100000
    def __getitem__(self, index):
        os.write(1, b".")  # one for each sample: what is still read after the end shows
        time.sleep(0.05)
        return index

loader = ThreadedLoader(Slow(), 32, num_threads=2, prefetch=20)
batches = iter(loader)
"""
WINDOW = 20 * 32


def run(tail: str, interrupt: bool = False, declared: bool = True) -> tuple[int, str, int]:
    """Exit code, standard error, and the samples that a script still read once its first ones were (or after Ctrl-C)."""
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.replace("DECLARED", str(declared)) + tail],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert child.stdout.read(4) == b"...."
    if interrupt:
        child.send_signal(signal.SIGINT)
    out, error = child.communicate(timeout=300)
    return child.returncode, error.decode(), out.count(b".")


@pytest.mark.parametrize(
    ("waiting", "declared"),
    [
        ("for batch in batches: pass", True),
        ("for batch in batches: pass", False),
        ("next(batches); time.sleep(300)", True),
    ],
)
def test_ctrl_c_ends_the_process_at_once(waiting, declared):
    code, error, read = run(waiting, interrupt=True, declared=declared)
    assert code in (130, -signal.SIGINT)
    assert "KeyboardInterrupt" in error
    assert "Exception ignored" not in error
    assert read < WINDOW / 4


@pytest.mark.parametrize("ending", ["", "keep = [batches]; del batches"])
def test_the_interpreter_exits_while_an_iterator_is_alive(ending):
    code, error, read = run(f"next(batches)\n{ending}")
    assert (code, error) == (0, "")
    assert read < WINDOW / 4


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def wide_tensors() -> int:
    """How many samples and batches of the soak's data set are held by anything in this process."""
    gc.collect()
    return sum(type(o) is torch.Tensor and o.shape[-1:] == (100_000,) for o in gc.get_objects())


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors and memory in /proc")
def test_120_epochs_of_trouble_leave_no_thread_descriptor_or_memory():
    class Soak(TroubledFill):
        """Holds open files, as a data set with per-thread handles does."""

        def per_thread(self):
            copy = Soak(self.n, self.bad, self.hanging)
            copy.released, handle = self.released, open(__file__)  # noqa: SIM115
            weakref.finalize(copy, handle.close)
            return copy

        def allocate(self, n):
            return torch.empty(n, 100_000)

        def __getitem__(self, index):
            return torch.zeros(100_000) + super().__getitem__(index)[0]

    chance = random.Random(0)
    counts = {"whole": 0, "error": 0, "timeout": 0, "abandoned": 0}
    after_warm_up = None
    for epoch in range(120):
        data = Soak(n=64)
        event = chance.choice(list(counts))
        if event == "error":
            data.bad = (chance.randrange(64),)
        elif event == "timeout":
            data.hanging = (chance.randrange(64),)
        options = {"num_threads": chance.choice([1, 2, 3]), "order": chance.choice(["input", "completion"])}
        loader = ThreadedLoader(data, chance.choice([3, 8, 16]), True, timeout=0.05 if data.hanging else 300, **options)
        leave_at = chance.randrange(4) if event == "abandoned" else None
        try:
            for number, _ in enumerate(loader):
                if number == leave_at:
                    break
        except LoaderTimeout:
            counts["timeout"] += 1
        except SampleError:
            counts["error"] += 1
        else:
            counts["abandoned" if leave_at is not None else "whole"] += 1
        data.released.set()
        if epoch == 40:
            assert wide_tensors() > 0, "the count sees what is held"
            assert loader_threads() == []
            after_warm_up = descriptors()
    del loader, data, _
    # Counted, not weighed: what malloc keeps of a process that ran the whole suite is nobody's leak.
    assert loader_threads() == []
    assert wide_tensors() == 0
    assert sum(counts.values()) == 120
    assert min(counts.values()) > 10
    assert descriptors() <= after_warm_up
