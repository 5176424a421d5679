from __future__ import annotations

import shutil

import pytest
import torch
from cache_setup import Counting, TinyImages, opened
from torch import nn

from kd_lightning.cli.cache import damage, find
from kd_lightning.errors import UserError
from kd_lightning.losses.inputs import MASKED
from kd_lightning.outputs import ModelOutput
from kd_lightning.teachers.cache.approximate import storing_problem
from kd_lightning.teachers.cache.cached import CachedTeacher
from kd_lightning.teachers.cache.forms import NotCacheable
from kd_lightning.teachers.cache.rows import RowCodec
from kd_lightning.teachers.cache.scores import PrincipalScores
from kd_lightning.teachers.cache.sealed import CacheError
from kd_lightning.teachers.frozen import FrozenTeacher

CLASSES = 200


class Many(TinyImages):
    num_classes = CLASSES


def make_teacher(seed: int = 0) -> FrozenTeacher:
    torch.manual_seed(seed)
    return FrozenTeacher(nn.Sequential(nn.Flatten(), nn.Linear(64, 30), nn.Tanh(), nn.Linear(30, CLASSES)))


def answers(samples: int, rank: int, noise: float = 0.1) -> torch.Tensor:
    """Logits near a subspace, with a level of their own each."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.randn(rank, CLASSES, generator=generator) * torch.linspace(3, 0.3, rank)[:, None]
    logits = torch.randn(samples, rank, generator=generator) @ axes / 2
    level = 50 * torch.randn(samples, 1, generator=generator)
    return logits + noise * torch.randn(samples, CLASSES, generator=generator) + level


def fitted(logits: torch.Tensor) -> RowCodec:
    codec = RowCodec(ModelOutput(logits[:2]), "scores")
    codec.form.use(codec.form.fit(logits))
    return codec


def test_a_row_of_1000_classes_takes_104_bytes_beside_its_mark():
    assert RowCodec(ModelOutput(torch.zeros(2, 1000)), "scores").row_bytes == 104 + 4


def test_new_answers_near_the_subspace_come_back_with_their_decision():
    logits = answers(3000, rank=80)
    codec = fitted(logits[:2000])
    new = logits[2000:]
    rows = codec.encode(ModelOutput(new), torch.zeros(len(new)))
    stored = codec.decode(rows).logits
    assert torch.equal(stored.argmax(1), new.argmax(1))
    for temperature, largest in ((1, 0.01), (2, 0.03), (4, 0.06)):
        soft, near = ((z / temperature).softmax(1) for z in (new, stored))
        assert float(((near - soft).norm(dim=1) / soft.norm(dim=1)).mean()) < largest
    assert codec.deviation(new, rows).max() < 5e-3
    assert codec.deviation(new.roll(1, 0), rows).min() > 2e-2


def test_answers_that_are_not_near_few_axes_are_refused_with_their_error():
    with pytest.raises(NotCacheable, match=r"64 axes leave an error of \d\d% .* at temperature 4.*use 6bit"):
        PrincipalScores(CLASSES).fit(4 * torch.randn(2000, CLASSES))


def test_answers_of_fewer_dimensions_than_axes_come_back_too():
    logits = answers(600, rank=5, noise=0)
    codec = fitted(logits)
    stored = codec.decode(codec.encode(ModelOutput(logits), torch.zeros(600))).logits
    soft, near = (z.softmax(1) for z in (logits, stored))
    assert (soft - near).abs().max() < 0.02


# -- in the cache -----------------------------------------------------------------------------------------------------
def test_the_second_run_reads_what_the_first_wrote_and_a_longer_one_adds_views_to_the_same_axes(tmp_path):
    data, teacher = Many(views=0), Counting(make_teacher())
    opened(tmp_path, teacher, data, precision="scores", epochs=2)
    (path,) = tmp_path.glob("*/fitted.npy")
    axes = path.read_bytes()
    cached = opened(tmp_path, teacher, data, precision="scores", epochs=4)
    assert path.read_bytes() == axes
    assert cached.store.views() == [0, 1, 2, 3]
    loader = data.train_dataloader()
    loader.set_epoch(3)
    batch, asked = next(iter(loader)), teacher.samples
    live, stored = teacher.teacher(batch).logits, cached(batch).logits
    assert teacher.samples == asked
    assert torch.equal(live.argmax(1), stored.argmax(1))
    soft, near = ((z / 4).softmax(1) for z in (live, stored))
    assert (near - soft).norm() < 0.1 * (soft - 1 / CLASSES).norm()
    assert isinstance(opened(tmp_path, teacher, data, precision="scores", epochs=4, mode="auto"), CachedTeacher)


def scaled(answer: ModelOutput) -> ModelOutput:
    return ModelOutput(0.7 * answer.logits)


def test_rows_of_a_teacher_whose_code_changed_do_not_pass_the_recheck(tmp_path):
    teacher = make_teacher()
    opened(tmp_path, teacher, Many(), precision="scores")
    live = type(teacher).__call__
    teacher.__class__ = type("Softer", (FrozenTeacher,), {"__call__": lambda self, batch: scaled(live(self, batch))})
    with pytest.raises(CacheError, match="are not what the teacher says now"):
        opened(tmp_path, teacher, Many(), precision="scores")


@pytest.mark.parametrize("harm", ["flipped", "missing", "unsealed", "another's"])
def test_axes_that_are_damaged_or_of_another_cache_stop_the_run(tmp_path, harm):
    opened(tmp_path, make_teacher(), Many(), precision="scores")
    (path,) = tmp_path.glob("*/fitted.npy")
    if harm == "flipped":
        content = bytearray(path.read_bytes())
        content[-9] ^= 1
        path.write_bytes(content)
    elif harm == "another's":
        other = opened(tmp_path / "b", make_teacher(1), Many(), precision="scores").store.directory
        for name in ("fitted.npy", "fitted.json"):
            shutil.copy(other / name, path.with_name(name))
    else:
        path.with_suffix(".npy" if harm == "missing" else ".json").unlink()
    with pytest.raises(CacheError, match="fitted"):
        opened(tmp_path, make_teacher(), Many(), precision="scores")
    (entry,) = find(path.parent)
    assert "fitted" in str(damage(entry))


def test_a_writer_that_was_killed_in_its_first_view_leaves_nothing_to_mend(tmp_path):
    cached = opened(tmp_path, make_teacher(), Many(), precision="scores")
    for path in cached.store.directory.glob("view*"):
        path.unlink()
    (cached.store.directory / "fitted.json").unlink()
    again = opened(tmp_path, make_teacher(), Many(), precision="scores")
    assert again.store.views() == [0, 1, 2, 3]


# -- what it is not for -----------------------------------------------------------------------------------------------
def test_few_classes_and_answers_in_every_pixel_are_refused():
    with pytest.raises(UserError, match="is for 134 classes or more, there are 100: use 6bit"):
        RowCodec(ModelOutput(torch.zeros(2, 100)), "scores")
    with pytest.raises(UserError, match=r"one answer a sample, got \(N, \*\(200, 4, 4\)\): use 6bit"):
        RowCodec(ModelOutput(torch.zeros(2, 200, 4, 4)), "scores")


def test_masked_classes_are_refused():
    logits = answers(600, rank=5)
    logits[3, 3] = MASKED
    with pytest.raises(UserError, match="cannot hold classes that the teacher masks"):
        PrincipalScores(CLASSES).fit(logits)


@pytest.mark.parametrize(("highest", "refused"), [(1.0, False), (4.0, False), (4.5, True), (float("inf"), True)])
def test_up_to_temperature_four_they_do(highest, refused):
    teacher = {"cache": "auto", "cache_precision": "scores"}
    problem = storing_problem(teacher, frozenset({"logits", "features"}), {"kd": highest})
    assert (problem is not None) == refused
    if problem:
        assert problem[0] == "teacher.cache_precision"
        assert "scores do not do for method.terms.kd" in problem[1]
        assert "use 6bit or fp16" in problem[1]
