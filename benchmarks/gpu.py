"""What a GPU makes of it: one command, a Markdown table, within eight minutes.

    python benchmarks/gpu.py                         # the first GPU
    python benchmarks/gpu.py --device cpu --tiny     # proves that everything here runs; the figures mean nothing

On 3 x 32 x 32 pictures of random bytes, batch 64, resnet32x4 -> resnet8x4, float32 (TF32 as torch has it by default):

    step      a distillation step of the Distiller under a Trainer, against the loop that one would write by hand
    fused     1, 4 and 16 students in lockstep, in steps of a student a second: the loop, which is the default, then
              stacked (stacked=true), then replayed (cuda_graphs=true); compiled with CUDA graphs (compile=reduce-overhead); with the teacher's answers stored
    mlp       the same with MLPs of two layers of 64; of other widths with stored answers
    resident  crop, flip, normalise with the pictures on the GPU (data.device=auto), on the CPU with the copy
    loader    pictures a second: ThreadedLoader against torch's DataLoader with all cores, up to where the GPU has them

Each is measured for a fixed time after a warm-up, waiting for the device; on a CPU it is the processor's time, but for the
loader. What fails says so in its place. ``--only fused mlps`` measures these sections alone.
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from kd_lightning.batch import Batch
from kd_lightning.data.array_data import ArrayData
from kd_lightning.data.augment import CropFlip
from kd_lightning.data.loader.threaded_loader import ThreadedLoader
from kd_lightning.distiller import Distiller
from kd_lightning.losses.soft_target import SoftTargetLoss
from kd_lightning.member import Member
from kd_lightning.method import Method
from kd_lightning.models.mlp import MLP
from kd_lightning.models.resnet_cifar import resnet8x4, resnet32x4
from kd_lightning.outputs import ModelOutput
from kd_lightning.recorder import Recorder
from kd_lightning.tasks.classification import ClassificationTask
from kd_lightning.teachers.frozen import FrozenTeacher

CLASSES, SHAPE = 100, (3, 32, 32)
SGD = functools.partial(torch.optim.SGD, lr=0.01, momentum=0.9, weight_decay=5e-4)


class Stored:
    """A teacher's answers, looked up by the samples' positions, on the device."""

    name, provides, labels_new_inputs = "stored", frozenset({"logits"}), False

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def __call__(self, batch: Batch) -> ModelOutput:
        assert batch.index is not None
        return ModelOutput(self.logits[batch.index.to(self.logits.device)].float())


class Rows:
    """The table."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str]] = []

    def measure(self, section: str, what: str, figure: Callable[[], str]) -> None:
        """Add what ``figure`` says, or how it failed."""
        try:
            said = figure()
        except Exception as error:
            said = failure(error)
        self.add(section, what, said)

    def add(self, section: str, what: str, figure: str) -> None:
        self.rows.append((section, what, figure))
        print(f"{section:9} {what:62} {figure}", flush=True)

    def markdown(self, head: str) -> str:
        lines = [head, "", "| | | |", "|---|---|---:|"]
        return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in self.rows)]) + "\n"


def failure(error: Exception) -> str:
    """In the place of a figure."""
    return f"failed: {type(error).__name__}: {' '.join(str(error).split())[:160]}"


class Bench:
    """Sizes and the device.

    Args:
        device: on which everything runs.
        tiny: small networks and a second each.
    """

    def __init__(self, device: torch.device, tiny: bool) -> None:
        self.device, self.tiny = device, tiny
        self.batch = 8 if tiny else 64
        self.seconds = 0.3 if tiny else 5.0
        self.samples = 64 if tiny else 50_000
        generator = torch.Generator().manual_seed(0)
        self.pictures = torch.randint(0, 256, (self.samples, *SHAPE), dtype=torch.uint8, generator=generator)
        self.labels = torch.randint(0, CLASSES, (self.samples,), generator=generator)

    def networks(self, width: int | None = None) -> tuple[nn.Module, Callable[[], nn.Module]]:
        """A teacher, and what makes a student: an MLP of two layers of ``width``; None: a ResNet 8x4."""
        if self.tiny or width:
            width = width if width and not self.tiny else 8
            return MLP([4 * width], 3072, CLASSES), lambda: MLP([width, width], 3072, CLASSES)
        return resnet32x4(CLASSES), lambda: resnet8x4(CLASSES)

    def data(self) -> ArrayData:
        augment = CropFlip(4, True)
        mean, std = [0.5] * 3, [0.25] * 3
        return ArrayData(self.pictures, self.labels, scale=255, mean=mean, std=std, augment=augment, seed=0)

    def batches(self) -> list[Batch]:
        """Sixteen batches on the device."""
        data = self.data()
        found = []
        for number in range(16):
            index = torch.arange(number * self.batch, (number + 1) * self.batch) % self.samples
            inputs, target = data.gather(index, 0)
            found.append(Batch(inputs.to(self.device), target.to(self.device), index.to(self.device)))
        return found

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def per_second(self, work: Callable[[], Any]) -> float:
        """How often ``work`` is done in a second."""
        now = time.process_time if self.device.type == "cpu" else time.perf_counter
        for _ in range(3):
            work()
        self.wait()
        start, count = now(), 0
        while now() - start < self.seconds:
            work()
            count += 1
            if count % 8 == 0:
                self.wait()
        self.wait()
        return count / (now() - start)


