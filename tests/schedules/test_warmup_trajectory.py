"""A training with a warm-up of the distillation weights comes out as another codebase's, step by step, by configuration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from test_distiller import Notebook, ReferenceNet, fit

from kd_lightning.batch import Batch
from kd_lightning.config.build import build_optimizer, build_scheduler, build_task, instantiate
from kd_lightning.distiller import Distiller
from kd_lightning.member import Member
from kd_lightning.teachers.frozen import FrozenTeacher

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
OVERRIDES = [
    *("method=dkd", "preset=authors", "scheduler=multistep", "optimizer.nesterov=false", "scheduler.milestones=[1]"),
    *("method.weights.true_class.epochs=2", "method.weights.other_classes.epochs=2"),
]


class Log(Notebook):
    def log(self, step, epoch, metrics):
        super().log(step, epoch, metrics)
        self.schedules = [*getattr(self, "schedules", []), metrics["train/weight_other_classes"]]


def test_dkd_with_a_warm_up_is_reproduced_step_by_step():
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        cfg = compose("train", overrides=OVERRIDES)
    keys = ("method", "optimizer", "scheduler", "task")
    config = {key: OmegaConf.to_container(cfg[key], resolve=True) for key in keys}
    inputs, golden = np.load(GOLDEN / "trajectory_kd.npz"), np.load(GOLDEN / "trajectory_dkd_warmup2.npz")

    def network(prefix, *channels):
        net = ReferenceNet(*channels).double()
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
    distiller = Distiller(FrozenTeacher(network("teacher/", 6, 12)), student, [notes], log_every_n_steps=1)
    batches = [Batch(*map(torch.from_numpy, pair)) for pair in zip(inputs["in/x"], inputs["in/y"], strict=True)]

    fit(distiller, batches, batches[:1], epochs=3)

    np.testing.assert_allclose(notes.losses, golden["mdistiller_dkd_warmup2/step_loss"], rtol=1e-9)
    assert notes.schedules == [4.0] * 6 + [8.0] * 12
    for epoch, weights in enumerate(notes.weights, start=1):
        for name, value in weights.items():
            expected = golden[f"mdistiller_dkd_warmup2/student_ep{epoch}/{name}"]
            np.testing.assert_allclose(value.numpy(), expected, rtol=1e-8, atol=1e-11)
