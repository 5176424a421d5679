"""Eighteen steps of RepDistiller's own training loop with attention transfer, repeated with our parts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from golden_cases import array, assert_gradient
from torch import Tensor, nn

from kd_lightning.losses.attention import AttentionLoss
from kd_lightning.method import Method
from kd_lightning.taps import Taps

NAME = "trajectory_attention"
PARAMETERS = [f"{layer}.{name}" for layer in ("conv1", "bn1", "conv2", "bn2", "fc") for name in ("weight", "bias")]
PARAMETERS = [name for name in PARAMETERS if name not in ("conv1.bias", "conv2.bias")]
STATISTICS = [f"{layer}.running_{name}" for layer in ("bn1", "bn2") for name in ("mean", "var")]


class TinyNet(nn.Module):
    """The reference's network: two convolutions, the second strided, and a mean over positions."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.conv2 = nn.Conv2d(first, second, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(second)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(second, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        maps = self.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(inputs))))))
        return self.fc(maps.mean(dim=(2, 3)))


def loaded(model: TinyNet, prefix: str) -> TinyNet:
    model.load_state_dict({name: array(NAME, f"{prefix}/{name}") for name in model.state_dict()})
    return model.double()


def test_attention_transfer_follows_the_reference_step_by_step():
    student = loaded(TinyNet(4, 8), "student0")
    teacher = loaded(TinyNet(6, 12), "teacher").eval()
    taps = {"maps": "relu"}
    student_taps, teacher_taps = Taps(student, taps), Taps(teacher, taps, role="teacher")
    method = Method({"attention": AttentionLoss(["maps"])}, {"task": 1.0, "attention": 1000.0})
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    expected = array(NAME, "repdistiller_attention/step_loss")
    losses = []
    for epoch in (1, 2, 3):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 if epoch == 1 else 0.005
        for inputs, target in zip(array(NAME, "in/x").double(), array(NAME, "in/y"), strict=True):
            with torch.no_grad():
                teacher_output = teacher_taps(teacher, inputs)
            output = student_taps(student, inputs)
            loss, _ = method(output, teacher_output, target, F.cross_entropy(output.logits, target))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
    torch.testing.assert_close(torch.stack(losses), expected.double(), rtol=1e-6, atol=0)
    for name in PARAMETERS + STATISTICS:
        assert_gradient(student.state_dict()[name], array(NAME, f"repdistiller_attention/student_ep3/{name}").double())
