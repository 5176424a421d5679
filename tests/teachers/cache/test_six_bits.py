from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from cache_setup import CLASSES, Counting, TinyImages, make_teacher, opened
from method_builds import METHODS, built, networks, one_step
from torch import nn

from kd_lightning.distiller import Distiller
from kd_lightning.errors import UserError
from kd_lightning.losses.inputs import MASKED
from kd_lightning.losses.soft_target import SoftTargetLoss
from kd_lightning.member import Member
from kd_lightning.method import Method
from kd_lightning.outputs import ModelOutput
from kd_lightning.recorder import Recorder
from kd_lightning.tasks.classification import ClassificationTask
from kd_lightning.teachers.cache.cached import CachedTeacher
from kd_lightning.teachers.cache.rows import RowCodec
from kd_lightning.teachers.cache.sealed import CacheError
from kd_lightning.teachers.cache.six_bits import pack, packed_bytes, unpack
from kd_lightning.teachers.frozen import FrozenTeacher


def there_and_back(logits: torch.Tensor) -> torch.Tensor:
    codec = RowCodec(ModelOutput(logits[:2]), "6bit")
    rows = codec.encode(ModelOutput(logits), torch.zeros(len(logits)))
    assert rows.shape == (len(logits), codec.row_bytes)
    return codec.decode(rows).logits


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 99, 100])
def test_codes_come_back_from_three_quarters_of_their_bytes(count):
    codes = torch.randint(0, 64, (7, 2, count), dtype=torch.uint8)
    packed = pack(codes)
    assert packed.shape == (7, 2, packed_bytes(count))
    assert torch.equal(unpack(packed, count), codes)


def test_a_row_of_100_classes_takes_79_bytes_beside_its_mark():
    assert RowCodec(ModelOutput(torch.zeros(2, 100)), "6bit").row_bytes == 79 + 4


@pytest.mark.parametrize("shape", [(400, 2), (400, 10), (400, 101), (6, 7, 5, 5)])
@pytest.mark.parametrize("scale", [1e-6, 0.1, 4.0, 300.0])
@pytest.mark.parametrize("level", [0.0, 30.0, -2000.0])
def test_errors_are_those_of_the_levels_and_the_decision_stays(shape, scale, level):
    torch.manual_seed(0)
    logits = torch.randn(shape) * scale + level
    stored = there_and_back(logits)
    assert torch.equal(stored.argmax(1), logits.argmax(1))
    largest = logits.amax(1, keepdim=True)
    floor = torch.maximum(largest.abs() / 1000, torch.tensor(2e-4))  # spans below are what fp16 would not see either
    span = torch.maximum(largest - logits.amin(1, keepdim=True), floor)
    shape_error = ((stored - stored.amax(1, keepdim=True)) - (logits - largest)).abs()
    close = (((largest - logits) / span).sqrt() * 63 + 1.5) / 63**2  # half a step of the level that it is at
    assert (shape_error <= span * close + 1e-3 * span + 2e-7 * largest.abs()).all()
    assert ((stored.amax(1, keepdim=True) - largest).abs() <= largest.abs() / 2000 + 1e-6).all()


def test_ties_and_near_ties_keep_the_decision():
    logits = torch.tensor([[1.0, 5.0, 5.0, 4.999999], [4.9999990, 5.0, -40.0, 0.0], [3.0, 3.0, 3.0, 3.0]])
    assert there_and_back(logits).argmax(1).tolist() == [1, 1, 0]


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_every_shipped_loss_gets_nearly_the_live_teachers_gradient(path):
    inputs = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    gradients = []
    for stored in (False, True):
        torch.manual_seed(0)
        method, (student, teacher) = built(path), networks(path)
        nn.init.normal_(next(p for n, p in list(teacher.named_parameters())[::-1] if n.endswith("weight")), std=0.5)
        if stored:
            teacher.register_forward_hook(lambda module, given, answer: with_stored_logits(answer))
        torch.manual_seed(2)
        one_step(method, student, teacher, inputs)
        gradients.append(torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None]))
    live, near = gradients
    assert (near - live).norm() <= 0.04 * live.norm()  # dist: 3.4 %, all others below 1.4 %


def with_stored_logits(answer):
    rounding = (there_and_back(answer.detach()) - answer).detach()
    return answer + rounding  # methods that differentiate the teacher ask its network, which is not stored


# -- in the cache -----------------------------------------------------------------------------------------------------
def test_a_batch_gets_nearly_the_live_answer_and_the_rows_pass_the_recheck(tmp_path):
    data, teacher = TinyImages(), Counting(make_teacher())
    opened(tmp_path, teacher, data, precision="6bit")
    cached = opened(tmp_path, teacher, data, precision="6bit", mode="auto")
    assert isinstance(cached, CachedTeacher)
    batch = next(iter(data.train_dataloader()))
    asked = teacher.samples
    live, stored = teacher.teacher(batch).logits, cached(batch).logits
    assert teacher.samples == asked
    assert torch.equal(live.argmax(1), stored.argmax(1))
    assert 0 < (live - stored).abs().max() < 0.02 * (live.amax(1) - live.amin(1)).max()


