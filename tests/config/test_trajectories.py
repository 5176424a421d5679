"""Trainings of other codebases' own loops come out step by step, each by configuration alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from test_distiller import Notebook, ReferenceNet, fit
from torch import Tensor, nn

from kd_lightning.batch import Batch
from kd_lightning.config.build import build_optimizer, build_scheduler, build_task, instantiate
from kd_lightning.distiller import Distiller
from kd_lightning.member import Member
from kd_lightning.teachers.frozen import FrozenTeacher

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
RECIPE = ["optimizer=sgd", "optimizer.nesterov=false", "scheduler=multistep", "scheduler.milestones=[1]"]
LOOPS = {
    "repdistiller_kd": ("trajectory_kd", ["method=kd"]),
    "repdistiller_attention": (
        "trajectory_attention",
        [
            *("method=attention", "method.weights.attention=1000", "method.terms.attention.taps=[second]"),
            "method.taps={student: {first: relu, second: relu}, teacher: {first: relu, second: relu}}",
        ],
    ),
    "mdistiller_dkd_warmup2": (
        "trajectory_dkd_warmup2",
        ["method=dkd", "preset=authors", "method.weights.true_class.epochs=2", "method.weights.other_classes.epochs=2"],
    ),
}


class TappedNet(ReferenceNet):
    """The reference's net with a name for its last map."""

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__(c1, c2)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))).mean((2, 3)))


class Log(Notebook):
    def log(self, step, epoch, metrics):
        super().log(step, epoch, metrics)
        self.schedules = [*getattr(self, "schedules", []), metrics.get("train/weight_other_classes")]


@pytest.mark.parametrize("loop", LOOPS)
def test_a_reference_loop_is_reproduced_step_by_step_by_configuration(loop):
    file, overrides = LOOPS[loop]
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        cfg = compose("train", overrides=[*overrides, *RECIPE])
    keys = ("method", "optimizer", "scheduler", "task")
    config = {key: OmegaConf.to_container(cfg[key], resolve=True) for key in keys}
    inputs, golden = np.load(GOLDEN / "trajectory_kd.npz"), np.load(GOLDEN / f"{file}.npz")

    def network(prefix, *channels):
        net = TappedNet(*channels).double()
        state = {k[len(prefix) :]: torch.from_numpy(inputs[k]) for k in inputs.files if k.startswith(prefix)}
        net.load_state_dict(state)
        return net

    scheduler, interval = build_scheduler(config["scheduler"])
    student = Member(
        network("student0/", 4, 8),
        instantiate(config["method"], "method"),
        build_task(config),
        optimizer=build_optimizer(config["optimizer"]),
        scheduler=scheduler,
        scheduler_interval=interval,
    )
    notes = Log()
    teacher = FrozenTeacher(
        network("teacher/", 6, 12), taps={"relu": "relu"} if config["method"]["taps"]["teacher"] else None
    )
    distiller = Distiller(teacher, student, [notes], log_every_n_steps=1)
    batches = [Batch(*map(torch.from_numpy, pair)) for pair in zip(inputs["in/x"], inputs["in/y"], strict=True)]

    fit(distiller, batches, batches[:1], epochs=3)

    np.testing.assert_allclose(notes.losses, golden[f"{loop}/step_loss"], rtol=1e-9)
    if loop == "mdistiller_dkd_warmup2":
        assert notes.schedules == [4.0] * 6 + [8.0] * 12
    for epoch, weights in enumerate(notes.weights, start=1):
        for name, value in weights.items():
            key = f"{loop}/student_ep{epoch}/{name}"
            if key in golden.files:
                np.testing.assert_allclose(value.numpy(), golden[key], rtol=1e-8, atol=1e-11)
