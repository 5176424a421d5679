"""Directories of images by class: finding, splitting, and every way to get them wrong."""

from __future__ import annotations

import logging
import os

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import LightningModule, Trainer

from kd_lightning.batch import Batch
from kd_lightning.data.image_folder import ImageFolderData
from kd_lightning.errors import UserError

COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


def write_class(directory, colour, n, size=(40, 30)):
    directory.mkdir(parents=True, exist_ok=True)
    for k in range(n):
        noise = np.random.RandomState(k).randint(-9, 9, (*size, 3))
        pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(directory / f"{k:03}.{'png' if k % 3 else 'jpg'}")


@pytest.fixture
def root(tmp_path):
    for name, colour in COLOURS.items():
        write_class(tmp_path / "images" / "train" / name, colour, 12)
        write_class(tmp_path / "images" / "test" / name, colour, 4)
    return tmp_path / "images"


def folder(root, **settings):
    options = {"image_size": 16, "resize": 18, "batch_size": 6, "eval_batch_size": 8, "val_size": 9}
    return ImageFolderData(str(root), cache_dir=str(root.parent / "cache"), **{**options, **settings})


def classes_shown(inputs, module):
    pixels = inputs * torch.tensor(module.std).view(3, 1, 1) + torch.tensor(module.mean).view(3, 1, 1)
    return 2 - pixels.mean(dim=(2, 3)).argmax(dim=1)  # channels are red, green, blue; classes sorted by name


@pytest.mark.parametrize("augment", [False, True, {"scale": [0.5, 1.0], "flip": False}])
def test_pictures_come_with_their_own_class(root, augment):
    module = folder(root, augment=augment)
    assert module.class_names == ["blue", "green", "red"]
    assert module.num_classes == 3
    assert module.train_samples == 27
    assert module.in_features == 3 * 16 * 16
    for loader, n in ((module.train_dataloader(), 24), (module.val_dataloader(), 9), (module.test_dataloader(), 12)):
        batches = list(loader)
        assert sum(len(b.inputs) for b in batches) == n
        for batch in batches:
            assert torch.equal(classes_shown(batch.inputs, module), batch.target)


def test_validation_may_have_a_folder_and_train_a_size(root):
    os.rename(root / "test", root / "val")
    module = folder(root, val_dir="val", test_dir="val", train_size=9)
    module.setup()
    assert module.train_samples == 9
    assert module._train.targets.bincount().tolist() == [3, 3, 3]
    assert len(module._val) == 12


@pytest.mark.parametrize("key", ["test_dir", "val_dir"])
def test_the_training_images_are_no_test(root, key):
    with pytest.raises(UserError, match=f"data.{key}=train/?: these are the training images"):
        folder(root, **{key: "train"})


def test_without_split_folders_the_test_images_are_split_off_and_fixed(root):
    one = folder(root / "train", train_dir=None, test_size=0.25)
    two = folder(root / "train", train_dir=None, test_size=0.25, split_seed=3, seed=4, val_size=5)
    one.setup()
    two.setup()
    assert one.build_test().files == two.build_test().files
    assert len(one.build_test()) == 9
    everything = [*one._train.files, *one._val.files, *one.build_test().files]
    assert len(set(everything)) == len(everything) == 36
    assert one._val.files != two._val.files


def test_labels_are_hidden(root):
    module = folder(root, labelled=6)
    module.setup()
    assert module._train.targets[:6].bincount().tolist() == [2, 2, 2]
    assert (module._train.targets[6:] == -1).all()


def test_bytes_become_the_same_inputs_on_the_device(root):
    module = folder(root, augment=True, normalize_on_device=True)
    for batch in module.train_dataloader():
        assert batch.size == 6
        assert batch.inputs.pixels.dtype == torch.uint8
        inputs, target = module.train_views_dataset.read(batch.index, batch.view)
        assert torch.equal(batch.inputs.to("cpu"), inputs)
        assert torch.equal(batch.target, target)
    assert next(iter(module.val_dataloader())).inputs.dtype == torch.float32


def test_lightning_turns_bytes_into_inputs_before_a_step(root):
    class Step(LightningModule):
        def __init__(self):
            super().__init__()
            self.layer, self.seen = torch.nn.Linear(16, 1), []

        def training_step(self, batch):
            self.seen.append((type(batch), batch.inputs.clone(), batch.index))
            return self.layer(batch.inputs).mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    module, step = folder(root, normalize_on_device=True), Step()
    Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(step, module.train_dataloader())  # fmt: skip
    assert len(step.seen) == 4
    for kind, inputs, index in step.seen:
        assert kind is Batch
        assert torch.equal(inputs, module.train_views_dataset.read(index, 0)[0])