def bare_steps(bench: Bench) -> float:
    """Steps a second of the loop that one would write by hand."""
    teacher, make = bench.networks()
    teacher = teacher.to(bench.device).eval().requires_grad_(False)
    student = make().to(bench.device).train()
    optimizer = SGD(student.parameters())
    batches = endless(bench.batches())

    def step() -> None:
        batch = next(batches)
        with torch.no_grad():
            answer = teacher(batch.inputs)
        logits = student(batch.inputs)
        soft = F.kl_div(
            F.log_softmax(logits / 4, 1), F.log_softmax(answer / 4, 1), reduction="batchmean", log_target=True
        )
        loss = 0.9 * 16 * soft + 0.1 * F.cross_entropy(logits, batch.target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return bench.per_second(step)


class Clock(pl.Callback):
    """Ends the run after some time; steps a second after a warm-up.

    Args:
        wait: until the device has nothing left to do.
        seconds: of the measurement: by the clock, or of the processor where ``processor`` is true, so that other programs
            matter little.
        warm_up: steps before it.
        every: so many steps at a time are waited for.
    """

    def __init__(
        self, wait: Callable[[], None], seconds: float, warm_up: int = 12, every: int = 8, *, processor: bool = False
    ) -> None:
        self.wait, self.seconds, self.warm_up, self.every = wait, seconds, warm_up, every
        self.now = time.process_time if processor else time.perf_counter
        self.start, self.steps, self.rate = 0.0, 0, 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.steps += 1
        measured = self.steps - self.warm_up
        if measured == 0:
            self.wait()
            self.start = self.now()
        elif measured > 0 and measured % self.every == 0 and self.now() - self.start > self.seconds:
            self.wait()
            self.rate = measured / (self.now() - self.start)
            trainer.should_stop = True


class Said(logging.Handler):
    """Keeps what the Distiller says of students that it could not stack."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def our_steps(
    bench: Bench,
    students: int,
    *,
    width: int | None = None,
    stored: bool = False,
    stacked: bool = False,
    graphs: bool = False,
    precision: str = "32-true",
    compiled: str | bool = False,
) -> float:
    """Steps a second of the Distiller with so many students in lockstep."""
    teacher, make = bench.networks(width)
    members = [
        Member(
            make(),
            Method({"kd": SoftTargetLoss(4.0)}, {"task": 0.1, "kd": 0.9}, 4.0),
            ClassificationTask(),
            optimizer=SGD,
            precision=precision,
            compile_student=compiled,
            name=f"student {number}",
        )
        for number in range(students)
    ]
    answering: Any = FrozenTeacher(teacher)
    if stored:
        answering = Stored(torch.randn(bench.samples, CLASSES, device=bench.device).half())
    clock = Clock(bench.wait, bench.seconds, processor=bench.device.type == "cpu")
    module = Distiller(answering, members, [Recorder() for _ in members], 50, stacked=stacked, cuda_graphs=graphs)
    return rate(module, bench.batches(), clock)


def rate(module: Distiller, batches: list[Batch], clock: Clock) -> float:
    """Steps a second of a Distiller under a Trainer."""
    cuda = batches[0].target.is_cuda
    trainer = pl.Trainer(
        max_epochs=-1, accelerator="gpu" if cuda else "cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, callbacks=[clock],
    )  # fmt: skip
    said = Said()
    logging.getLogger("kd_lightning").addHandler(said)
    try:
        trainer.fit(module, DataLoader(batches * 64, batch_size=None))  # long epochs
    finally:
        logging.getLogger("kd_lightning").removeHandler(said)
    if said.lines:
        raise RuntimeError(said.lines[0])
    return clock.rate


def steps(bench: Bench, rows: Rows) -> None:
    bare = bare_steps(bench)
    rows.add("step", "bare loop", f"{1000 / bare:.2f} ms")

    def distiller() -> str:
        ours = our_steps(bench, 1)
        return f"{1000 / ours:.2f} ms ({bare / ours:.3f} x)"

    rows.measure("step", "Distiller", distiller)


def lockstep(bench: Bench, rows: Rows, section: str, what: str, students: int, **how: Any) -> None:
    """A row for so many students."""

    def figure() -> str:
        return f"{students * our_steps(bench, students, **how):,.0f} student steps a second"

    rows.measure(section, f"{students} student{'s' * (students > 1)}{what}", figure)


def ways(bench: Bench) -> dict[str, dict[str, bool]]:
    """The ways to take the students' steps; graphs are recorded on a CUDA device only."""
    found: dict[str, dict[str, bool]] = {"in the loop": {}, "stacked": {"stacked": True}}
    return found | ({"replayed": {"graphs": True}} if bench.device.type == "cuda" else {})


def fused(bench: Bench, rows: Rows) -> None:
    """Several ResNets, one way of computing them after the other."""
    add = functools.partial(lockstep, bench, rows, "fused")
    for how, way in ways(bench).items():
        for students in (1, 4, 16):
            if students > 1 or how != "stacked":
                add(f" {how}", students, **way)
        add(f" {how}, the teacher's answers stored", 16, stored=True, **way)
        add(f" {how}, bf16-mixed", 16, precision="bf16-mixed", **way)
    for students in (1, 4):
        add(", compile=reduce-overhead", students, compiled="reduce-overhead")


def mlps(bench: Bench, rows: Rows) -> None:
    """Several MLPs."""
    add = functools.partial(lockstep, bench, rows, "mlp")
    for how, way in ways(bench).items():
        for students in (1, 4, 16):
            if students > 1 or how != "stacked":
                add(f" {how}", students, width=64, **way)
    for width in (16, 64, 400):
        for how, way in ways(bench).items():
            add(f" of width {width} {how}, stored answers", 16, width=width, stored=True, **way)


def resident(bench: Bench, rows: Rows) -> None:
    """Views made where the pictures lie."""
    for what, data in (("on the device", bench.data().on(bench.device)), ("on the CPU, then copied", bench.data())):
        order = torch.randperm(bench.samples)
        parts = endless(list(order.split(bench.batch)))
        view = iter(range(1 << 40))

        def make(data: ArrayData = data, parts: Iterator[Tensor] = parts, view: Iterator[int] = view) -> None:
            inputs, _ = data.gather(next(parts), next(view))
            inputs.to(bench.device, non_blocking=True)

        pictures = bench.batch * bench.per_second(make)
        rows.add("resident", f"crop, flip, normalise {what}", f"{pictures:,.0f} pictures a second")


class OneByOne(torch.utils.data.Dataset):
    """What a DataLoader's worker reads: a whole batch at a time, as fast as we make it."""

    def __init__(self, data: ArrayData) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        return self.data.gather(torch.tensor(indices), 0)


def loaders(bench: Bench, rows: Rows) -> None:
    cores = len(os.sched_getaffinity(0))
    ours = ThreadedLoader(bench.data(), bench.batch, shuffle=True, as_batch=True, split="train", views=0)
    pin = bench.device.type == "cuda"
    theirs = DataLoader(
        OneByOne(bench.data()), bench.batch, shuffle=True, num_workers=cores, collate_fn=lambda b: b, pin_memory=pin
    )
    for what, loader in (("ThreadedLoader", ours), (f"DataLoader, {cores} workers, whole batches", theirs)):
        count, start = 0, 0.0
        while not start or time.perf_counter() - start < bench.seconds:
            for number, batch in enumerate(loader):
                if not start and number == min(4, len(loader) - 1):
                    bench.wait()
                    start, count = time.perf_counter(), 0
                inputs = batch[0].to(bench.device, non_blocking=True)
                count += len(inputs)
                if start and time.perf_counter() - start > bench.seconds:
                    break
        bench.wait()
        rows.add("loader", what, f"{count / (time.perf_counter() - start):,.0f} pictures a second")
    ours.close()


def endless(items: list[Any]) -> Iterator[Any]:
    while True:
        yield from items


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, cpu")
    parser.add_argument("--tiny", action="store_true", help="small networks, a moment each")
    parser.add_argument("--only", nargs="*", metavar="SECTION", help="of steps, fused, mlps, resident, loaders")
    parser.add_argument("--output", type=Path, help="write the Markdown table into this file as well")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device here: --device cpu --tiny shows that the benchmark runs")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU"
    head = f"{card}, {len(os.sched_getaffinity(0))} cores, torch {torch.__version__}{', tiny sizes' * options.tiny}"
    print(head, flush=True)
    bench, rows = Bench(device, options.tiny), Rows()
    for section in (steps, fused, mlps, resident, loaders):
        if options.only and section.__name__ not in options.only:
            continue
        try:
            section(bench, rows)
        except Exception as error:
            rows.add(section.__name__, "", failure(error))
    if options.output:
        options.output.write_text(rows.markdown(head), encoding="utf-8")


if __name__ == "__main__":
    main()
