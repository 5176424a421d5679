"""ThreadedLoader in place of a DataLoader: the same batches, at any number of threads, in any process."""

from __future__ import annotations

import collections
import gc
import hashlib
import subprocess
import sys
import threading
import time
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from kd_lightning.batch import Batch
from kd_lightning.data.loader.threaded_loader import ThreadedLoader, default_threads
from kd_lightning.errors import UserError


def equal(a, b) -> bool:
    """Same structure, types and values."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return type(a) is type(b) and a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    return type(a) is type(b) and a == b


class Dicts(Dataset):
    def __len__(self) -> int:
        return 23

    def __getitem__(self, index: int) -> dict:
        return {"x": torch.full((2, 3), float(index)), "name": f"sample{index}", "pair": (index, index / 2)}


class Bulk(Dataset):
    """torch's own convention for reading many at once."""

    def __len__(self) -> int:
        return 23

    def __getitems__(self, indices: list[int]) -> list:
        assert isinstance(indices, list)
        return [(torch.tensor(i), -i) for i in indices]


class Stream(IterableDataset):
    def __init__(self, length: int) -> None:
        self.length = length

    def __iter__(self):
        return ((torch.tensor([i]), i) for i in range(self.length))


class StreamOfKnownLength(Stream):
    def __len__(self) -> int:
        return self.length


class Filled(Dataset):
    """Written in place, chunk by chunk; later samples of a batch take less time than earlier ones."""

    thread_safe = True

    def __init__(self, length: int = 40, slow: float = 0.0) -> None:
        self.length, self.slow = length, slow

    def __len__(self) -> int:
        return self.length

    def allocate(self, n: int) -> torch.Tensor:
        return torch.full((n, 2), -1)

    def fill(self, buffers, start, indices, view, stop) -> None:
        for at, index in enumerate(indices.tolist(), start):
            if stop():
                return
            time.sleep(self.slow * ((index * 7919) % 5))
            buffers[at] = torch.tensor([index, view])

    def finish(self, buffers, indices, view):
        return buffers * 10, indices % 3


class Gathered(Dataset):
    thread_safe = True

    def __init__(self, length: int = 40) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def gather(self, indices: torch.Tensor, view: int):
        return indices * 10 + view, indices % 3


tensors = TensorDataset(torch.arange(276.0).view(23, 3, 4), torch.arange(23))
KINDS = {
    "tensors": lambda: tensors,
    "numbers": lambda: range(23),
    "dicts": Dicts,
    "bulk": Bulk,
    "subset": lambda: Subset(tensors, [4, 2, 9, 1, 1, 7]),
    "subset of bulk": lambda: Subset(Bulk(), [4, 2, 9, 1, 1, 7]),
    "stream": lambda: Stream(23),
    "empty": lambda: TensorDataset(torch.zeros(0)),
    "empty stream": lambda: Stream(0),
}


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_any_data_set_yields_what_a_dataloader_yields(kind, threads, drop_last):
    expected = list(DataLoader(KINDS[kind](), batch_size=5, drop_last=drop_last))
    loader = ThreadedLoader(KINDS[kind](), batch_size=5, drop_last=drop_last, num_threads=threads)
    assert equal(list(loader), expected)
    assert equal(list(loader), expected)


@pytest.mark.parametrize("kind", ["dicts", "bulk", "stream"])
def test_a_collate_function_is_used_as_a_dataloader_uses_it(kind):
    batches = list(ThreadedLoader(KINDS[kind](), 5, collate_fn=list, num_threads=2))
    assert equal(batches, list(DataLoader(KINDS[kind](), 5, collate_fn=list)))


def test_lengths_are_those_of_a_dataloader():
    for kind in ("tensors", "subset", "empty"):
        for drop_last in (False, True):
            ours = ThreadedLoader(KINDS[kind](), 5, drop_last=drop_last)
            assert len(ours) == len(DataLoader(KINDS[kind](), 5, drop_last=drop_last))
    assert len(ThreadedLoader(StreamOfKnownLength(11), 5)) == 3
    with pytest.raises(TypeError):
        len(ThreadedLoader(Stream(11), 5))


def digest(dataset: str, threads: int, order: str = "input") -> str:
    """Hash of all batches of three epochs."""
    made = {"filled": lambda: Filled(40, 0.0005), "gathered": lambda: Gathered(900), "tensors": lambda: tensors}
    loader = ThreadedLoader(made[dataset](), 7, shuffle=True, seed=11, num_threads=threads, order=order)
    epochs = []
    for _ in range(3):
        batches = [hashlib.sha256(repr([t.tolist() for t in batch]).encode()).hexdigest() for batch in loader]
        epochs.append(batches if order == "input" else sorted(batches))
    return hashlib.sha256(repr(epochs).encode()).hexdigest()


@pytest.mark.parametrize("dataset", ["filled", "gathered", "tensors"])
def test_batches_do_not_depend_on_the_number_of_threads(dataset):
    assert len({digest(dataset, threads) for threads in (1, 2, 3, 7)}) == 1
    assert len({digest(dataset, threads, "completion") for threads in (1, 2, 3, 7)}) == 1


