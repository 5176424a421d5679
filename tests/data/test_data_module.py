"""What all data modules share, on the digits."""

from __future__ import annotations

import json

import pytest
import torch

from kd_lightning.batch import UNLABELLED, Batch
from kd_lightning.config.build import fill_auto
from kd_lightning.data.digits import DigitsData
from kd_lightning.errors import UserError


def digits(**settings):
    return DigitsData(**{"batch_size": 64, "val_size": 200, **settings})


def rows_of(data) -> set[bytes]:
    return {row.numpy().tobytes() for row in data.gather(torch.arange(len(data)), 0)[0]}


def test_train_validation_and_test_have_no_sample_in_common():
    module = digits()
    module.setup("fit")
    train, val, test = (rows_of(d) for d in (module._train, module._val, module.build_test()))
    assert len(module._train) == 1000
    assert len(module._val) == 200
    assert len(train & val) <= 1  # scikit-learn's digits have a few equal images
    assert len((train | val) & test) <= 1


def test_the_test_data_is_read_by_the_test_loader_only(monkeypatch):
    read = []
    monkeypatch.setattr(DigitsData, "test_data", lambda self: read.append(1) or self.train_data())
    module = digits(augment=True)
    module.prepare_data()
    module.setup()
    module.example_batch()
    list(module.train_dataloader())
    list(module.val_dataloader())
    assert module.data_fingerprint()
    assert module.steps_per_epoch == 15
    assert not read
    list(module.test_dataloader())
    assert read == [1]


def test_split_seed_and_nothing_else_chooses_the_samples():
    base = digits()
    base.setup()
    same, other = digits(seed=5, batch_size=10, augment=True), digits(split_seed=1)
    same.setup()
    other.setup()
    assert torch.equal(base._train.targets, same._train.targets)
    assert rows_of(base._val) == rows_of(same._val)
    assert rows_of(base._val) != rows_of(other._val)


def test_batches_are_named_and_can_be_made_again():
    module = digits(augment=True, batch_size=100)
    assert module.views == 0
    loader = module.train_dataloader()
    for epoch in (0, 3):
        loader.set_epoch(epoch)
        batch = next(iter(loader))
        assert isinstance(batch, Batch)
        assert batch.view == epoch
        inputs, target = module.train_views_dataset.read(batch.index, batch.view)
        assert torch.equal(inputs, batch.inputs)
        assert torch.equal(target, batch.target)


def test_views_are_cycled():
    loader = digits(augment=True, views=3).train_dataloader()
    seen = []
    for _ in range(4):
        batches = list(loader)
        inputs = torch.cat([b.inputs for b in batches])
        index = torch.cat([b.index for b in batches])
        seen.append({int(i): x for i, x in zip(index, inputs, strict=True)})
    shared = set(seen[0]) & set(seen[3]) & set(seen[1])
    assert all(torch.equal(seen[0][i], seen[3][i]) for i in shared)
    assert any(not torch.equal(seen[0][i], seen[1][i]) for i in shared)


def test_without_augmentation_there_is_one_view():
    assert digits().views == 1
    assert digits(views=8).views == 1
    assert digits(augment=True, views=8).views == 8


def test_evaluation_has_every_sample_once_in_order_and_unaugmented():
    plain, augmented = digits(eval_batch_size=64), digits(eval_batch_size=64, augment=True)
    for name in ("val_dataloader", "test_dataloader"):
        one, two = list(getattr(plain, name)()), list(getattr(augmented, name)())
        index = torch.cat([b.index for b in one])
        assert index.tolist() == list(range(len(index)))
        assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(one, two, strict=True))


def test_hidden_labels_are_chosen_by_class_and_nested():
    few, more = digits(labelled=50), digits(labelled=100)
    for module in (few, more):
        module.setup()
    kept = few._train.targets != UNLABELLED
    assert kept.sum() == 50
    assert few._train.targets[kept].bincount().min() >= 4
    assert torch.equal(few._train.targets[kept], more._train.targets[:50])
    assert (few._val.targets != UNLABELLED).all()


