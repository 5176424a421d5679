"""Accumulation, clipping, precision, compilation, memory format, data-parallel training: each against what it must equal."""

from __future__ import annotations

import copy
import functools
import os
import subprocess
import sys
import textwrap

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from kd_lightning.batch import Batch
from kd_lightning.distiller import Distiller
from kd_lightning.errors import UserError
from kd_lightning.losses.soft_target import SoftTargetLoss
from kd_lightning.member import Member
from kd_lightning.method import Method
from kd_lightning.models.small_cnn import SmallCNN
from kd_lightning.outputs import ModelOutput
from kd_lightning.recorder import Recorder
from kd_lightning.rng import RngStream
from kd_lightning.tasks.classification import ClassificationTask
from kd_lightning.teachers.frozen import FrozenTeacher

SGD = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9)


def net() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def make(seed, factory=net):
    with RngStream(seed):
        return factory()


def member(student, **settings) -> Member:
    method = Method({"kd": SoftTargetLoss(4.0)}, {"task": 0.1, "kd": 0.9}, 4.0)
    return Member(student, method, ClassificationTask(), **{"optimizer": SGD, **settings})


def batches(number=6, size=16) -> list[Batch]:
    g = torch.Generator().manual_seed(0)
    return [
        Batch(torch.randn(size, 1, 8, 8, generator=g), torch.randint(0, 10, (size,), generator=g))
        for _ in range(number)
    ]


def fit(student_member, data, epochs=2, teacher=None, recorder=None):
    teacher = teacher or FrozenTeacher(make(9))
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(Distiller(teacher, student_member, [recorder or Recorder()]), DataLoader(data, batch_size=None))
    return trainer


def test_accumulated_small_batches_equal_large_ones():
    large = batches(6, 16)
    halves = [Batch(b.inputs[half], b.target[half]) for b in large for half in (slice(0, 8), slice(8, 16))]
    one, two = member(make(1)), member(make(1), accumulate_grad_batches=2)
    assert fit(one, large).global_step == fit(two, halves).global_step == 12
    for a, b in zip(one.student.parameters(), two.student.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_the_last_batches_of_an_epoch_step_even_if_fewer_than_accumulated():
    assert fit(member(make(1), accumulate_grad_batches=4), batches(6), epochs=3).global_step == 6


def test_clipping_equals_a_loop_by_hand():
    data, teacher = batches(3), FrozenTeacher(make(9))
    ours = member(make(1), gradient_clip_val=0.05)
    fit(ours, data, epochs=1, teacher=teacher)
    student = make(1)
    optimizer, task, method = SGD(student.parameters()), ClassificationTask(), ours.method
    norms = []
    for batch in data:
        output = ModelOutput(student(batch.inputs))
        loss, _ = method(output, teacher(batch), batch.target, task.loss(output, batch.target))
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(nn.utils.clip_grad_norm_(student.parameters(), 0.05)))
        optimizer.step()
    assert min(norms) > 0.05  # clipping did something
    for a, b in zip(student.parameters(), ours.student.parameters(), strict=True):
        assert torch.equal(a, b)


class Probe(nn.Module):
    """Notes in which dtype the student computes."""

    def __init__(self):
        super().__init__()
        self.inner = net()
        self.dtypes: set[torch.dtype] = set()

    def forward(self, x):
        out = self.inner(x)
        self.dtypes.add(out.dtype)
        return out


@pytest.mark.parametrize(("precision", "dtype"), [("bf16-mixed", torch.bfloat16), ("16-mixed", torch.float16)])
def test_mixed_precision_computes_in_half_and_learns_in_single(precision, dtype):
    class Losses(Recorder):
        def __init__(self):
            self.values = []

        def log(self, step, epoch, metrics):
            self.values.append(metrics["train/loss"])

    notes, full = Losses(), Losses()
    half = member(make(1, Probe), precision=precision)
    fit(half, batches(), epochs=10, recorder=notes)
    fit(member(make(1)), batches(), epochs=10, recorder=full)
    assert half.student.dtypes == {dtype}
    assert all(p.dtype == torch.float32 for p in half.student.parameters())
    assert notes.values[-1] < notes.values[0]
    assert notes.values[-1] == pytest.approx(full.values[-1], rel=0.05)
    assert notes.values[0] == pytest.approx(full.values[0], rel=0.02)
    assert notes.values[0] != full.values[0]


