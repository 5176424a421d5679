"""Pooled batch memory: used again when nobody looks, never before."""

from __future__ import annotations

import threading

import torch

from kd_lightning.data.loader.batch_memory import BatchMemory


def test_memory_of_a_forgotten_batch_is_used_again():
    memory = BatchMemory()
    first = memory.empty((4, 3, 8, 8), torch.float32)
    place = first.data_ptr()
    del first
    assert memory.empty((4, 3, 8, 8), torch.float32).data_ptr() == place


def test_any_view_of_a_batch_keeps_its_memory():
    memory = BatchMemory()
    batch = memory.empty((4, 6), torch.float32)
    batch.fill_(7)
    kept = [batch[1], batch.T[2:3].reshape(-1), batch.numpy()[0], batch.untyped_storage()]
    del batch
    while kept:
        other = memory.empty((4, 6), torch.float32)
        other.zero_()
        if len(kept) > 1:
            assert float(kept[0].sum()) > 0
        del other
        kept.pop(0)


def test_smaller_and_larger_batches_get_memory_of_their_size():
    memory = BatchMemory()
    for n in (8, 3, 8, 20, 8):
        batch = memory.empty((n, 5), torch.float32)
        assert batch.shape == (n, 5)
        assert batch.is_contiguous()
        assert batch.data_ptr() % 64 == 0
        batch.zero_()


def test_the_memory_kept_is_bounded():
    memory = BatchMemory()
    batches = [memory.empty((10,), torch.uint8) for _ in range(50)]
    del batches
    assert len(memory._free) == 8


def test_no_memory_is_lent_twice_by_threads_at_once():
    memory, wrong = BatchMemory(), []

    def work(mark: int) -> None:
        for _ in range(300):
            batch = memory.empty((64,), torch.int64)
            batch.fill_(mark)
            if not bool((batch == mark).all()):
                wrong.append(mark)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
