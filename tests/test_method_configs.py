"""Every shipped conf/method/*.yaml builds, learns on the models that it is meant for, and says so in its first line."""

from __future__ import annotations

import inspect
import re

import methods_page
import pytest
import torch
from hydra.utils import get_object
from method_builds import ALL, METHODS, RESNET_LAYERS, built, networks, one_step, text_of
from omegaconf import OmegaConf

from kd_lightning.models.resnet_cifar import resnet8, resnet14


def assert_all_learn(*modules: torch.nn.Module) -> None:
    for module in modules:
        for name, parameter in module.named_parameters():
            if (
                "paraphraser" in name or not parameter.requires_grad
            ):  # had a stage of its own; is the teacher's, an average
                continue
            if not parameter.requires_grad:  # follows the student
                continue
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_it_learns_with_networks_that_have_its_layers(path):
    torch.manual_seed(0)
    method = built(path)
    student, teacher = networks(path)
    parts = one_step(method, student, teacher, torch.randn(8, 1, 8, 8))
    assert set(parts) == {"task", *method.active}
    # a confident teacher is needed for some: an untrained one may be unsure of every sample; an average begins as the student
    assert all(parts[name].abs() > 0 for name in method.active if name not in ("within", "across", "mean_teacher"))
    assert_all_learn(student, method)


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_it_learns_with_cifar_networks_once_their_layers_are_named(path):
    torch.manual_seed(0)
    taps = OmegaConf.load(path).taps
    layers = {role: {tap: RESNET_LAYERS[layer] for tap, layer in taps[role].items()} for role in taps}
    node = {"taps": layers}
    if "wrap" in OmegaConf.load(path):
        node["wrap"] = {"layer": "layer3"}
    layered = {name: term.layer for name, term in OmegaConf.load(path).terms.items() if "layer" in term}
    node["terms"] = {name: {"layer": RESNET_LAYERS[layer]} for name, layer in layered.items()}
    method = built(path, {"method": node})
    student, teacher = resnet8(num_classes=10), resnet14(num_classes=10)
    if method.wrap is not None:
        method.wrap(student, teacher=teacher, example=torch.zeros(2, 3, 32, 32))
    one_step(method, student, teacher, torch.randn(8, 3, 32, 32))
    assert_all_learn(student, method)


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_it_names_its_paper_and_shares_one_temperature(path):
    text = text_of(path)
    assert path.stem == "none" or re.search(r"arXiv:\d{4}\.\d{4,5}|\((CVPR|ICLR|NeurIPS)\)", text.splitlines()[0])
    if "...temperature}" in text:  # of its own method, wherever that stands
        softened = built(path, {"method": {"temperature": 2.5}})
        assert softened.temperature == 2.5
        shared = re.findall(r"^  (\w+):\n(?:    .*\n)*?    temperature: \$\{\.+temperature\}", text, re.MULTILINE)
        assert {getattr(softened.terms[name], "temperature", 2.5) for name in shared} <= {2.5}
    else:
        assert OmegaConf.load(path).temperature is None


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_its_file_names_every_argument_of_its_terms(path):
    for name, node in OmegaConf.to_container(OmegaConf.load(path).terms, resolve=False).items():
        arguments = list(inspect.signature(get_object(node["_target_"]).__init__).parameters.values())[1:]
        named = {a.name for a in arguments if a.kind not in (a.VAR_POSITIONAL, a.VAR_KEYWORD)}
        if path.stem == "kd":  # files of one's own begin with it and put a term of theirs in its place; lskd has it
            named.discard("standardise")
        assert named <= node.keys(), f"{name}: {named - node.keys()}"


def test_a_term_switched_off_on_the_command_line_is_not_computed():
    path = next(path for path in METHODS if path.stem == "dkd")
    method = built(path, {"method": {"weights": {"true_class": 0}}})
    assert method.active == ["other_classes"]


def test_the_page_of_methods_is_the_one_that_the_files_give():
    assert methods_page.PAGE.read_text(encoding="utf-8") == methods_page.page(), "python tests/methods_page.py"


def test_every_term_is_pinned_and_every_method_on_classes_has_its_cost():
    unpinned = {path.stem for path in ALL for term in built(path).terms.values() if not methods_page.pinned_by(term)}
    assert not unpinned
    assert methods_page.costs()[1].keys() == {path.stem for path in METHODS}, (
        "benchmarks/methods.py > benchmarks/methods.txt"
    )


def test_published_figures_have_a_source_and_agree_wherever_they_stand():
    rows = methods_page.published()
    assert rows.keys() <= {path.stem for path in ALL}
    assert all(
        re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+/blob/[0-9a-f]{40}/\S+", row["source"])
        for row in rows.values()
    )
    name = "cifar100_resnet32x4_resnet8x4"
    lines = text_of(methods_page.DOCS / "cifar100.md").splitlines()
    head, row = (next(line for line in lines if line.startswith(start)) for start in ("| `experiment=`", f"| `{name}`"))
    cells = dict(
        zip((cell.strip() for cell in head.split("|")), (cell.strip() for cell in row.split("|")), strict=True)
    )
    said = {word: word.lower() for word in cells} | {"AT": "attention"}
    shown = {method: cells[word] for word, method in said.items() if word in cells and method in rows}
    assert len(shown) == 9
    assert shown == {method: rows[method]["accuracy"] for method in shown}
    stated = text_of(methods_page.TESTS.parent / "conf" / "experiment" / f"{name}.yaml")
    for word, figure in re.findall(r"(FitNet|attention|PKT|RKD|DKD) (\d\d\.\d\d)", stated):
        assert rows[word.lower()]["accuracy"] == figure