def test_batches_do_not_depend_on_the_process():
    code = "import sys; sys.path.insert(0, sys.argv[1]); import test_threaded_loader as t; print(t.digest('filled', 2))"
    here = __file__.rsplit("/", 1)[0]
    other = subprocess.run([sys.executable, "-c", code, here], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == digest("filled", 3)


@settings(max_examples=50, deadline=None)
@given(
    length=st.integers(0, 70),
    batch_size=st.integers(1, 12),
    threads=st.integers(1, 5),
    prefetch=st.integers(1, 40),
    drop_last=st.booleans(),
    order=st.sampled_from(["input", "completion"]),
    dataset=st.sampled_from([Filled, Gathered]),
)
def test_every_sample_is_delivered_once(length, batch_size, threads, prefetch, drop_last, order, dataset):
    loader = ThreadedLoader(
        dataset(length), batch_size, True, drop_last=drop_last, num_threads=threads, prefetch=prefetch, order=order
    )
    targets = [len(y) for _, y in loader]
    inputs = sorted(int(i) for x, _ in loader for i in (x[:, 0] if x.dim() == 2 else x - 1))
    assert len(targets) == len(loader)
    if drop_last:
        assert set(targets) <= {batch_size}
        assert len(set(inputs)) == length - length % batch_size
    else:
        assert inputs == [10 * i for i in range(length)]


def test_in_completion_order_a_slow_batch_does_not_hold_up_the_others():
    filled, taken = threading.Event(), threading.Event()

    class OneSlow(Filled):
        def __init__(self, until: threading.Event) -> None:
            super().__init__()
            self.until = until

        def fill(self, buffers, start, indices, view, stop):
            if 1 in indices:
                assert self.until.wait(60)
            super().fill(buffers, start, indices, view, stop)
            filled.set()

    def first(order: str, until: threading.Event) -> int:
        loader = ThreadedLoader(OneSlow(until), 2, num_threads=2, order=order, prefetch=4)
        return int(next(iter(loader))[0][0, 0])

    assert first("input", until=filled) == 0  # although another batch was ready before it
    assert first("completion", until=taken) != 0  # it is not ready until somebody has been served
    taken.set()


def test_a_vectorised_data_set_may_give_structures_of_tensors():
    Pair = collections.namedtuple("Pair", "left right")

    class Structured(Gathered):
        def gather(self, indices, view):
            return {"image": indices[:, None], "pair": Pair(indices, -indices), "list": [indices]}, indices

    batches = list(ThreadedLoader(Structured(61), 2, num_threads=2))
    assert len(batches) == 31
    for number, (inputs, target) in enumerate(batches):
        assert target.tolist() == list(range(61))[2 * number : 2 * number + 2]
        assert inputs["image"].flatten().tolist() == target.tolist()
        assert isinstance(inputs["pair"], Pair)
        assert inputs["pair"].right.tolist() == [-i for i in target.tolist()]
        assert inputs["list"][0].tolist() == target.tolist()


def test_as_batch_tells_index_and_view():
    for dataset in (Gathered(), Filled()):
        loader = ThreadedLoader(dataset, 8, shuffle=True, as_batch=True, views=2, num_threads=2)
        for view in (0, 1, 0):
            for batch in loader:
                assert isinstance(batch, Batch)
                assert batch.view == view
                assert torch.equal(batch.target, batch.index % 3)
    batch = next(iter(ThreadedLoader(tensors, 4, as_batch=True)))
    assert torch.equal(batch.inputs, tensors.tensors[0][:4])
    assert batch.index.tolist() == [0, 1, 2, 3]
    assert next(iter(ThreadedLoader(Stream(9), 4, as_batch=True))).index is None


def test_without_views_the_view_is_the_epoch():
    loader = ThreadedLoader(Gathered(), 40, as_batch=True)
    loader.set_epoch(12)
    assert [batch.view for batch in loader] == [12]
    assert [batch.view for batch in loader] == [13]


def test_as_batch_of_samples_without_targets_says_what_is_missing():
    with pytest.raises(UserError, match=r"as_batch=True needs samples of \(inputs, target\)"):
        next(iter(ThreadedLoader(range(5), as_batch=True)))


def test_an_epoch_that_is_set_is_visited_and_the_next_pass_is_the_next_epoch():
    loader = ThreadedLoader(range(30), 30, shuffle=True)
    orders = [next(iter(loader)).tolist() for _ in range(3)]
    assert len({tuple(order) for order in orders}) == 3
    loader.set_epoch(1)
    assert next(iter(loader)).tolist() == orders[1]
    assert next(iter(loader)).tolist() == orders[2]
    loader.sampler.set_epoch(0)  # Lightning's way
    assert next(iter(loader)).tolist() == orders[0]


def test_an_iterator_begins_at_its_first_next():
    loader = ThreadedLoader(range(30), 30, shuffle=True)
    early = iter(loader)
    loader.set_epoch(5)
    assert not loader._passes
    assert next(early).tolist() == loader.sampler.order(5).tolist()


def test_two_iterators_of_one_loader_do_not_disturb_each_other():
    loader = ThreadedLoader(range(20), 4)
    pairs = list(zip(loader, loader, strict=True))
    assert [a.tolist() for a, _ in pairs] == [b.tolist() for _, b in pairs]


def test_a_data_set_that_wants_to_know_the_epoch_is_told():
    class Told(Stream):
        def set_epoch(self, epoch):
            self.epoch = epoch

        def __iter__(self):
            return iter([self.epoch] * 3)

    loader = ThreadedLoader(Told(3), 3)
    assert [batch.tolist() for _ in range(2) for batch in loader] == [[0] * 3, [1] * 3]


def test_the_window_bounds_what_is_read_ahead():
    class Counted(Filled):
        allocated = 0

        def allocate(self, n):
            self.allocated += 1
            return super().allocate(n)

    dataset = Counted(80)
    batches = iter(ThreadedLoader(dataset, 2, num_threads=3, prefetch=4))
    for delivered in range(1, 10):
        next(batches)
        time.sleep(0.01)
        assert dataset.allocated <= delivered + 4


@pytest.mark.parametrize("dataset", [Filled(80), Gathered(80), tensors])
def test_a_batch_is_freed_when_the_consumer_drops_it_not_when_the_garbage_collector_runs(dataset):
    gc.collect()
    gc.disable()
    try:
        delivered = []
        for x, _ in ThreadedLoader(dataset, 4, num_threads=2):
            delivered.append(weakref.ref(x))
        del x, _
        assert [batch() for batch in delivered] == [None] * len(delivered)
    finally:
        gc.enable()


def test_a_data_set_that_is_not_thread_safe_gets_a_copy_for_each_thread():
    class Handle(Dataset):
        """Like a file handle: only the thread that opened it may read, one read at a time."""

        opened: list = []

        def __init__(self):
            self.owner = None

        def per_thread(self):
            copy = Handle()
            copy.owner = threading.get_ident()
            self.opened.append(copy)
            return copy

        def __len__(self):
            return 40

        def __getitem__(self, index):
            assert self.owner == threading.get_ident()
            time.sleep(0.001)
            return index

    for dataset in (Handle(), Subset(Handle(), range(40))):
        Handle.opened.clear()
        assert torch.cat(list(ThreadedLoader(dataset, 4, num_threads=3))).tolist() == list(range(40))
        assert 1 <= len(Handle.opened) <= 3


def test_only_one_thread_at_a_time_advances_a_stream():
    class Watched(IterableDataset):
        inside = 0

        def __iter__(self):
            for i in range(60):
                self.inside += 1
                assert self.inside == 1
                time.sleep(0.0005)
                self.inside -= 1
                yield i

    assert torch.cat(list(ThreadedLoader(Watched(), 4, num_threads=5))).tolist() == list(range(60))


def test_pool_threads_use_one_torch_thread_and_the_rest_of_the_process_keeps_its_number():
    class Asks(Filled):
        def finish(self, buffers, indices, view):
            return torch.tensor(torch.get_num_threads()), indices

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        loader = ThreadedLoader(Asks(), 4, num_threads=2)
        inside = {int(threads) for threads, _ in loader}
        started_later: list[int] = []
        other = threading.Thread(target=lambda: started_later.append(torch.get_num_threads()))
        other.start()
        other.join()
        assert (inside, torch.get_num_threads(), started_later) == ({1}, 3, [3])
    finally:
        torch.set_num_threads(before)


def test_the_number_of_threads_is_the_machines_share_of_this_process(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(12)), raising=False)
    monkeypatch.setattr("os.process_cpu_count", lambda: 12, raising=False)
    assert default_threads() == ThreadedLoader(range(4)).num_threads == 12
    assert ThreadedLoader(Gathered()).num_threads == 4
    assert ThreadedLoader(Gathered(), num_threads=9).num_threads == 9
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert default_threads() == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "40")
    assert default_threads() == ThreadedLoader(Gathered()).num_threads == 1


@pytest.mark.parametrize(
    "bad",
    [
        {"batch_size": 0},
        {"batch_size": 2.5},
        {"num_threads": -1},
        {"prefetch": 0},
        {"views": -1},
        {"order": "sorted"},
        {"timeout": 0},
        {"timeout": -1.0},
    ],
    ids=str,
)
def test_bad_arguments_are_refused_in_one_line(bad):
    with pytest.raises(UserError, match=next(iter(bad))) as caught:
        ThreadedLoader(range(4), **bad)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [{"shuffle": True}, {"sampler": [0]}], ids=str)
def test_a_stream_cannot_be_reordered(bad):
    with pytest.raises(UserError, match="own order"):
        ThreadedLoader(Stream(4), **bad)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_are_in_pinned_memory_for_cuda():
    x, y = next(iter(ThreadedLoader(Gathered(), 4)))
    assert x.is_pinned()
    assert y.is_pinned()
