"""Stored answers under mixup, CutMix and policies: every mixed view's are those of the live teacher."""

from __future__ import annotations

import pytest
import torch
from cache_setup import Counting, TinyImages, make_teacher, opened

from kd_lightning.batch import Batch

BOTH = {"crop_padding": 2, "flip": True, "mixup": 0.2, "cutmix": 1.0}
ALL = {**BOTH, "trivial": True, "erasing": 0.5}


@pytest.mark.parametrize("views", [0, 4])
@pytest.mark.parametrize("augment", [{"mixup": 0.2}, BOTH, ALL], ids=["mixup", "both", "all"])
def test_every_mixed_batch_gets_the_live_teachers_logits(tmp_path, views, augment):
    data, teacher = TinyImages(views=views, augment=augment), Counting(make_teacher())
    cached = opened(tmp_path, teacher, data, precision="fp32")
    asked = teacher.samples
    for size in (7, 32):
        loader = TinyImages(views=views, augment=augment, batch_size=size).train_dataloader()
        for epoch in (0, 3, 7):
            loader.set_epoch(epoch)
            for batch in loader:
                assert batch.weight is not None
                torch.testing.assert_close(cached(batch).logits, teacher.teacher(batch).logits, rtol=1e-5, atol=1e-6)
    assert teacher.samples == asked  # all of them were read


def test_fp32_rows_of_mixed_views_are_bit_identical_to_live_ones_in_the_same_batches(tmp_path):
    data, teacher = TinyImages(augment=BOTH), make_teacher()
    cached = opened(tmp_path, teacher, data, precision="fp32")
    for start in range(0, data.train_samples, data.batch_size):
        index = torch.arange(start, min(start + data.batch_size, data.train_samples))
        batch = Batch(*data.train_views_dataset.read(index, 3), index, 3, "train")
        assert torch.equal(cached(batch).logits, teacher(batch).logits)


def test_other_partners_are_another_cache(tmp_path):
    def directories() -> int:
        return sum(path.is_dir() for path in tmp_path.iterdir())

    for number, settings in enumerate(({}, {"augment": {**BOTH, "mixup": 0.3}}, {"train_size": 200}), 1):
        opened(tmp_path, data=TinyImages(**{"augment": BOTH, **settings}))
        assert directories() == number
    opened(tmp_path, data=TinyImages(augment=BOTH))
    assert directories() == 3
