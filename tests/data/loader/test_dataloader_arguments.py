"""ThreadedLoader where a DataLoader is expected: its arguments, odd data sets, samplers, Lightning, Fabric, pickle."""

from __future__ import annotations

import copy
import itertools
import pickle
import random

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric import Fabric
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler, Sampler, TensorDataset

from kd_lightning.data.loader.threaded_loader import ThreadedLoader
from kd_lightning.errors import UserError

pairs = TensorDataset(torch.arange(20.0).view(20, 1), torch.arange(20))


def targets(loader) -> list[list[int]]:
    return [batch[1].tolist() for batch in loader]


def flat(batches: list[list[int]]) -> list[int]:
    return [target for batch in batches for target in batch]


@pytest.mark.parametrize("data", [torch.arange(10.0), np.arange(10), list(range(10)), range(10)], ids=repr)
def test_whatever_has_items_and_a_length_is_a_data_set(data):
    ours, theirs = list(ThreadedLoader(data, 4)), list(DataLoader(data, 4))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_batch_sampler_gives_the_batches():
    assert targets(ThreadedLoader(pairs, batch_sampler=[[3, 1], [2]])) == [[3, 1], [2]]
    loader = ThreadedLoader(pairs, batch_sampler=BatchSampler(RandomSampler(pairs), 6, True), num_threads=2)
    assert [len(batch) for batch in targets(loader)] == [6, 6, 6]
    assert len(loader) == 3
    with pytest.raises(UserError, match="remove batch_size"):
        ThreadedLoader(pairs, 4, batch_sampler=[[1]])


def test_without_a_batch_size_samples_come_as_they_are():
    assert [y for _, y in ThreadedLoader(pairs, batch_size=None)] == list(range(20))
    assert len(ThreadedLoader(pairs, batch_size=None)) == 20

    class Stream(IterableDataset):
        def __iter__(self):
            return iter("abc")

    assert list(ThreadedLoader(Stream(), batch_size=None)) == ["a", "b", "c"]


def test_a_generator_chooses_the_order():
    orders = [
        targets(ThreadedLoader(pairs, 20, True, generator=torch.Generator().manual_seed(seed)))[0] for seed in (1, 1, 2)
    ]
    assert orders[0] == orders[1] != orders[2]