def test_rows_of_a_teacher_whose_code_changed_do_not_pass_the_recheck(tmp_path):
    data, teacher = TinyImages(), make_teacher()
    opened(tmp_path, teacher, data, precision="6bit")
    live = type(teacher).__call__
    softer = type("Softer", (FrozenTeacher,), {"__call__": lambda self, batch: scaled(live(self, batch))})
    teacher.__class__ = softer
    with pytest.raises(CacheError, match="are not what the teacher says now"):
        opened(tmp_path, teacher, data, precision="6bit")


def scaled(answer: ModelOutput) -> ModelOutput:
    return ModelOutput(0.9 * answer.logits)


@pytest.mark.parametrize("at", [300, 1000, -1])
def test_one_flipped_bit_is_found(tmp_path, at):
    opened(tmp_path, precision="6bit")
    (path,) = tmp_path.glob("*/view_00002.npy")
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(CacheError, match=f"{path}.*checksum"):
        opened(tmp_path, precision="6bit")


@pytest.mark.slow
def test_two_processes_that_write_at_once_leave_what_one_writes(tmp_path):
    code = "import sys; from cache_setup import opened; opened(sys.argv[1], precision='6bit')"
    command = [sys.executable, "-c", code, str(tmp_path / "two")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    both = [subprocess.Popen(command, env=environment) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    opened(tmp_path / "one", precision="6bit")
    views = [{p.name: p.read_bytes() for p in (tmp_path / name).rglob("view_*.npy")} for name in ("one", "two")]
    assert len(views[0]) == 4
    assert views[0] == views[1]


def test_students_in_lockstep_learn_from_it_what_they_learn_alone_bit_for_bit(tmp_path):
    data = TinyImages()
    cached = opened(tmp_path, data=data, precision="6bit")

    def trained(*seeds: int) -> list[torch.Tensor]:
        members = []
        for seed in seeds:
            torch.manual_seed(seed)
            student = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, CLASSES))
            method = Method({"kd": SoftTargetLoss(float(seed))}, {"task": 0.1, "kd": 0.9}, float(seed))
            settings = {"optimizer": functools.partial(torch.optim.SGD, lr=0.05), "seed": seed}
            members.append(Member(student, method, ClassificationTask(), **settings))
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = pl.Trainer(max_epochs=2, accelerator="cpu", enable_model_summary=False, limit_val_batches=0, **quiet)
        trainer.fit(Distiller(cached, members, [Recorder() for _ in members]), data.train_dataloader())
        return [torch.cat([p.detach().flatten() for p in member.student.parameters()]) for member in members]

    together = trained(1, 2, 4)
    assert all(torch.equal(weights, trained(seed)[0]) for weights, seed in zip(together, (1, 2, 4), strict=True))


# -- what it is not for -----------------------------------------------------------------------------------------------
def test_answers_that_are_no_logits_of_classes_are_refused(tmp_path):
    teacher = make_teacher(provides=frozenset({"values", "features"}))
    with pytest.raises(UserError, match="6bit is for logits of classes, this teacher gives features, values: use fp16"):
        opened(tmp_path, teacher, precision="6bit")


def test_masked_classes_are_refused_since_they_would_stretch_all_levels(tmp_path):
    codec = RowCodec(ModelOutput(torch.zeros(2, 4)), "6bit")
    with pytest.raises(UserError, match="cannot hold classes that the teacher masks"):
        codec.encode(ModelOutput(torch.tensor([[1.0, 2.0, MASKED, 0.0]])), torch.zeros(1))


def test_it_does_not_go_with_top_k(tmp_path):
    with pytest.raises(UserError, match=r"teacher\.cache_top_k=2: 6bit keeps what it needs"):
        opened(tmp_path, precision="6bit", top_k=2)


# -- the limit on the disk --------------------------------------------------------------------------------------------
def test_where_six_bits_would_fit_the_line_says_so_and_nothing_is_stored_otherwise(tmp_path):
    class Many(TinyImages):
        num_classes = 100

    torch.manual_seed(0)
    teacher = FrozenTeacher(nn.Sequential(nn.Flatten(), nn.Linear(64, 100)))
    lines: list[str] = []
    settings = {"mode": "auto", "epochs": 8, "limit_gb": 1.5e-4, "announce": lines.append}
    assert opened(tmp_path, teacher, Many(), **settings) is teacher
    assert lines[0].endswith(
        "237 kB in fp16, are above teacher.cache_limit_gb=0.00015: set teacher.cache_precision=6bit (106 kB) or "
        "teacher.cache_limit_gb=0.1"
    )
    with pytest.raises(UserError, match=r"or teacher\.cache_limit_gb=0\.1, or teacher\.cache=off"):
        opened(tmp_path, teacher, Many(), **{**settings, "mode": str(tmp_path)})
    assert isinstance(opened(tmp_path, teacher, Many(), precision="6bit", **settings), CachedTeacher)
