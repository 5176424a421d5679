"""Orders and shards: functions of (seed, epoch), complete, and equal on all processes where they must be."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DistributedSampler, SequentialSampler, WeightedRandomSampler

from kd_lightning.data.loader.generators import mixed_seed
from kd_lightning.data.loader.sampling import EpochSampler, epoch_sampler
from kd_lightning.data.loader.threaded_loader import ThreadedLoader
from kd_lightning.errors import UserError

lengths = st.integers(1, 60)
replica_counts = st.integers(1, 9)


@given(length=lengths, seed=st.integers(0, 2**40), epoch=st.integers(0, 1000))
def test_an_order_is_a_permutation_that_depends_on_seed_and_epoch_only(length, seed, epoch):
    order = EpochSampler(length, shuffle=True, seed=seed).order(epoch)
    torch.rand(3)  # the global generator has no part in it
    used = EpochSampler(length, shuffle=True, seed=seed)
    used.order(epoch + 1)
    assert sorted(order.tolist()) == list(range(length))
    assert torch.equal(order, used.order(epoch))


def test_seeds_and_epochs_do_not_share_orders():
    seeds = {mixed_seed(seed, epoch) for seed in range(50) for epoch in range(50)}
    assert len(seeds) == 2500
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_an_order_made_today_is_the_order_of_tomorrow():
    """Runs are continued by later versions: a change here must be a decision."""
    assert EpochSampler(10, shuffle=True, seed=7).order(3).tolist() == [1, 5, 3, 2, 7, 0, 9, 6, 8, 4]


@given(length=lengths, replicas=replica_counts, seed=st.integers(0, 99), shuffle=st.booleans())
def test_uneven_shards_hold_each_sample_once(length, replicas, seed, shuffle):
    shards = [EpochSampler(length, shuffle, seed, r, replicas, pad_shards=False) for r in range(replicas)]
    orders = [shard.order(2) for shard in shards]
    assert sorted(torch.cat(orders).tolist()) == list(range(length))
    assert [len(order) for order in orders] == [len(shard) for shard in shards]
    assert max(map(len, orders)) - min(map(len, orders)) <= 1


@given(length=lengths, replicas=replica_counts, drop_last=st.booleans())
def test_padded_shards_are_those_of_torch(length, replicas, drop_last):
    for rank in range(replicas):
        ours = EpochSampler(length, False, 0, rank, replicas, drop_last=drop_last)
        if drop_last and length < replicas:
            assert ours.order(0).tolist() == []
            continue
        theirs = DistributedSampler(range(length), replicas, rank, shuffle=False, drop_last=drop_last)
        assert ours.order(0).tolist() == list(theirs)
        assert len(ours) == len(theirs)


@given(length=lengths, replicas=replica_counts, batch_size=st.integers(1, 12), drop_last=st.booleans())
def test_all_processes_make_equally_many_training_batches(length, replicas, batch_size, drop_last):
    loaders = [
        ThreadedLoader(
            range(length), batch_size, True, drop_last=drop_last, num_threads=1, rank=r, num_replicas=replicas
        )
        for r in range(replicas)
    ]
    batches = [list(loader) for loader in loaders]
    assert {len(b) for b in batches} == {len(loaders[0])}
    assert all(len(b) == batch_size for b in batches[0]) or not drop_last
    seen = [i for b in batches for batch in b for i in batch.tolist()]
    if drop_last:
        assert len(seen) == len(set(seen))
    else:
        assert set(seen) == set(range(length))


def test_a_loader_takes_its_place_from_torch_distributed(monkeypatch):
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    shards = []
    for rank in range(2):
        monkeypatch.setattr("torch.distributed.get_rank", lambda rank=rank: rank)
        shards.append([i for batch in ThreadedLoader(range(21), 4, pad_shards=False) for i in batch.tolist()])
    assert [len(shard) for shard in shards] == [11, 10]
    assert sorted(shards[0] + shards[1]) == list(range(21))


@pytest.mark.slow
def test_two_processes_of_torch_distributed_share_an_epoch(tmp_path):
    torch.multiprocessing.spawn(_visit_as_rank, args=(str(tmp_path),), nprocs=2)
    even = [torch.load(tmp_path / f"train-{rank}.pt") for rank in range(2)]
    uneven = [torch.load(tmp_path / f"val-{rank}.pt") for rank in range(2)]
    assert [len(shard) for shard in even] == [11, 11]
    assert set(even[0] + even[1]) == set(range(21))
    assert sorted(uneven[0] + uneven[1]) == list(range(21))


def _visit_as_rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    for name, pad in (("train", True), ("val", False)):
        loader = ThreadedLoader(range(21), 4, shuffle=pad, num_threads=2, pad_shards=pad)
        torch.save([i for batch in loader for i in batch.tolist()], f"{folder}/{name}-{rank}.pt")
    torch.distributed.destroy_process_group()


def test_a_sampler_of_the_users_own_draws_by_seed_and_epoch():
    def orders(seed: int) -> list[list[int]]:
        sampler = epoch_sampler(5, False, WeightedRandomSampler([1.0] * 5, 12), seed=seed)
        torch.manual_seed(torch.seed() % 1000)
        return [sampler.order(epoch).tolist() for epoch in (0, 1)]

    before = torch.get_rng_state()
    EpochSampler(5, base=WeightedRandomSampler([1.0] * 5, 12)).order(0)
    assert torch.equal(torch.get_rng_state(), before)
    assert orders(0) == orders(0)
    assert orders(0) != orders(1)
    assert orders(0)[0] != orders(0)[1]


def test_a_sampler_that_shards_is_not_sharded_again_and_is_told_the_epoch():
    theirs = DistributedSampler(range(20), 2, 1, shuffle=True)
    ours = epoch_sampler(20, False, theirs, rank=1, num_replicas=2)
    ours.set_epoch(3)
    assert ours.order(3).tolist() == list(theirs)
    assert theirs.epoch == 3
    assert len(ours) == 10


def test_a_sampler_without_a_length_gives_a_loader_without_one():
    loader = ThreadedLoader(range(9), 2, sampler=(i for i in range(5)))
    with pytest.raises(TypeError, match="no len"):
        len(loader)
    assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3], [4]]


def test_lightning_can_tell_an_order_that_is_not_shuffled():
    assert isinstance(ThreadedLoader(range(3)).sampler, SequentialSampler)
    assert not isinstance(ThreadedLoader(range(3), shuffle=True).sampler, SequentialSampler)


@pytest.mark.parametrize(
    "bad",
    [
        {"seed": -1},
        {"num_replicas": 0},
        {"rank": 2, "num_replicas": 2},
        {"rank": -1},
        {"shuffle": True, "sampler": [0, 1]},
    ],
    ids=str,
)
def test_impossible_settings_are_refused(bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        ThreadedLoader(range(4), **bad)
