"""Data sets, collate functions and samplers of the user's own: one at a time, with random numbers that come again."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset

from kd_lightning.data.array_data import ArrayData
from kd_lightning.data.augment import CropFlip
from kd_lightning.data.loader.choosing import read_now
from kd_lightning.data.loader.errors import SampleError
from kd_lightning.data.loader.threaded_loader import LoaderTimeout, ThreadedLoader
from kd_lightning.data.loader.wrappers import thread_safe


class Draws(Dataset):
    """One number of each generator of the process, and the position."""

    def __len__(self) -> int:
        return 50

    def __getitem__(self, index: int):
        return torch.tensor([torch.rand(()), np.random.rand(), random.random()], dtype=torch.float64), index


class DeclaredDraws(Draws):
    thread_safe = True


class BulkDraws(Draws):
    def __getitems__(self, indices):
        return [self[index] for index in indices]


class GatherDraws(Draws):
    thread_safe = True

    def gather(self, indices, view):
        return torch.rand(len(indices), 2, dtype=torch.float64), indices


class FillDraws(Draws):
    thread_safe = True

    def allocate(self, n):
        return torch.empty(n, 2, dtype=torch.float64)

    def fill(self, buffers, start, indices, view, stop):
        for place in range(start, start + len(indices)):
            if stop():
                return
            buffers[place] = torch.rand(2, dtype=torch.float64)

    def finish(self, buffers, indices, view):
        return buffers, indices


DRAWING = [Draws, DeclaredDraws, BulkDraws, GatherDraws, FillDraws]


def seed_all() -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)


def numbers_of_all() -> list[float]:
    return [float(torch.rand(())), float(np.random.rand()), random.random()]


def visited(loader: ThreadedLoader, epochs: int = 2) -> dict[tuple[int, int], tuple]:
    """What each (epoch, sample) was, by a consumer that draws for itself between batches."""
    seen = {}
    for epoch in range(epochs):
        for inputs, index in loader:
            numbers_of_all()
            seen |= {(epoch, int(i)): tuple(row.tolist()) for i, row in zip(index, inputs, strict=True)}
    return seen


@pytest.mark.parametrize("kind", DRAWING)
def test_samples_that_draw_are_functions_of_seed_epoch_and_position(kind):
    def seen(seed: int = 3, **options) -> dict:
        return visited(ThreadedLoader(kind(), 8, seed=seed, **options))

    whole = seen()
    assert len(set(whole.values())) == 100
    for options in ({"num_threads": 0}, {"num_threads": 4}, {"num_threads": 4, "timeout": 60.0}):
        assert seen(**options) == whole
    assert visited(ThreadedLoader(kind(), 8, shuffle=True, seed=3, num_threads=3)) == whole
    assert seen(seed=4) != whole


@pytest.mark.parametrize("kind", DRAWING)
def test_a_sample_that_draws_is_the_same_when_it_is_read_again_alone_or_after_a_resume(kind):
    loader = ThreadedLoader(kind(), 8, shuffle=True, seed=3, num_threads=2)
    batches = iter(loader)
    for _ in range(3):
        next(batches)
    state, (inputs, index) = loader.state_dict(), next(batches)
    again = ThreadedLoader(kind(), 8, shuffle=True, seed=3, num_threads=1)
    again.load_state_dict(state)
    assert torch.equal(next(iter(again))[0], inputs)
    for row, position in zip(inputs, index, strict=True):
        assert torch.equal(read_now(kind(), position[None], 0, 3)[0][0], row)


@pytest.mark.parametrize("timeout", [None, 60.0])
@pytest.mark.parametrize("kind", DRAWING)
def test_the_consumers_generators_are_where_they_would_be_without_a_loader(kind, timeout):
    seed_all()
    alone = [numbers_of_all() for _ in range(7)]
    seed_all()
    beside = [numbers_of_all() for _ in ThreadedLoader(kind(), 8, num_threads=3, timeout=timeout)]
    assert beside == alone


def test_a_sample_that_hangs_or_fails_gives_the_generators_back():
    class Stuck(Draws):
        released = threading.Event()

        def __getitem__(self, index):
            torch.rand(7)
            if index == 9:
                self.released.wait(60)
            if index == 3:
                raise OSError("broken")
            return super().__getitem__(index)

    seed_all()
    before = torch.get_rng_state(), random.getstate()
    loader = ThreadedLoader(Stuck(), 8, timeout=0.3)
    batches = iter(loader)
    for error in (SampleError, LoaderTimeout):
        with pytest.raises(error):
            next(batches)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert random.getstate() == before[1]
    assert len(list(ThreadedLoader(Draws(), 8))) == 7  # nobody waits for the sample that still hangs
    Stuck.released.set()
    loader.close()  # waits for the thread: let go, it draws once more


def test_a_stream_that_draws_comes_again_and_goes_on_after_a_resume():
    class Noise(IterableDataset):
        def __iter__(self):
            order = list(range(20))
            random.shuffle(order)
            return iter((i, float(torch.rand(()))) for i in order)

    def batches(loader):
        return [[x.tolist() for x in batch] for batch in loader]

    seed_all()
    before = numbers_of_all()
    seed_all()
    loader = ThreadedLoader(Noise(), 4, seed=1)
    first, second = batches(loader), batches(loader)
    assert numbers_of_all() == before
    assert first == batches(ThreadedLoader(Noise(), 4, seed=1, timeout=60.0)) != second
    part = iter(loader)
    next(part)
    resumed = ThreadedLoader(Noise(), 4, seed=1)
    resumed.load_state_dict(loader.state_dict())
    assert batches(resumed) == batches(part)


class Careless(Dataset):
    """Keeps the sample in hand in itself, as transforms, tokenizers and file handles do."""

    def __init__(self) -> None:
        self.hand = 0

    def __len__(self) -> int:
        return 48

    def __getitem__(self, index: int) -> int:
        self.hand = index
        time.sleep(0.0005)
        return self.hand


@pytest.mark.parametrize("timeout", [None, 60.0])
@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: Subset(d, range(48)), lambda d: ConcatDataset([d])])
def test_code_that_says_nothing_is_read_one_sample_at_a_time(wrap, timeout):
    loader = ThreadedLoader(wrap(Careless()), 8, num_threads=4, timeout=timeout)
    assert torch.cat(list(loader)).tolist() == list(range(48))


def test_two_loaders_of_one_careless_data_set_do_not_meet_in_it():
    shared = Careless()
    pair = [ThreadedLoader(shared, 8, num_threads=2, timeout=60.0) for _ in range(2)]
    for one, other in zip(*pair, strict=True):
        assert torch.equal(one, other)


def test_threads_that_disturb_each_other_are_found_by_reading_twice():
    class Overconfident(Careless):
        thread_safe = True

    epochs = ThreadedLoader(Overconfident(), 8, num_threads=4, reread=1)
    with pytest.raises(SampleError, match=r"two readings of sample \d+ differ"):
        [list(epochs) for _ in range(50)]


@pytest.mark.parametrize("kind", [*DRAWING, Careless])
def test_reading_twice_finds_nothing_where_nothing_is_wrong(kind):
    assert len(list(ThreadedLoader(kind(), 8, num_threads=4, reread=3))) >= 6


def test_a_generator_of_the_data_sets_own_is_found_by_reading_twice():
    class Own(Draws):
        generator = np.random.default_rng(0)

        def __getitem__(self, index):
            return self.generator.random(), index

    with pytest.raises(SampleError, match="two readings of sample 0 differ: the data set keeps random numbers"):
        list(ThreadedLoader(Own(), 8, reread=5))


def test_a_data_set_that_declares_itself_is_read_by_several_threads_at_once():
    class Meeting(Dataset):
        """Its second and third sample wait for each other."""

        thread_safe = True
        together = threading.Barrier(2, timeout=30)

        def __len__(self):
            return 4

        def __getitem__(self, index):
            if index in (1, 2):
                self.together.wait()
            return index

    for wrap in (lambda d: d, lambda d: ConcatDataset([Subset(d, range(4))])):
        assert torch.cat(list(ThreadedLoader(wrap(Meeting()), 1, num_threads=2))).tolist() == [0, 1, 2, 3]


def test_what_is_said_counts_through_wrappers_and_not_through_subclasses_of_them():
    class Filtered(Subset):
        pass

    plain, careless = TensorDataset(torch.arange(3)), Careless()
    assert thread_safe(ConcatDataset([plain, Subset(plain, [0])]))
    assert not thread_safe(ConcatDataset([plain, careless]))
    assert not thread_safe(Filtered(plain, [0]))
    assert not thread_safe(careless)


@pytest.mark.parametrize("declared", [True, False])
def test_a_collate_function_runs_one_batch_at_a_time_and_draws_for_its_batch(declared):
    class Padder:
        """Like a fast tokenizer: what it is told before the call decides what the call does."""

        def __init__(self):
            self.length = 0

        def __call__(self, items):
            self.length = len(items)
            time.sleep(0.0005)
            return self.length, len(items), float(torch.rand(()))

    class Data(Draws):
        thread_safe = declared

        def __getitem__(self, index):
            return index

    seed_all()
    first = list(ThreadedLoader(Data(), 8, collate_fn=Padder(), num_threads=4))
    after = numbers_of_all()
    seed_all()
    assert numbers_of_all() == after
    assert all(told == length for told, length, _ in first)
    assert len({drawn for *_, drawn in first}) == 7
    assert first == list(ThreadedLoader(Data(), 8, collate_fn=Padder(), num_threads=1))


def test_connections_that_belong_to_one_thread_work_in_data_sets_and_streams(tmp_path):
    file = tmp_path / "numbers.db"
    with sqlite3.connect(file) as connection:
        connection.execute("create table t(i integer)")
        connection.executemany("insert into t values(?)", [(i,) for i in range(40)])

    class Rows(Dataset):
        connection = None

        def __len__(self):
            return 40

        def __getitem__(self, index):
            self.connection = self.connection or sqlite3.connect(file)
            return self.connection.execute("select i from t where i=?", (index,)).fetchone()[0]

    class Cursor(IterableDataset):
        def __iter__(self):
            yield from (row[0] for row in sqlite3.connect(file).execute("select i from t"))

    for dataset in (Rows(), Cursor()):
        loader = ThreadedLoader(dataset, 4, num_threads=4)
        for _ in range(2):
            assert torch.cat(list(loader)).tolist() == list(range(40))
    assert len(list(ThreadedLoader(Cursor(), 4, num_threads=4, timeout=60.0))) == 10


def images(augment: bool = True) -> ArrayData:
    pixels = torch.arange(24 * 64, dtype=torch.float32).view(24, 1, 8, 8)
    return ArrayData(pixels, torch.arange(24), augment=CropFlip(2, True) if augment else None, seed=0)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda d: Subset(d, range(24)),
        lambda d: Subset(Subset(d, range(24)), range(24)),
        lambda d: ConcatDataset([d]),
        lambda d: ConcatDataset([Subset(d, range(10)), Subset(d, range(10, 24))]),
    ],
)
def test_wrappers_show_the_view_of_the_epoch(wrap):
    bare = ThreadedLoader(images(), 6)
    wrapped = ThreadedLoader(wrap(images()), 6, num_threads=2)
    epochs = [torch.cat([x for x, _ in bare]) for _ in range(3)]
    for epoch in epochs:
        assert torch.equal(torch.cat([x for x, _ in wrapped]), epoch)
    assert all(not torch.equal(a, b) for a, b in pairwise(epochs))


def test_a_collate_function_over_our_images_sees_the_view_of_the_epoch():
    loader = ThreadedLoader(images(), 24, collate_fn=lambda items: torch.stack([x for x, _ in items]))
    bare = ThreadedLoader(images(), 24)
    for _ in range(2):
        assert torch.equal(next(iter(loader)), next(iter(bare))[0])
