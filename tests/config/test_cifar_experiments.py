"""The CIFAR-100 experiments are the pairs that their names say, with the published figures that their page shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("cifar100_*.yaml"))
SMALL_STEP = ("mobilenet", "shufflenet")


def composed(name: str, *overrides: str):
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        return compose("train", overrides=[f"experiment={name}", *overrides])


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_is_the_pair_that_its_name_says(name):
    config = composed(name, "method=crd")
    student = config.student._target_.rsplit(".", 1)[1]
    teacher = config.teacher.model._target_.rsplit(".", 1)[1]
    assert name in (f"cifar100_{teacher}_{student}", f"cifar100_{teacher}_{student.removesuffix('_half')}")
    assert config.name == name
    assert config.teacher.name == teacher
    assert config.optimizer.lr == (0.01 if student.startswith(SMALL_STEP) else 0.05)
    assert (config.trainer.max_epochs, list(config.scheduler.milestones)) == (240, [150, 180, 210])
    sizes = []
    for node in (config.teacher.model, config.student):
        model = instantiate({**node, "num_classes": 100, "in_channels": 3})
        assert config.method.taps.student.embedding in dict(model.named_modules())
        sizes.append(sum(p.numel() for p in model.parameters()))
    assert sizes[0] > sizes[1]


def test_the_page_lists_every_pair_with_the_figures_of_its_file():
    rows = {
        cells[0].strip("`"): cells[1:]
        for line in (ROOT / "docs" / "cifar100.md").read_text().splitlines()
        if line.startswith("| `cifar100_")
        for cells in [[cell.strip() for cell in line.strip("| ").split("|")]]
    }
    assert sorted(rows) == NAMES
    assert len(NAMES) == 10
    for name, figures in rows.items():
        text = (ROOT / "conf" / "experiment" / f"{name}.yaml").read_text()
        published = "".join(line for line in text.splitlines() if line.startswith("#")).partition("Published")[2]
        told = re.findall(r"(?<!\d)\d\d\.\d\d(?!\d)", published)
        assert set(told) - {*figures} == set()
        assert {figures[0], figures[1], figures[2], figures[-1]} <= set(told)
