"""Mixup and CutMix: each mixed picture, its partner and its weight are a function of (seed, view, index)."""

from __future__ import annotations

import pytest
import torch

from kd_lightning.batch import UNLABELLED, as_batch
from kd_lightning.data.array_data import ArrayData
from kd_lightning.data.augment import CropFlip
from kd_lightning.data.fashion_scenes import FashionScenesData
from kd_lightning.data.loader.threaded_loader import ThreadedLoader
from kd_lightning.data.mixing import Mixing, beta_quantiles
from kd_lightning.data.module import DistillationDataModule
from kd_lightning.errors import UserError

SAMPLES = 203
BOTH = Mixing(mixup=0.4, cutmix=1.0)


def data(mixing: Mixing | None = BOTH, augment: CropFlip | None = None, channels: int = 3) -> ArrayData:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (SAMPLES, channels, 9, 10), generator=generator, dtype=torch.uint8)
    settings = {"scale": 255.0, "mean": [0.5] * channels, "std": [0.3] * channels, "seed": 3}
    return ArrayData(pixels, torch.arange(SAMPLES) % 7, augment=augment, mixing=mixing, **settings)


class Pictures(DistillationDataModule):
    """203 pictures of 7 classes."""

    num_classes, in_channels, image_size, mean, std = 7, 1, 8, [0.5], [0.3]

    def train_data(self):
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (SAMPLES, 1, 8, 8), generator=generator, dtype=torch.uint8)
        return pixels, torch.arange(SAMPLES) % 7


def module(**settings) -> Pictures:
    augment = {"crop_padding": 1, "flip": True, "mixup": 0.4, "cutmix": 1.0}
    return Pictures(**{"batch_size": 32, "augment": augment, "num_threads": 1, **settings})


def by_index(batches) -> list[torch.Tensor]:
    """Inputs, targets, partners' targets and weights of all samples, in the data's order."""
    parts = zip(*((b.index, b.inputs, b.target, b.partner_target, b.weight) for b in batches), strict=True)
    index, *rest = (torch.cat(part) for part in parts)
    return [part[index.argsort()] for part in (index, *rest)]


def same(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("mixing", [Mixing(mixup=0.2), Mixing(cutmix=1.0), BOTH], ids=["mixup", "cutmix", "both"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_mixed_picture_does_not_depend_on_the_batch_that_it_is_made_in(mixing, channels):
    samples = data(mixing, CropFlip(2, True), channels)
    inputs, targets, partner = samples.gather(torch.arange(SAMPLES), 5)
    order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(1))
    for size in (1, 7, 64):
        for part in order.split(size):
            made, own, other = samples.gather(part, 5)
            expected = (inputs[part], targets[part], partner.target[part], partner.weight[part])
            assert same((made, own, *other), expected)


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("size", [1, 7, 64])
def test_a_loader_gives_the_same_views_with_any_batch_size_order_and_number_of_threads(threads, size):
    settings = {"as_batch": True, "split": "train", "num_threads": threads, "seed": 3}
    loader = ThreadedLoader(data(augment=CropFlip(2, True)), size, shuffle=True, **settings)
    loader.set_epoch(7)
    inputs, targets, partner = data(augment=CropFlip(2, True)).gather(torch.arange(SAMPLES), 7)
    assert same(by_index(loader)[1:], (inputs, targets, *partner))


def test_each_epoch_mixes_anew_and_epoch_7_comes_again_bit_for_bit():
    loader = module().train_dataloader()
    epochs = []
    for epoch in (6, 7, 7):
        loader.set_epoch(epoch)
        epochs.append(by_index(loader))
    assert same(epochs[1], epochs[2])
    assert not torch.equal(epochs[0][4], epochs[1][4])


def test_cycled_views_come_again_with_their_partners():
    loader = module(views=3, drop_last=False).train_dataloader()
    loader.set_epoch(1)
    first = by_index(loader)
    loader.set_epoch(4)
    assert same(first, by_index(loader))


def test_an_epoch_that_is_continued_in_its_middle_gives_the_rest_of_it():
    loader, again = (module().train_dataloader() for _ in range(2))
    loader.set_epoch(2)
    batches = iter(loader)
    for _ in range(3):
        next(batches)
    again.load_state_dict(loader.state_dict())
    rest, continued = list(batches), list(again)
    assert len(rest) == len(continued) == SAMPLES * 9 // 10 // 32 - 3
    for one, other in zip(rest, continued, strict=True):
        assert same((one.inputs, *one[1:3], *one[6:]), (other.inputs, *other[1:3], *other[6:]))


def test_a_mixup_is_the_weighted_sum_of_both_samples_own_views():
    samples, alone = data(Mixing(mixup=1.0), CropFlip(2, True)), data(None, CropFlip(2, True))
    index = torch.arange(SAMPLES)
    plan = samples.mixing.plan(samples.seed, 4, index, SAMPLES, 9, 10)
    inputs, target, partner = samples.gather(index, 4)
    own, other = alone.read(index, 4)[0], alone.read(plan.partner, 4)[0]
    w = partner.weight.view(-1, 1, 1, 1)
    torch.testing.assert_close(inputs, w * own + (1 - w) * other)
    assert torch.equal(target, alone.targets)
    assert torch.equal(partner.target, alone.targets[plan.partner])
    assert plan.partner.unique().numel() > SAMPLES / 2


def test_the_weight_of_a_cut_picture_is_what_the_clipped_box_leaves_of_it():
    samples, alone = data(Mixing(cutmix=1.0)), data(None)
    index = torch.arange(SAMPLES)
    plan = samples.mixing.plan(samples.seed, 0, index, SAMPLES, 9, 10)
    inputs, _, partner = samples.gather(index, 0)
    own, other = alone.read(index, 0)[0], alone.read(plan.partner, 0)[0]
    kept = plan.mask.expand(-1, 3, -1, -1) == 1
    assert torch.equal(inputs, torch.where(kept, own, other))
    assert torch.equal(partner.weight, kept.double().mean((1, 2, 3)).float())
    assert partner.weight.std() > 0.15


def test_of_mixup_and_cutmix_each_is_drawn_for_half_of_the_samples():
    plan = BOTH.plan(0, 0, torch.arange(20_000), 20_000, 16, 16)
    cut = (plan.mask == plan.mask.round()).flatten(1).all(1)
    assert 0.5 <= cut.double().mean() < 0.75  # a blend of weight 0 or 1 looks like a cut one
    assert (plan.partner.bincount(minlength=20_000) > 0).double().mean() > 0.6  # all of them are drawn: 1 - 1 / e


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 8.0])
def test_weights_have_mean_and_variance_of_the_beta_distribution(alpha):
    quantiles = torch.from_numpy(beta_quantiles(alpha).copy()).double()
    assert quantiles.mean() == pytest.approx(0.5, abs=1e-3)
    assert quantiles.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.02)