def test_each_fp16_member_has_a_loss_scale_of_its_own():
    class Overflows(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = net()

        def forward(self, x):
            return self.inner(x) * 1e4

    calm, wild = member(make(1), precision="16-mixed"), member(make(1, Overflows), precision="16-mixed")
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    recorders = [Recorder(), type("Quiet", (Recorder,), {"diverged": lambda self, step, terms: None})()]
    trainer.fit(Distiller(FrozenTeacher(make(9)), [calm, wild], recorders), DataLoader(batches(), batch_size=None))
    assert wild.optimization.scaler.get_scale() < calm.optimization.scaler.get_scale()
    assert calm.training_state()["scaler"]["scale"] == calm.optimization.scaler.get_scale()


def test_channels_last_changes_the_memory_format_and_not_the_result():
    class Sees(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = SmallCNN([8, 16], 32, 3, 10, 8)
            self.formats = set()

        def forward(self, x):
            self.formats.add(x.is_contiguous(memory_format=torch.channels_last))
            return self.inner(x)

    data = [Batch(torch.randn(8, 3, 8, 8), torch.randint(0, 10, (8,))) for _ in range(3)]
    teacher = FrozenTeacher(make(2, lambda: SmallCNN([8], 16, 3, 10, 8)))
    plain, last = member(make(1, Sees)), member(make(1, Sees), channels_last=True)
    start = copy.deepcopy(plain.student.state_dict())
    fit(plain, data, 1, teacher)
    fit(last, data, 1, teacher)
    assert last.student.formats == {True}
    assert plain.student.formats == {False}
    for (name, a), b in zip(plain.student.state_dict().items(), last.student.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
        assert "num_batches" in name or not torch.equal(a, start[name])


@pytest.mark.slow
@pytest.mark.parametrize("how", [True, "reduce-overhead"])
def test_compiled_student_and_teacher_learn_the_same(how):
    torch._dynamo.reset()
    data = batches(4)
    plain, compiled = member(make(1)), member(make(1), compile_student=how)
    assert compiled.compiled
    fit(plain, data, 1, FrozenTeacher(make(9)))
    fit(compiled, data, 1, FrozenTeacher(make(9), compile=True))
    assert list(plain.student.state_dict()) == list(compiled.student.state_dict())
    for a, b in zip(plain.student.parameters(), compiled.student.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_an_unknown_precision_is_a_user_error_that_names_the_key():
    with pytest.raises(UserError, match=r"trainer\.precision=8bit"):
        member(make(1), precision="8bit")


DDP = """
    import sys, torch, pytorch_lightning as pl, functools
    sys.path.insert(0, {tests!r})
    from test_training_options import SGD, batches, make, member
    from torch.utils.data import DataLoader
    from kd_lightning.batch import Batch
    from kd_lightning.distiller import Distiller
    from kd_lightning.recorder import Recorder
    from kd_lightning.teachers.frozen import FrozenTeacher

    class Half(torch.utils.data.Dataset):  # the half of each batch that belongs to this process
        def __init__(self, rank):
            self.data = [Batch(b.inputs[rank::2], b.target[rank::2]) for b in batches()]
        def __len__(self): return len(self.data)
        def __getitem__(self, i): return self.data[i]

    class Module(Distiller):
        def train_dataloader(self): return DataLoader(Half(self.global_rank), batch_size=None)
        def val_dataloader(self): return DataLoader(Half(self.global_rank), batch_size=None)

    class Notes(Recorder):
        def validated(self, member, step, epoch, metrics): self.metrics = metrics

    teacher, notes = FrozenTeacher(make(9)), Notes()
    module = Module(teacher, member(make(1)), [notes])
    trainer = pl.Trainer(max_epochs=2, accelerator="cpu", devices={devices}, strategy={strategy!r}, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        use_distributed_sampler=False)
    trainer.fit(module)
    teacher.verify()
    reduced = {{id(p) for p in trainer.strategy.model.parameters()}}
    assert not reduced & {{id(p) for p in teacher.module.parameters()}}
    found = {{"state": module.members[0].student.state_dict(), "metrics": notes.metrics}}
    torch.save(found, {out!r} + str(trainer.global_rank))
    torch.distributed.destroy_process_group()  # its threads may not outlive the interpreter
"""


@pytest.mark.slow
def test_two_processes_train_the_student_of_one(tmp_path):
    script, out = tmp_path / "train.py", tmp_path / "out.pt"
    here = os.path.dirname(__file__)
    script.write_text(textwrap.dedent(DDP.format(tests=here, out=str(out), devices=2, strategy="ddp")))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    subprocess.run([sys.executable, str(script)], check=True, timeout=300, env=environment, cwd=tmp_path)
    together, other = (torch.load(f"{out}{rank}", weights_only=True) for rank in range(2))
    assert other["metrics"] == together["metrics"]
    assert all(torch.equal(value, together["state"][name]) for name, value in other["state"].items())

    class Notes(Recorder):
        def validated(self, member, step, epoch, metrics):
            self.metrics = metrics

    single, notes = member(make(1)), Notes()
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    loaders = [DataLoader(batches(), batch_size=None) for _ in range(2)]
    trainer.fit(Distiller(FrozenTeacher(make(9)), single, [notes]), *loaders)
    for name, value in single.student.state_dict().items():
        torch.testing.assert_close(together["state"][name], value, rtol=1e-5, atol=1e-6)
    assert together["metrics"]["acc"] == notes.metrics["acc"]  # summed over both processes, each sample once
