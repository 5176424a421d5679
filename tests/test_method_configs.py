"""Every shipped conf/method/*.yaml builds, learns on the models that it is meant for, and says so in its first line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import OmegaConf

from kd_lightning.method import Method
from kd_lightning.models.mlp import MLP
from kd_lightning.models.resnet_cifar import resnet8, resnet14
from kd_lightning.models.small_cnn import SmallCNN
from kd_lightning.taps import Taps

METHODS = sorted((Path(__file__).resolve().parents[1] / "conf" / "method").glob("*.yaml"), key=lambda path: path.stem)
ON_MAPS = {"attention", "nst", "review", "vid"}  # need a convolutional student
# What to tap in the CIFAR ResNets, by the layer that a method taps in the small networks.
RESNET_LAYERS = {"hidden": "pool", "blocks.0": "layer1", "blocks.1": "layer2"}


def built(path: Path, overrides: dict | None = None) -> Method:
    config = OmegaConf.create({"method": OmegaConf.load(path)})
    return instantiate(OmegaConf.merge(config, overrides or {}).method)


def one_step(method: Method, student: torch.nn.Module, teacher: torch.nn.Module, inputs: torch.Tensor) -> dict:
    """Loss and gradients of one batch, as the Distiller computes them."""
    target = torch.tensor([0, 1, 2, 3, 4, -1, 6, 7])
    taps = Taps(student, method.taps["student"])
    teacher_taps = Taps(teacher.eval(), method.taps["teacher"], role="teacher")
    with torch.no_grad():
        teacher_output = teacher_taps(teacher, inputs)
        method.prepare(taps(student.eval(), inputs[:2]), teacher_output)
    output = taps(student.train(), inputs)
    task_loss = F.cross_entropy(output.logits, target, ignore_index=-1)
    total, parts = method(output, teacher_output, target, task_loss)
    total.backward()
    assert torch.isfinite(total)
    return parts


def assert_all_learn(*modules: torch.nn.Module) -> None:
    for module in modules:
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_it_learns_with_the_default_networks(path):
    torch.manual_seed(0)
    method = built(path)
    student = SmallCNN([8, 16], 32, 1, 10, 8) if path.stem in ON_MAPS else MLP([20], 64, 10)
    teacher = SmallCNN([32, 64], 128, 1, 10, 8, dropout=0.4)
    parts = one_step(method, student, teacher, torch.randn(8, 1, 8, 8))
    assert list(parts) == list(method.weights)
    assert all(parts[name].abs() > 0 for name in method.weights)
    assert_all_learn(student, method)


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_it_learns_with_cifar_networks_once_their_layers_are_named(path):
    torch.manual_seed(0)
    taps = OmegaConf.load(path).taps
    layers = {role: {tap: RESNET_LAYERS[layer] for tap, layer in taps[role].items()} for role in taps}
    method = built(path, {"method": {"taps": layers}})
    student = resnet8(num_classes=10)
    one_step(method, student, resnet14(num_classes=10), torch.randn(8, 3, 32, 32))
    assert_all_learn(student, method)


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_it_names_its_paper_and_shares_one_temperature(path):
    text = path.read_text()
    assert path.stem == "none" or re.search(r"arXiv:\d{4}\.\d{4,5}|\(CVPR\)", text.splitlines()[0])
    assert re.findall(r"^    temperature: (.*)$", text, re.MULTILINE) == ["${method.temperature}"] * text.count(
        "    temperature:"
    )
    if "${method.temperature}" in text:
        softened = built(path, {"method": {"temperature": 2.5}})
        temperatures = {term.temperature for term in softened.terms.values() if hasattr(term, "temperature")}
        assert temperatures == {2.5} == {softened.temperature}


def test_a_term_switched_off_on_the_command_line_is_not_computed():
    path = next(path for path in METHODS if path.stem == "dkd")
    method = built(path, {"method": {"weights": {"true_class": 0}}})
    assert method.active == ["other_classes"]
