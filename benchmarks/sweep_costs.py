"""What the parts of a run cost by themselves, for benchmarks/sweep.py."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from kd_lightning.config.build import build_datamodule, build_member
from kd_lightning.running.execute import execute
from kd_lightning.schedules.learning_rate import RunLength
from kd_lightning.teachers.registry import obtain_teacher


class Seconds(NamedTuple):
    """By the clock on the wall, and of all this process's threads together."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Seconds:
        return cls(time.perf_counter(), time.process_time())

    def passed(self) -> Seconds:
        return Seconds(time.perf_counter() - self.wall, time.process_time() - self.cpu)


class Costs(NamedTuple):
    """Processor seconds: of a batch's data, teacher and student's step; of a run's evaluations by teacher and student."""

    data: float
    teacher: float
    step: float
    taught: float
    tested: float

    def bound(self, steps: int, members: int, cached: bool) -> float:
        """The least that members in lockstep can cost."""
        batch = self.data + (0.0 if cached else self.teacher) + members * self.step
        return steps * batch + self.taught + members * self.tested


def costs(config: Mapping[str, Any], batches: int = 20) -> Costs:
    """Each part of a run by itself, over up to ``batches`` batches and after two to warm up."""
    datamodule = build_datamodule(config)
    loader = datamodule.train_dataloader()
    start = Seconds.now()
    found = list(loader)
    data = start.passed().cpu / len(found)
    loader.close()
    found = found[: batches + 2]
    teacher, _ = obtain_teacher(config, datamodule, set(), lambda spec: execute([spec])[0])
    answers = [teacher(batch) for batch in found]
    start = Seconds.now()
    for batch in found:
        teacher(batch)
    shown = start.passed().cpu / len(found)
    member = build_member(config, datamodule, datamodule.example_batch(), answers[0], "member")
    member.configure(RunLength(2 * len(found), len(found)), device=torch.device("cpu"))
    for number, (batch, answer) in enumerate(zip(found, answers, strict=True)):
        if number == 2:
            start = Seconds.now()
        member.training_step(batch, answer, stepping=True, backward=torch.Tensor.backward)
    step = start.passed().cpu / (len(found) - 2)
    taught, tested = evaluation_costs(datamodule, teacher, member, config["trainer"]["max_epochs"])
    return Costs(data, shown, step, taught, tested)


@torch.inference_mode()
def evaluation_costs(datamodule: Any, teacher: Any, member: Any, epochs: int) -> tuple[float, float]:
    """Of the teacher, which sees validation and test once, and of a student, which is validated after each epoch."""
    taught = tested = 0.0
    for loader, often in ((datamodule.val_dataloader(), epochs), (datamodule.test_dataloader(), 1)):
        batches = list(loader) if often > 1 else [next(iter(loader))]
        loader.close()
        start = Seconds.now()
        answers = [teacher(batch) for batch in batches]
        taught += start.passed().cpu
        evaluator = member.task.evaluator()
        start = Seconds.now()
        for batch, answer in zip(batches, answers, strict=True):
            evaluator.update(member.answer(batch.inputs), answer, batch)
        tested += often * start.passed().cpu
    return taught, tested