def test_fingerprints_tell_content_and_views_apart(root):
    base = folder(root, augment=True).data_fingerprint()
    assert folder(root, batch_size=3, seed=8).data_fingerprint() == base
    different = [folder(root, split_seed=1), folder(root, train_size=6), folder(root, labelled=6)]
    write_class(root / "train" / "red", (250, 5, 5), 12)
    digests = {base, folder(root).data_fingerprint(), *(m.data_fingerprint() for m in different)}
    assert len(digests) == 5
    views = [
        {},
        {"augment": True},
        {"augment": True, "seed": 1},
        {"augment": True, "views": 3},
        {"augment": {"flip": False}},
        {"decode": "scaled"},
        {"resize": 20},
    ]
    assert len({folder(root, **settings).view_fingerprint() for settings in views}) == 7


def test_unreadable_images_stop_the_run_and_are_named(root):
    (root / "train" / "green" / "001.png").write_bytes(b"")
    module = folder(root, batch_size=27)
    with pytest.raises(UserError, match=r"green/001\.png is empty"):
        list(module.train_dataloader()), list(module.val_dataloader())


def test_unreadable_images_are_skipped_and_counted(root, caplog):
    (root / "train" / "green" / "001.png").write_bytes(b"")
    (root / "train" / "red" / "000.jpg").write_bytes((root / "train" / "red" / "000.jpg").read_bytes()[:300])
    (root / "test" / "red" / "000.jpg").write_bytes(b"hello")
    module = folder(root, on_bad_image="skip")
    with caplog.at_level(logging.WARNING):
        module.setup()
    assert "skipping 2 of 36 images, the first: " in caplog.text
    assert "green/001.png is empty" in caplog.text
    assert module.train_samples == 25
    list(module.train_dataloader())
    assert sum(len(b.inputs) for b in module.test_dataloader()) == 11
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        module.teardown("fit")
    assert "3 unreadable images were skipped" in caplog.text


def test_the_check_is_remembered_until_a_file_changes(root, monkeypatch):
    from kd_lightning.data.images import image_files

    (root / "train" / "green" / "001.png").write_bytes(b"")
    assert folder(root, on_bad_image="skip").train_samples == 26
    decoded = []
    original = image_files.read_image
    monkeypatch.setattr(image_files, "read_image", lambda file, **kw: decoded.append(file) or original(file, **kw))
    assert folder(root, on_bad_image="skip").train_samples == 26
    assert not decoded
    write_class(root / "train" / "green", COLOURS["green"], 12, size=(20, 20))
    assert folder(root, on_bad_image="skip").train_samples == 27
    assert len(decoded) == 36


def test_all_images_unreadable_is_told(root):
    for file in (root / "train").glob("*/*"):
        file.write_bytes(b"")
    with pytest.raises(UserError, match=r"none of the 36 images can be read, the first: .*blue/000\.jpg is empty"):
        folder(root, on_bad_image="skip").setup()


def empty_class(root):
    for file in (root / "train" / "red").iterdir():
        file.unlink()
    (root / "train" / "red" / "notes.txt").write_text("no image")


def only_class(root):
    for name in ("blue", "green"):
        os.rename(root / "train" / name, root.parent / name)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda root: os.rename(root, root.parent / "away"), r"data\.root.*there is no directory .*images/train"),
        (lambda root: os.rename(root / "train", root.parent / "t"), r"data\.train_dir: there is no directory"),
        (
            lambda root: [os.rename(d, root.parent / d.name) for d in (root / "train").iterdir()],
            r"has no folders: .*; data\.labels=none takes them without",
        ),
        (empty_class, r"train/red has no images"),
        (only_class, r"single class folder 'red'"),
    ],
)
def test_directories_that_hold_no_classes_are_told_in_one_line(root, spoil, told):
    spoil(root)
    with pytest.raises(UserError, match=told) as caught:
        folder(root).setup()
    assert "\n" not in str(caught.value)


def test_a_test_class_that_training_lacks_is_told(root):
    write_class(root / "test" / "aqua", (0, 255, 255), 1)
    with pytest.raises(UserError, match=r"data\.test_dir: .*test/aqua is a class that the training images do not have"):
        folder(root).test_dataloader()


