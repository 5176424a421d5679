from __future__ import annotations

import dataclasses
import importlib
import os
import pickle
import shutil
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cache_setup import CLASSES, Counting, TinyImages, make_teacher, opened
from torch import nn

from kd_lightning.batch import Batch
from kd_lightning.errors import UserError
from kd_lightning.joints import Teacher
from kd_lightning.teachers.cache.cached import CachedTeacher
from kd_lightning.teachers.cache.opening import cache_parts, planned_views
from kd_lightning.teachers.cache.sealed import CacheError
from kd_lightning.teachers.cache.store import ViewWriter
from kd_lightning.teachers.frozen import FrozenTeacher
from kd_lightning.teachers.weights import architecture_digest


def batches(data: TinyImages, epoch: int):
    loader = data.train_dataloader()
    loader.set_epoch(epoch)
    return list(loader)


@pytest.mark.parametrize("views", [0, 1, 4])
def test_every_training_batch_gets_the_live_teachers_logits(tmp_path, views):
    data, teacher = TinyImages(views=views), Counting(make_teacher())
    cached = opened(tmp_path, teacher, data, precision="fp32")
    asked = teacher.samples
    for epoch in (0, 1, 5, 7):
        for batch in batches(data, epoch):
            answer = cached(batch).logits
            torch.testing.assert_close(answer, teacher.teacher(batch).logits, rtol=1e-5, atol=1e-6)
            assert answer.dtype == torch.float32
    assert teacher.samples == asked


def test_fp32_rows_are_bit_identical_to_live_ones_in_the_same_batches(tmp_path):
    """The only difference that storing makes in fp32 is which samples were multiplied together."""
    data, teacher = TinyImages(), make_teacher()
    cached = opened(tmp_path, teacher, data, precision="fp32")
    for start in range(0, data.train_samples, data.batch_size):
        index = torch.arange(start, min(start + data.batch_size, data.train_samples))
        batch = Batch(*data.train_views_dataset.read(index, 3), index, 3, "train")
        assert torch.equal(cached(batch).logits, teacher(batch).logits)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", 2e-4), ("bf16", 4e-3)])
def test_the_gradient_error_of_half_precision_storage_is_small(tmp_path, precision, tolerance):
    data, teacher = TinyImages(), make_teacher()
    cached = opened(tmp_path, teacher, data, precision=precision)
    student = nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES))

    def gradient(answerer) -> torch.Tensor:
        student.zero_grad()
        batch = batches(data, 1)[0]
        soft = (answerer(batch).logits / 4).softmax(1)
        F.kl_div((student(batch.inputs) / 4).log_softmax(1), soft, reduction="batchmean").backward()
        return torch.cat([p.grad.reshape(-1) for p in student.parameters()])

    live, stored = gradient(teacher), gradient(cached)
    assert 0 < (live - stored).norm() / live.norm() < tolerance


def test_a_batch_without_index_and_an_unplanned_view_are_answered_live(tmp_path):
    data, teacher = TinyImages(views=0), Counting(make_teacher())
    cached = opened(tmp_path, teacher, data, epochs=2)
    late, asked = batches(data, 5)[0], teacher.samples
    assert torch.equal(cached(late).logits, teacher.teacher(late).logits)
    cached(batches(data, 0)[0]._replace(index=None))
    assert teacher.samples == asked + 2 * data.batch_size


def test_batches_of_other_splits_are_answered_live_whatever_their_positions(tmp_path):
    data, teacher = TinyImages(), Counting(make_teacher())
    cached = opened(tmp_path, teacher, data)
    for batch in (next(iter(data.val_dataloader())), next(iter(data.test_dataloader())), data.example_batch()):
        asked = teacher.samples
        assert torch.equal(cached(batch).logits, teacher.teacher(batch).logits)
        assert teacher.samples == asked + batch.size


def test_a_training_sample_that_the_cache_does_not_know_is_an_error(tmp_path):
    cached = opened(tmp_path)
    with pytest.raises(UserError, match=r"sample 270 is not among its 270 training samples"):
        cached(Batch(torch.zeros(1, 1, 8, 8), None, torch.tensor([270]), 0, "train"))


