"""TrivialAugment, RandAugment and erasing: each picture is a function of (seed, view, index)."""

from __future__ import annotations

import pytest
import torch

from kd_lightning.data.array_data import ArrayData
from kd_lightning.data.augment import CropFlip
from kd_lightning.data.digits import DigitsData
from kd_lightning.data.fashion_scenes import FashionScenesData
from kd_lightning.data.loader.threaded_loader import ThreadedLoader
from kd_lightning.data.mixing import Mixing
from kd_lightning.data.module import DistillationDataModule
from kd_lightning.data.policy import OPERATIONS, Policy
from kd_lightning.errors import UserError

SAMPLES = 203
POLICIES = {
    "trivial": Policy(trivial=True, erasing=0.5), "randaugment": Policy(randaugment=2), "erasing": Policy(erasing=1.0)
}  # fmt: skip


def data(policy: Policy | None, channels: int = 3, mixing: Mixing | None = None) -> ArrayData:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(1, 256, (SAMPLES, channels, 11, 12), generator=generator, dtype=torch.uint8)
    settings = {"scale": 255.0, "mean": [0.5] * channels, "std": [0.3] * channels, "seed": 3}
    return ArrayData(
        pixels, torch.arange(SAMPLES) % 7, augment=CropFlip(2, True), policy=policy, mixing=mixing, **settings
    )


class Pictures(DistillationDataModule):
    """40 pictures of 4 classes."""

    num_classes, in_channels, image_size, mean, std = 4, 1, 8, [0.5], [0.3]

    def train_data(self):
        generator = torch.Generator().manual_seed(0)
        return torch.randint(0, 256, (40, 1, 8, 8), generator=generator, dtype=torch.uint8), torch.arange(40) % 4


def module(**augment) -> Pictures:
    return Pictures(augment=augment, batch_size=8, num_threads=1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("policy", POLICIES.values(), ids=list(POLICIES))
def test_a_picture_does_not_depend_on_the_batch_that_it_is_made_in(policy, channels):
    samples = data(policy, channels)
    inputs = samples.read(torch.arange(SAMPLES), 5)[0]
    assert not torch.equal(inputs, data(None, channels).read(torch.arange(SAMPLES), 5)[0])
    order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(1))
    for size in (1, 7, 64):
        for part in order.split(size):
            assert torch.equal(samples.read(part, 5)[0], inputs[part])


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("policy", POLICIES.values(), ids=list(POLICIES))
def test_a_loader_gives_epoch_7_again_with_any_batch_size_and_number_of_threads(policy, threads):
    expected = data(policy).read(torch.arange(SAMPLES), 7)[0]
    for size in (1, 64):
        loader = ThreadedLoader(data(policy), size, shuffle=True, as_batch=True, num_threads=threads)
        loader.set_epoch(7)
        batches = list(loader)
        order = torch.cat([batch.index for batch in batches]).argsort()
        assert torch.equal(torch.cat([batch.inputs for batch in batches])[order], expected)


def test_partners_of_mixed_pictures_show_the_view_that_they_have_themselves():
    policy, mixing = Policy(trivial=True, erasing=0.5), Mixing(mixup=1.0)
    samples, alone, index = data(policy, mixing=mixing), data(policy), torch.arange(SAMPLES)
    plan = mixing.plan(3, 2, index, SAMPLES, 11, 12)
    own, other = alone.read(index, 2)[0], alone.read(plan.partner, 2)[0]
    w = plan.weight.view(-1, 1, 1, 1)
    torch.testing.assert_close(samples.read(index, 2)[0], w * own + (1 - w) * other)


def test_trivialaugment_draws_every_operation_equally_often(monkeypatch):
    drawn = []
    monkeypatch.setattr("kd_lightning.data.policy.operated", lambda pixels, which, *_: drawn.append(which) or pixels)
    Policy(trivial=True).changed(torch.zeros(28_000, 1, 1, 1, dtype=torch.uint8), torch.arange(28_000), 0, 0)
    counts = torch.from_numpy(drawn[0]).bincount(minlength=len(OPERATIONS))
    assert len(counts) == 14
    assert (counts - 2000).abs().max() < 200


def test_erasing_takes_2_to_33_percent_of_so_many_pictures():
    policy = Policy(erasing=0.25)
    values = policy.erase(torch.ones(4000, 2, 32, 32), torch.arange(4000), 0, 0)
    erased = (values == 0).double().mean((1, 2, 3))
    assert torch.equal(values[:, 0], values[:, 1])
    assert (erased > 0).double().mean() == pytest.approx(0.25, abs=0.03)
    some = erased[erased > 0]
    assert 0.012 < some.min() < 0.03
    assert 0.3 < some.max() < 0.36


def test_a_policy_is_part_of_what_a_cache_is_keyed_by_and_nothing_is_as_it_was():
    off = module(crop_padding=1, trivial=False, randaugment=0, erasing=None)
    assert off.view_fingerprint() == module(crop_padding=1).view_fingerprint()
    settings = [{}, {"trivial": True}, {"randaugment": 1}, {"randaugment": 2}, {"erasing": 0.1}, {"erasing": 0.2}]
    made = [module(crop_padding=1, **setting) for setting in settings]
    assert len({each.view_fingerprint() for each in made}) == len(settings)
    assert module(trivial=True).views == 0


def test_augment_true_is_all_of_the_modules_own():
    class Own(Pictures):
        default_augment = {"crop_padding": 1, "trivial": True, "mixup": 0.2}

    made = Own(augment=True)
    assert made.policy is not None
    assert made.mixing is not None


def test_the_one_view_of_a_picture_that_is_fixed_depends_on_the_seed_and_so_does_its_key():
    fixed = [Pictures(augment={"trivial": True}, views=1, seed=seed, batch_size=8) for seed in (0, 1)]
    inputs = [next(iter(made.train_dataset().read(torch.arange(9), 0))) for made in fixed]
    assert not torch.equal(*inputs)
    assert fixed[0].view_fingerprint() != fixed[1].view_fingerprint()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: module(trivial=1), "data.augment.trivial must be true or false, got 1"),
        (lambda: module(randaugment=1.5), "data.augment.randaugment must be a whole number >= 0, got 1.5"),
        (lambda: module(erasing=2), r"data.augment.erasing must be a probability in \[0, 1\], got 2"),
        (lambda: module(trivial=True, randaugment=2), "trivial and randaugment are two policies"),
        (lambda: DigitsData(augment={"trivial": True}), "data.augment.trivial: for pictures .* of bytes, 0 to 255"),
        (lambda: FashionScenesData(augment={"erasing": 0.5}), "data.augment.erasing: .* target is not one of pixels"),
    ],
)
def test_what_cannot_be_changed_is_refused_in_one_line(make, says):
    with pytest.raises(UserError, match=says) as refused:
        make().setup("fit")
    assert "\n" not in str(refused.value)