def test_subsets_are_chosen_by_class_and_nested():
    few, more = digits(train_size=100), digits(train_size=300)
    few.setup()
    more.setup()
    assert few.train_samples == 100
    assert few._train.targets.bincount().min() >= 9
    assert rows_of(few._train) <= rows_of(more._train)


def test_fingerprints_tell_data_and_views_apart():
    base = digits()
    assert base.data_fingerprint() == digits(seed=4, augment=True, batch_size=8).data_fingerprint()
    others = [digits(split_seed=1), digits(val_size=100), digits(train_size=500), digits(labelled=10)]
    assert len({m.data_fingerprint() for m in [base, *others]}) == 5
    assert base.view_fingerprint() == digits(seed=4, labelled=10).view_fingerprint()  # nothing random in one view
    augmented = [
        digits(augment=True),
        digits(augment=True, seed=1),
        digits(augment=True, views=4),
        digits(augment={"crop_padding": 2}),
    ]
    assert len({m.view_fingerprint() for m in [base, *augmented]}) == 5


def test_an_example_is_two_validation_samples():
    batch = digits().example_batch()
    assert batch.inputs.shape == (2, 1, 8, 8)
    assert batch.inputs.dtype == torch.float32
    assert batch.target.shape == (2,)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"batch_size": 0}, r"data\.batch_size"),
        ({"eval_batch_size": 0}, r"data\.eval_batch_size"),
        ({"val_size": -1}, r"data\.val_size"),
        ({"val_size": 1200}, r"data\.val_size=1200 leaves nothing"),
        ({"train_size": 0}, r"data\.train_size"),
        ({"train_size": 1001}, r"data\.train_size=1001"),
        ({"labelled": -1}, r"data\.labelled"),
        ({"labelled": 1001}, r"data\.labelled=1001"),
        ({"views": -1}, r"data\.views"),
        ({"augment": {"rotate": 3}}, r"data\.augment has no key 'rotate'"),
        ({"train_size": 10}, r"data\.batch_size=64 is more than the 10"),
    ],
)
def test_wrong_settings_are_told_in_one_line(settings, told):
    with pytest.raises(UserError, match=told) as caught:
        digits(**settings).setup()
    assert "\n" not in str(caught.value)


def test_sizes_are_what_the_data_has_and_a_missing_one_is_told():
    class Sequences(DigitsData):
        in_channels = image_size = None

    assert digits().sizes() == {"num_classes": 10, "in_channels": 1, "in_features": 64, "image_size": 8}
    assert Sequences().sizes() == {"num_classes": 10}
    node = {"_target_": "kd_lightning.models.mlp.MLP", "in_features": "auto"}
    assert fill_auto(node, digits().sizes(), "student")["in_features"] == 64
    with pytest.raises(UserError, match=r"student\.in_features: the data does not say it \(it says num_classes=10\)"):
        fill_auto(node, Sequences().sizes(), "student")
    with pytest.raises(UserError, match=r"student\.num_classes: no label tells .* set data\.num_classes"):
        fill_auto({**node, "in_features": 2}, {}, "student")


def test_what_the_data_is_fits_into_a_result_and_one_line():
    module = digits(labelled=150)
    told = json.loads(json.dumps(module.describe()))
    assert told["sizes"] == module.sizes()
    assert told["class_names"] == [str(k) for k in range(10)]
    assert told["example"] == {"shape": [1, 8, 8], "dtype": "float32"}
    assert told["samples"] == {"train": 1000, "labelled": 150, "val": 200}
    line = module.summary()
    assert line.startswith(
        "1,000 training samples (150 labelled), 200 for validation; 10 classes, labels 0 to 9; inputs"
    )
    assert "\n" not in line


def test_data_lie_on_the_gpu_only_where_there_is_one_and_only_if_they_lie_in_memory():
    data = DigitsData(device="auto")
    data.setup("fit")
    if not torch.cuda.is_available():
        assert data.resident(data.train_dataset()) is data.train_dataset()
    with pytest.raises(UserError, match="read one by one"):
        data.resident([1, 2])
    with pytest.raises(UserError, match="cpu or auto"):
        DigitsData(device="gpu")