def test_a_test_split_may_lack_a_class_without_shifting_the_numbers(root):
    os.rename(root / "test" / "blue", root.parent / "blue")
    module = folder(root)
    batches = list(module.test_dataloader())
    assert set(torch.cat([b.target for b in batches]).tolist()) == {1, 2}
    assert all(torch.equal(classes_shown(b.inputs, module), b.target) for b in batches)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"decode": "half"}, r"data\.decode must be full or scaled"),
        ({"on_bad_image": "ignore"}, r"data\.on_bad_image must be error or skip"),
        ({"test_size": 1}, r"data\.test_size"),
        ({"std": [1, 1]}, r"data\.mean and data\.std"),
        ({"std": [1, 1, 0]}, r"data\.mean and data\.std"),
        ({"resize": 8}, r"data\.resize=8"),
        ({"augment": {"crop_padding": 4}}, r"no key 'crop_padding'"),
    ],
)
def test_wrong_settings_are_told(root, settings, told):
    with pytest.raises(UserError, match=told):
        folder(root, **settings)


def samples(module) -> list[int]:
    return [len(dataset) for dataset in (module.train_views_dataset, module._val, module.build_test())]


def test_links_are_followed_and_each_real_folder_is_read_once(root, tmp_path, caplog):
    write_class(tmp_path / "elsewhere", COLOURS["red"], 5)
    whole = samples(folder(root))
    (root / "train" / "red" / "more").symlink_to(tmp_path / "elsewhere")
    (root / "train" / "red" / "up").symlink_to(root / "train")
    (root / "train" / "red" / "itself").symlink_to(root / "train" / "red")
    (root / "train" / "blue" / "top").symlink_to(root)
    assert samples(folder(root)) == [whole[0] + 5, *whole[1:]]
    assert "was read already: left out" in caplog.text


def test_a_folder_that_belongs_to_two_classes_is_refused(root):
    (root / "train" / "red" / "more").symlink_to(root / "train" / "blue")
    with pytest.raises(UserError, match="the same folder as one of class 'blue'"):
        folder(root).setup()


def test_names_that_are_not_utf_8_are_read_and_can_be_printed(root):
    bad = os.fsencode(root / "train" / "red") + b"/caf\xe9.jpg"
    os.rename(root / "train" / "red" / "000.jpg", bad)
    for on_bad_image in ("error", "skip"):
        assert samples(folder(root, on_bad_image=on_bad_image)) == [27, 9, 12]
    with open(bad, "wb") as file:
        file.write(b"no picture")
    module = folder(root, on_bad_image="skip")
    assert samples(module)[0] == 26
    assert r"caf\xe9.jpg is not an image" in next(iter(module.skipped.values()))
    os.rename(os.fsencode(root / "train" / "red"), os.fsencode(root / "train") + b"/r\xe9d")
    with pytest.raises(UserError, match=r"r\\xe9d is not UTF-8: rename it") as caught:
        folder(root).setup()
    str(caught.value).encode()


def test_a_link_to_nowhere_is_named_or_skipped(root):
    (root / "train" / "red" / "gone.jpg").symlink_to(root / "nowhere.jpg")
    with pytest.raises(UserError, match=r"gone\.jpg cannot be read .*a link to nowhere"):
        folder(root).setup()
    assert samples(folder(root, on_bad_image="skip")) == [27, 9, 12]


def test_a_class_of_which_nothing_is_left_is_told(root):
    for file in (root / "train" / "green").iterdir():
        file.write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"none of the images of class 'green' can be read, the first: .*not an image"):
        folder(root, on_bad_image="skip").setup()


def test_a_missing_test_folder_is_told_before_the_training(root):
    with pytest.raises(UserError, match=r"data\.test_dir: there is no directory .*prove"):
        folder(root, test_dir="prove").setup("fit")


def test_files_that_are_left_out_by_their_suffix_are_counted_before_training(root):
    assert "left out" not in folder(root).summary()
    for name in ("a.txt", "b.heic", "c.HEIC", ".hidden"):
        (root / "train" / "red" / name).write_text("")
    assert "3 files left out by suffix (.heic 2, .txt 1)" in folder(root).summary()


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_each_picture_is_known_by_its_path_below_the_root(root, split):
    module = folder(root)
    places = module.places(split)
    samples = {"train": module.train_views_dataset, "val": module.val_dataloader().dataset}.get(split)
    files = (samples or module.test_dataset()).files
    assert [str(root / name) for name in places.ids] == [str(file) for file in files]
    assert places.total is None  # a folder has no order by which rows could be found
