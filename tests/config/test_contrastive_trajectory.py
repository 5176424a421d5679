"""CRD by configuration trains as a loop that follows the paper's equations with nothing of this package."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from test_distiller import Notebook, fit
from test_trajectories import GOLDEN, ROOT, TappedNet
from torch import Tensor, nn

from kd_lightning.batch import Batch
from kd_lightning.config.build import build_optimizer, build_scheduler, build_task, instantiate
from kd_lightning.distiller import Distiller
from kd_lightning.losses.contrastive import ContrastiveLoss
from kd_lightning.member import Member
from kd_lightning.teachers.frozen import FrozenTeacher

SAMPLES, NEGATIVES, EPOCHS, WEIGHT, TAU, MOMENTUM = 96, 20, 3, 0.8, 0.07, 0.5
GUARD = 1e-7  # the authors' code adds it to both denominators
OVERRIDES = [
    *("method=crd", f"method.weights.crd={WEIGHT}", f"method.terms.crd.train_samples={SAMPLES}"),
    *(f"method.terms.crd.negatives={NEGATIVES}", "method.terms.crd.dimension=8"),
    "method.taps={student: {embedding: relu}, teacher: {embedding: relu}}",
    *("optimizer=sgd", "optimizer.nesterov=false", "scheduler=multistep", "scheduler.milestones=[1]"),
]


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Memories:
    """Memory banks, noise-contrastive estimation (eq. 17 to 19, in both directions) and the rows' momentum."""

    def __init__(self, term: ContrastiveLoss) -> None:
        self.maps = copy.deepcopy(nn.ModuleList([term.embed_student, term.embed_teacher]))
        self.rows = [term.memory_student.clone(), term.memory_teacher.clone()]
        self.z: list[float | None] = [None, None]

    def loss(self, pooled: Tensor, hints: Tensor, compared: Tensor) -> Tensor:
        unit = [F.normalize(net(x), dim=1) for net, x in zip(self.maps, (pooled, hints), strict=True)]
        total = torch.zeros(())
        for own, other in ((0, 1), (1, 0)):
            for i, row in enumerate(compared):
                scores = torch.exp(self.rows[other][row] @ unit[own][i] / TAU)
                if self.z[own] is None:
                    everything = self.rows[other][compared] @ unit[own][:, :, None]
                    self.z[own] = float((everything / TAU).exp().mean().detach()) * SAMPLES
                scores, noise = scores / self.z[own], NEGATIVES / SAMPLES
                true, false = scores[0] / (scores[0] + noise + GUARD), noise / (scores[1:] + noise + GUARD)
                total = total - true.log() - false.log().sum()
        for rows, seen in zip(self.rows, unit, strict=True):
            for i, sample in enumerate(compared[:, 0]):
                moved = MOMENTUM * rows[sample] + (1 - MOMENTUM) * seen[i].detach()
                rows[sample] = moved / moved.norm()
        return total / len(compared)


def test_crd_is_reproduced_step_by_step_by_configuration(double, monkeypatch):
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        cfg = compose("train", overrides=OVERRIDES)
    config = {
        key: OmegaConf.to_container(cfg[key], resolve=True) for key in ("method", "optimizer", "scheduler", "task")
    }
    inputs = np.load(GOLDEN / "trajectory_kd.npz")

    def network(prefix, *channels):
        net = TappedNet(*channels)
        net.load_state_dict(
            {k[len(prefix) :]: torch.from_numpy(inputs[k]) for k in inputs.files if k.startswith(prefix)}
        )
        return net

    drawn, starts, against = [], [], ContrastiveLoss.against

    def noted(self, student, teacher, index, compared):
        if not starts:
            starts.append(Memories(self))
        drawn.append(compared)
        return against(self, student, teacher, index, compared)

    monkeypatch.setattr(ContrastiveLoss, "against", noted)
    scheduler, interval = build_scheduler(config["scheduler"])
    method = instantiate(config["method"], "method")
    student = Member(
        network("student0/", 4, 8),
        method,
        build_task(config),
        optimizer=build_optimizer(config["optimizer"]),
        scheduler=scheduler,
        scheduler_interval=interval,
    )
    notes, teacher = Notebook(), network("teacher/", 6, 12)
    pairs = [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in zip(inputs["in/x"], inputs["in/y"], strict=True)]
    batches = [Batch(x, y, torch.arange(16 * k, 16 * k + 16), split="train") for k, (x, y) in enumerate(pairs)]
    fit(
        Distiller(FrozenTeacher(teacher, taps={"embedding": "relu"}), student, [notes], log_every_n_steps=1),
        batches,
        [Batch(*pairs[0])],
        epochs=EPOCHS,
    )

    banks, net, losses = starts[0], network("student0/", 4, 8), []
    optimizer = torch.optim.SGD([*net.parameters(), *banks.maps.parameters()], 0.05, momentum=0.9, weight_decay=5e-4)
    pooled: dict[nn.Module, Tensor] = {}
    for model in (net, teacher.eval()):
        model.relu.register_forward_hook(lambda relu, _, maps: pooled.update({relu: maps.mean((2, 3))}))
    for step, compared in enumerate(drawn):
        x, y = pairs[step % len(pairs)]
        optimizer.param_groups[0]["lr"] = 0.05 if step < len(pairs) else 0.005
        with torch.no_grad():
            teacher(x)
        task = F.cross_entropy(net(x), y)
        loss = task + WEIGHT * banks.loss(pooled[net.relu], pooled[teacher.relu], compared)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert len(drawn) == EPOCHS * len(pairs)
    np.testing.assert_allclose(notes.losses, losses, rtol=1e-9)
    for name, value in net.state_dict().items():
        np.testing.assert_allclose(notes.weights[-1][name], value, rtol=1e-8, atol=1e-11, err_msg=name)
    term = method.terms["crd"]
    for ours, theirs in zip(banks.rows, (term.memory_student, term.memory_teacher), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-8, atol=1e-11)