def halves_mixed(batch):
    batch.inputs[: len(batch.inputs) // 2].mul_(0.9).add_(batch.inputs.flip(0)[: len(batch.inputs) // 2], alpha=0.1)


def one_mirrored(batch):
    batch.inputs[3] = batch.inputs[3].flip(-1)


def scaled(batch):
    batch.inputs.mul_(1.05)


@pytest.mark.parametrize("change", [halves_mixed, one_mirrored, scaled])
def test_inputs_that_were_changed_after_loading_are_answered_live_and_it_is_said_once(tmp_path, change):
    data, teacher, lines = TinyImages(), Counting(make_teacher()), []
    opened(tmp_path, teacher, data)
    cached = opened(tmp_path, teacher, data, mode="auto", announce=lines.append)
    first, second = batches(data, 0)[:2]
    asked = teacher.samples
    cached(first)
    assert teacher.samples == asked
    for batch in (first, second):
        change(batch)
        assert torch.equal(cached(batch).logits, teacher.teacher(batch).logits)
    assert [line for line in lines if "changed after they were loaded" in line] == lines[-1:]
    strict = opened(tmp_path, teacher, data)
    with pytest.raises(CacheError, match=r"changed after they were loaded.*teacher\.cache=off"):
        strict(first)


def test_the_second_run_reads_and_asks_the_teacher_about_a_few_rows_only(tmp_path):
    first = Counting(make_teacher())
    opened(tmp_path, first)
    assert first.samples >= 4 * 270
    second, lines = Counting(make_teacher()), []
    assert isinstance(opened(tmp_path, second, mode="auto", announce=lines.append), CachedTeacher)
    assert second.samples == 64 + 2  # the recheck, and the example that tells the shapes
    assert "reading 4 views of 270 samples" in lines[-1]


def test_a_longer_run_adds_views_to_those_that_are_there(tmp_path):
    opened(tmp_path, data=TinyImages(views=0), epochs=2)
    (directory,) = (p for p in tmp_path.iterdir() if p.is_dir())
    before = (directory / "view_00000.npy").stat().st_mtime_ns
    cached = opened(tmp_path, data=TinyImages(views=0), epochs=5)
    assert cached.store.directory == directory
    assert cached.store.views() == [0, 1, 2, 3, 4]
    assert (directory / "view_00000.npy").stat().st_mtime_ns == before


def test_rows_are_plain_numpy_files(tmp_path):
    cached = opened(tmp_path)
    logits = np.load(cached.store.paths(2)[0])["logits"]
    assert logits.dtype == np.float16
    assert logits.shape == (270, CLASSES)


def test_top_k_keeps_the_largest_logits_and_the_mass_of_the_rest(tmp_path):
    data, teacher = TinyImages(), make_teacher()
    cached = opened(tmp_path, teacher, data, top_k=2, precision="fp32")
    batch = batches(data, 2)[0]
    live, stored = teacher(batch).logits, cached(batch).logits
    top = live.topk(2, dim=1).indices
    torch.testing.assert_close(stored.gather(1, top), live.gather(1, top), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(stored.softmax(1).gather(1, top), live.softmax(1).gather(1, top), rtol=1e-5, atol=1e-6)


def test_the_spread_of_a_regression_teacher_is_stored_too(tmp_path):
    class Regressor(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return {"logits": x.mean((1, 2, 3)) * self.scale, "spread": x.flatten(1).std(1, keepdim=True)}

    data, teacher = TinyImages(), FrozenTeacher(Regressor())
    cached = opened(tmp_path, teacher, data, precision="fp32")
    batch = batches(data, 1)[0]
    torch.testing.assert_close(dataclasses.asdict(cached(batch)), dataclasses.asdict(teacher(batch)))


def test_everything_else_is_the_live_teachers_also_in_a_copy(tmp_path):
    teacher = make_teacher()
    cached = opened(tmp_path, teacher)
    assert isinstance(cached, Teacher)
    assert (cached.name, cached.provides, cached.labels_new_inputs) == (teacher.name, teacher.provides, True)
    assert pickle.loads(pickle.dumps(cached)).describe() == cached.describe() == teacher.describe()


# -- the key ----------------------------------------------------------------------------------------------------------
CHANGES = {
    "teacher": lambda: {"teacher": make_teacher(seed=1)},
    "teacher precision": lambda: {"teacher": make_teacher(precision="bf16")},
    "teacher normalisation": lambda: {"teacher": make_teacher(normalization={"mean": [0.4], "std": [0.3]})},
    "data": lambda: {"data": TinyImages(content=1)},
    "subset": lambda: {"data": TinyImages(train_size=200)},
    "augmentation seed": lambda: {"data": TinyImages(seed=1)},
    "augmentation": lambda: {"data": TinyImages(augment={"crop_padding": 1, "flip": True})},
    "storage precision": lambda: {"precision": "fp32"},
    "six bits": lambda: {"precision": "6bit"},
    "top k": lambda: {"top_k": 2},
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_key_gets_a_directory_of_its_own_and_the_wrong_one_is_refused(tmp_path, change):
    settings = CHANGES[change]()
    first = opened(tmp_path / "a")
    second = opened(tmp_path / "a", **settings)
    assert second.store.directory != first.store.directory
    assert second.store.directory.parent == first.store.directory.parent
    with pytest.raises(CacheError, match=r"meta\.json: .*another"):
        opened(tmp_path, mode=str(first.store.directory), **settings)


@pytest.mark.parametrize("change", CHANGES)
def test_a_cache_renamed_to_another_key_is_refused(tmp_path, change):
    settings = CHANGES[change]()
    first, second = opened(tmp_path), opened(tmp_path, **settings)
    shutil.rmtree(second.store.directory)
    first.store.directory.rename(second.store.directory)
    with pytest.raises(CacheError, match=f"{second.store.directory}.*another"):
        opened(tmp_path, mode="auto", **settings)


def test_the_key_of_a_fixed_view_does_not_depend_on_the_training_order():
    fixed = [TinyImages(augment=False, views=None, seed=seed) for seed in (0, 1)]
    assert fixed[0].view_fingerprint() == fixed[1].view_fingerprint()


def test_addresses_in_a_modules_repr_do_not_reach_the_key():
    class Wrapped(nn.Module):
        def extra_repr(self):
            return repr(object())

    assert FrozenTeacher(Wrapped()).cache_parts() == FrozenTeacher(Wrapped()).cache_parts()


# -- damage -----------------------------------------------------------------------------------------------------------
def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("at", [20, 128, 1000, -1])
@pytest.mark.parametrize("mode", ["auto", "path"])
def test_one_flipped_bit_stops_the_run_naming_the_file(tmp_path, at, mode):
    opened(tmp_path)
    (path,) = tmp_path.glob("*/view_00002.npy")
    flip(path, at)
    with pytest.raises(CacheError, match=f"{path}.*checksum"):
        opened(tmp_path, mode="auto" if mode == "auto" else str(tmp_path))


def test_one_flipped_bit_in_a_cache_too_large_to_verify_at_opening_stops_at_that_view(tmp_path, monkeypatch):
    monkeypatch.setattr("kd_lightning.teachers.cache.opening.VERIFY_AT_OPENING_BYTES", 10)
    monkeypatch.setattr("kd_lightning.teachers.cache.cached.RECHECKED_ROWS", 1)
    opened(tmp_path, data=TinyImages(views=8))
    (path,) = tmp_path.glob("*/view_00003.npy")  # not among the views that are rechecked
    flip(path, 500)
    data = TinyImages(views=8)
    cached = opened(tmp_path, data=data)
    cached(batches(data, 2)[0])
    with pytest.raises(CacheError, match=f"{path}.*checksum"):
        cached(batches(data, 3)[0])


@pytest.mark.parametrize("size", [0, 100, 1000])
def test_a_truncated_file_is_refused(tmp_path, size):
    opened(tmp_path)
    (path,) = tmp_path.glob("*/view_00000.npy")
    os.truncate(path, size)
    with pytest.raises(CacheError, match=f"{path}.*{size} bytes instead of"):
        opened(tmp_path)


@pytest.mark.parametrize("name", ["meta.json", "view_00001.json"])
@pytest.mark.parametrize("damage", ["altered", "half", "empty", "list"])
def test_a_tampered_description_is_refused(tmp_path, name, damage):
    opened(tmp_path)
    (path,) = tmp_path.glob(f"*/{name}")
    text = path.read_text()
    path.write_text({"altered": text.replace("0", "1", 1), "half": text[:50], "empty": "", "list": "[]"}[damage])
    message = "altered since it was written" if damage == "altered" else "not the description of a teacher cache"
    with pytest.raises(CacheError, match=f"{path}: {message}"):
        opened(tmp_path)


def test_a_missing_data_file_and_swapped_views_are_refused(tmp_path):
    store = opened(tmp_path).store
    data, seal = store.paths(1)
    saved = data.read_bytes(), seal.read_bytes()
    data.unlink()
    with pytest.raises(CacheError, match=f"{data}: missing"):
        opened(tmp_path)
    for path, content in zip(store.paths(2), saved, strict=True):
        path.write_bytes(content)
    data.write_bytes(saved[0])
    with pytest.raises(CacheError, match=f"{store.paths(2)[1]}.*another cache or view"):
        opened(tmp_path)


def test_a_view_of_another_cache_is_refused(tmp_path):
    store, other = opened(tmp_path).store, opened(tmp_path, make_teacher(seed=1)).store
    for mine, theirs in zip(store.paths(1), other.paths(1), strict=True):
        shutil.copy(theirs, mine)
    with pytest.raises(CacheError, match=f"{store.paths(1)[1]}.*another cache or view"):
        opened(tmp_path)


def test_rows_in_another_order_are_noticed_although_every_checksum_is_right(tmp_path):
    store = opened(tmp_path).store
    rows = np.array(store.rows(0))
    with ViewWriter(store, 0) as writer:
        writer.append(np.roll(rows, 1, axis=0))
    with pytest.raises(CacheError, match=r"view_00000\.npy: \d+ of 16 rows are not what the teacher says"):
        opened(tmp_path)


class Leaky(nn.Module):
    """A perceptron with a slope that is neither weight nor buffer, and no part of its text."""

    def __init__(self, slope=0.1, activation=torch.relu, **options):
        super().__init__()
        self._slope, self.activation, self.options = slope, activation, options
        self.layer = nn.Linear(64, CLASSES)

    def forward(self, x):
        return self.activation(self.layer(x.flatten(1))) * self._slope


@pytest.mark.parametrize(
    "settings",
    [{"slope": 0.2}, {"activation": torch.tanh}, {"activation": lambda x: x * 3}, {"options": {"deep": [1, {"a": 2}]}}],
)
def test_a_model_whose_python_attributes_differ_is_another_teacher(settings):
    def parts(**settings):
        torch.manual_seed(0)
        return FrozenTeacher(Leaky(**settings)).cache_parts()

    assert parts() == parts()
    assert parts() != parts(**settings)


def test_a_teacher_whose_code_was_replaced_is_another_one(tmp_path):
    first = opened(tmp_path)
    changed = make_teacher()
    changed.module[3].forward = lambda x: x.clamp(max=0)
    assert opened(tmp_path, changed).store.directory != first.store.directory


def test_the_source_of_a_users_model_is_part_of_the_key(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    code = "from torch import nn\n\nclass Net(nn.Linear):\n    def forward(self, x):\n        return x.{}()\n"
    digests = []
    for method in ("relu", "tanh"):
        (tmp_path / "net_of_mine.py").write_text(code.format(method))
        os.utime(tmp_path / "net_of_mine.py", ns=(len(digests), len(digests)))
        sys.modules.pop("net_of_mine", None)
        importlib.invalidate_caches()
        module = importlib.import_module("net_of_mine").Net(2, 2)
        digests.append(architecture_digest(module))
    assert digests[0] != digests[1]


def test_parts_list_everything_by_name(tmp_path):
    cached = opened(tmp_path)
    assert set(cached.store.parts) == {"teacher", "data", "views", "samples", "precision", "top_k", "columns"}
    assert cached.store.parts["teacher"]["weights"] == cached.describe()["fingerprint"]
    assert cached.store.parts == cache_parts(cached.teacher, TinyImages(), cached._codec)


@pytest.mark.parametrize(
    ("views", "epochs", "planned"),
    [(1, 9, [0]), (1, None, [0]), (3, 9, [0, 1, 2]), (3, 2, [0, 1]), (0, 2, [0, 1]), (0, None, [])],
)
def test_planned_views_are_those_that_a_run_sees(views, epochs, planned):
    assert planned_views(views, epochs) == planned