def test_a_partner_without_a_label_says_so():
    made = module(labelled=20)
    batches = list(made.train_dataloader())
    known = torch.cat([b.partner_target for b in batches]) != UNLABELLED
    assert 0.02 < known.double().mean() < 0.3


def test_an_alpha_of_nothing_or_0_leaves_everything_as_it_was():
    crops = {"crop_padding": 1, "flip": True, "padding_mode": "zeros"}
    plain = Pictures(augment=crops)
    off = Pictures(augment={**crops, "mixup": None, "cutmix": 0})
    assert off.view_fingerprint() == plain.view_fingerprint()
    assert off.mixing is None


def test_alpha_and_training_samples_are_part_of_what_a_cache_is_keyed_by():
    def key(**settings):
        made = module(**settings)
        return made.data_fingerprint(), made.view_fingerprint()

    others = [
        {"augment": {"mixup": 0.2}}, {"augment": {"mixup": 0.3}}, {"augment": {"cutmix": 0.2}}, {"train_size": 100},
        {"labelled": 50}, {"split_seed": 1}, {"seed": 1},
    ]  # fmt: skip
    assert len({key(), *(key(**settings) for settings in others)}) == 1 + len(others)


def test_a_batch_of_a_loader_that_makes_no_batch_keeps_its_partners():
    batch = as_batch(next(iter(ThreadedLoader(data(), 4))))
    assert batch.index is None
    assert batch.partner_target is not None
    assert batch.weight is not None


def test_what_learns_one_label_of_each_sample_gets_them_unmixed():
    samples = data()
    assert torch.equal(samples.unmixed().read(torch.arange(9), 2)[0], data(None).read(torch.arange(9), 2)[0])
    assert samples.mixing is BOTH


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: module(extra_views=1), "data.extra_views=1 asks for further views"),
        (lambda: module(views=1), "data.views=1 would show each sample with one partner"),
        (
            lambda: FashionScenesData(augment={"mixup": 0.2}),
            "data.augment.mixup: for pictures .* one class number each",
        ),
        (lambda: module(augment={"cutmix": -1}), "data.augment.cutmix must be a number >= 0 .* got -1"),
        (lambda: module(augment={"mixup": True}), "data.augment.mixup must be a number >= 0 .* got True"),
        (lambda: module(augment={"mixupp": 1}), "data.augment has no key 'mixupp'.* mixup and cutmix|mixup, cutmix"),
    ],
)
def test_what_cannot_be_mixed_is_refused_in_one_line(make, says):
    with pytest.raises(UserError, match=says) as refused:
        make().setup("fit")
    assert "\n" not in str(refused.value)