def test_arguments_about_worker_processes_are_accepted_and_others_are_named():
    loader = ThreadedLoader(
        pairs, 5, num_workers=0, persistent_workers=True, prefetch_factor=2, worker_init_fn=print, in_order=False,
        multiprocessing_context="spawn", pin_memory=True,
    )  # fmt: skip
    assert (loader.num_threads, loader.order) == (0, "completion")
    assert sorted(flat(targets(loader))) == list(range(20))
    with pytest.raises(UserError, match="no argument 'batchsize'"):
        ThreadedLoader(pairs, batchsize=4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what happens without a GPU")
def test_pinning_without_a_gpu_does_nothing():
    assert not next(iter(ThreadedLoader(pairs, 4, pin_memory=True)))[0].is_pinned()


def test_samples_may_be_asked_for_by_anything():
    class Named(Dataset):
        def __getitem__(self, key):
            return {"a": 1, "b": 2, "c": 3}[key]

    for data in (Named(), {"a": 1, "b": 2, "c": 3}):
        assert [b.tolist() for b in ThreadedLoader(data, 2, sampler=["c", "a", "b"])] == [[3, 1], [2]]
    with pytest.raises(UserError, match="no len"):
        list(ThreadedLoader(Named(), 2))


@pytest.mark.parametrize("sized", [True, False])
def test_a_sampler_need_not_end(sized):
    class Endless(Sampler):
        def __iter__(self):
            return itertools.cycle(range(5))

    if sized:
        Endless.__len__ = lambda self: 5
    got = [batch[1].tolist() for batch in itertools.islice(ThreadedLoader(pairs, 2, sampler=Endless()), 4)]
    assert got == [[0, 1], [2, 3], [4, 0], [1, 2]]


class OwnGenerator(Sampler):
    def __init__(self, generator) -> None:
        self.generator = generator

    def __len__(self) -> int:
        return 20

    def __iter__(self):
        order = list(range(20))
        self.generator.shuffle(order)
        return iter(order)


SAMPLERS = {
    "torch": lambda: {"sampler": RandomSampler(pairs, generator=torch.Generator().manual_seed(3)), "batch_size": 4},
    "batches": lambda: {
        "batch_sampler": BatchSampler(RandomSampler(pairs, generator=torch.Generator().manual_seed(3)), 4, False)
    },
    "numpy": lambda: {"sampler": OwnGenerator(np.random.default_rng(3)), "batch_size": 4},
    "old numpy": lambda: {"sampler": OwnGenerator(np.random.RandomState(3)), "batch_size": 4},
    "python": lambda: {"sampler": OwnGenerator(random.Random(3)), "batch_size": 4},
}


@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_sampler_with_its_own_generator_continues_where_it_was(kind):
    loader = ThreadedLoader(pairs, **SAMPLERS[kind]())
    targets(loader)
    batches = iter(loader)
    next(batches)
    state, rest, following = loader.state_dict(), targets(batches), targets(loader)
    resumed = ThreadedLoader(pairs, **SAMPLERS[kind]())
    resumed.load_state_dict(state)
    assert targets(resumed) == rest
    assert targets(resumed) == following


def test_a_sampler_whose_order_does_not_come_again_is_refused_in_mid_epoch():
    hidden = random.Random(3)

    class Hidden(OwnGenerator):
        def __init__(self):
            pass

        def __iter__(self):
            return iter(hidden.sample(range(20), 20))

    loader = ThreadedLoader(pairs, 4, sampler=Hidden())
    batches = iter(loader)
    next(batches)
    resumed = ThreadedLoader(pairs, 4, sampler=Hidden())
    resumed.load_state_dict(loader.state_dict())
    with pytest.raises(UserError, match="the sampler gives another order"):
        next(iter(resumed))


def test_a_data_set_may_grow_or_be_replaced_between_epochs():
    data = [0, 1, 2]
    loader = ThreadedLoader(data, 2)
    list(loader)
    data += [10, 11]
    assert len(loader) == 3
    assert [b.tolist() for b in loader] == [[0, 1], [2, 10], [11]]
    loader.dataset = pairs
    assert targets(loader)[-1] == [18, 19]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda loader: pickle.loads(pickle.dumps(loader))])
def test_a_copy_of_a_loader_goes_on_where_the_loader_is(copied):
    loader = ThreadedLoader(pairs, 4, shuffle=True, num_threads=2)
    batches = iter(loader)
    next(batches)
    twin = copied(loader)
    assert targets(twin) == targets(batches)
    assert targets(twin) == targets(loader)


class Model(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.seen = torch.nn.Linear(1, 1), []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch[1].tolist())
        return self.layer(batch[0]).mean()

    def predict_step(self, batch, batch_idx):
        return batch[1].tolist()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


def trainer(**options) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, **options,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore::Warning")
def test_lightning_overfits_the_same_batches_though_the_loader_shuffles():
    model = Model()
    trainer(max_epochs=3, overfit_batches=2).fit(model, ThreadedLoader(pairs, 4, shuffle=True, num_threads=2))
    assert model.seen == [[0, 1, 2, 3], [4, 5, 6, 7]] * 3


@pytest.mark.filterwarnings("ignore::Warning")
def test_lightning_predicts_every_sample_in_order():
    predicted = trainer().predict(Model(), ThreadedLoader(pairs, 8))
    assert flat(predicted) == list(range(20))


def test_lightning_does_not_warn_of_too_few_workers(recwarn):
    trainer(max_epochs=1).fit(Model(), ThreadedLoader(pairs, 8, num_threads=1))
    assert not [w for w in recwarn if "workers" in str(w.message)]


def test_fabric_sets_the_loader_up():
    fabric = Fabric(accelerator="cpu", devices=1)
    loader = fabric.setup_dataloaders(ThreadedLoader(pairs, 8, shuffle=True))
    epochs = [targets(loader) for _ in range(2)]
    assert [sorted(flat(epoch)) for epoch in epochs] == [list(range(20))] * 2
    assert epochs[0] != epochs[1]
