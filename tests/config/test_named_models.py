"""``student=timm:resnet18``, ``teacher=torchvision:resnet50``, ``teacher=hf_hub:org/name``: models by one word."""

from __future__ import annotations

import json
import sys
import time
import types
import urllib.request
from urllib.error import URLError

import hub_server
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from torch import nn

from kd_lightning.cli._hydra_main import create_hydra
from kd_lightning.config import named_models as named
from kd_lightning.config.check import check
from kd_lightning.errors import UserError


@pytest.fixture
def composed():
    hydra = create_hydra("train")

    def compose(*overrides):
        cfg = hydra.compose_config("train", ["hydra.mode=RUN", "name=x", "run_dir=x", *overrides], RunMode.RUN)
        plain = cfg.copy()
        plain._set_flag("struct", False)
        del plain["hydra"]
        return plain

    yield compose
    GlobalHydra.instance().clear()


@pytest.mark.parametrize(
    "name", ["torchvision:resnet18", "torchvision:vit_b_16", "timm:vit_tiny_patch16_224.augreg_in21k"]
)
def test_a_student_of_one_word_composes_and_passes_the_check(name, composed):
    if name.startswith("timm"):
        pytest.importorskip("timm")
    cfg = composed(f"student={name}")
    check(cfg, [f"student={name}"])
    assert cfg.student.num_classes == "auto"
    assert name.partition(":")[2] in (cfg.student.get("name"), cfg.student._target_.rpartition(".")[2])
    assert ("image_size" in cfg.student) == (name == "torchvision:vit_b_16")


@pytest.mark.parametrize("name", ["torchvision:resnet50", "timm:resnet18.a1_in1k", "hf_hub:org/name"])
def test_a_teacher_of_one_word_is_taken_as_it_is(name, composed):
    cfg = composed(f"teacher={name}")
    check(cfg, [f"teacher={name}"])
    assert cfg.teacher.name == name.partition(":")[2]
    assert cfg.teacher.train is None
    assert (cfg.teacher.normalization is None) == name.startswith("hf_hub")


def test_a_teacher_within_an_ensemble_is_one_word_too(composed):
    cfg = composed("teacher=ensemble", "teacher@teacher.members.b=torchvision:resnet18")
    assert cfg.teacher.members.b.model.name == "resnet18"


def test_a_misspelt_name_is_told_with_what_was_meant(composed):
    cfg = composed("student=torchvision:resnet81")
    with pytest.raises(
        UserError, match=r"student\._target_: torchvision\.models has no 'resnet81'; did you mean 'resnet18'"
    ):
        check(cfg, ["student=torchvision:resnet81"])
    with pytest.raises(UserError, match="torchvision has no model 'resnet81'; did you mean 'resnet18'"):
        named.pretrained_torchvision("resnet81")
    with pytest.raises(
        UserError, match=r"torchvision:resnet18 has no weights 'IMAGENET1K_V9'; did you mean 'IMAGENET1K_V1'"
    ):
        named.pretrained_torchvision("resnet18", weights="IMAGENET1K_V9")


def test_without_a_connection_it_says_what_would_be_fetched_and_where_it_would_lie(monkeypatch, tmp_path):
    def unreachable(*_, **__):
        raise URLError("no route")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.setattr(torch.hub, "urlopen", unreachable)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        UserError, match=rf"https://download\.pytorch\.org/models/resnet18-.*pth into {tmp_path}.*no route"
    ):
        named.pretrained_torchvision("resnet18")


def test_a_model_of_timm_takes_classes_and_channels():
    pytest.importorskip("timm")
    model = named.timm_model("test_resnet", num_classes=3, in_channels=1)
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 3)
    with pytest.raises(UserError, match="timm has no model 'test_resnett'; did you mean 'test_resnet'"):
        named.timm_model("test_resnett", num_classes=3)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub on the loopback address, and an empty cache."""
    huggingface_hub = pytest.importorskip("huggingface_hub")
    with hub_server.hub() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.address)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield served


def weights_of(model: nn.Module) -> bytes:
    from safetensors.torch import save

    return save({name: value.contiguous() for name, value in model.state_dict().items()})


def test_a_model_of_the_hub_comes_with_its_weights_and_nothing_else_is_fetched(hub):
    timm = pytest.importorskip("timm")
    there = timm.create_model("test_resnet", num_classes=4).eval()
    config = {"architecture": "test_resnet", "num_classes": 4, "pretrained_cfg": {"mean": [0.5], "std": [0.5]}}
    files = {"config.json": json.dumps(config).encode(), "model.safetensors": weights_of(there)}
    hub.repos["org/name"] = {**files, "model.bin": b"a pickle", "model.py": b"raise SystemExit"}
    model = named.hub_model("org/name").eval()
    inputs = torch.rand(2, 3, 32, 32)
    assert torch.equal(model(inputs), there(inputs))
    fetched = {line.rpartition("/")[2] for line in hub.asked if "/resolve/" in line}
    assert fetched == {"config.json", "model.safetensors"}


@pytest.mark.parametrize(
    ("files", "line"),
    [
        (None, r"hf_hub:org/name is not here and would be fetched from http://127\.0\.0\.1:\d+/org/name"),
        ({"config.json": b"{"}, "its config.json cannot be read"),
        ({"config.json": b"{}"}, "its config.json names no architecture"),
        ({"config.json": b'{"architectures": ["EvilModel"]}'}, "transformers has no EvilModel"),
        (
            {"config.json": b'{"architecture": "test_resnet", "num_classes": 4}'},
            r"has 0 files \*\.safetensors|timm is missing",
        ),
        (
            {
                "config.json": b'{"architecture": "test_resnet", "num_classes": 4}',
                "model.safetensors": weights_of(nn.Linear(2, 2)),
            },
            "hf_hub:org/name|timm is missing",
        ),
    ],
    ids=["no such repository", "damaged", "no architecture", "code needed", "no weights", "other weights"],
)
def test_a_repository_that_cannot_be_used_is_one_line(files, line, hub, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", types.ModuleType("transformers"))  # seconds to import
    if files is not None:
        hub.repos["org/name"] = files
    with pytest.raises(UserError, match=line) as told:
        named.hub_model("org/name")
    assert "\n" not in str(told.value)


def test_what_is_waited_for_is_said_once_it_takes_long(hub, monkeypatch, caplog):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(named, "TOLD_AFTER", 0.05)

    def slow(*args, **kwargs):
        for _ in range(200):
            if caplog.records:
                break
            time.sleep(0.05)
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", slow)
    with caplog.at_level("INFO"), pytest.raises(UserError, match="which fails: no route"):
        named.hub_model("org/name")
    assert [record.getMessage() for record in caplog.records] == [
        f"hf_hub:org/name: waiting for its weights from {hub.address}/org/name"
    ]
