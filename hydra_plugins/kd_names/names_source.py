"""Names of other packages' models as options of the groups student and teacher: ``student=timm:resnet18``.

=========================  ================================================  ==================================
option                     as a student                                      as a teacher
=========================  ================================================  ==================================
``torchvision:resnet18``   with random weights, the data's classes           with its ImageNet weights
``timm:resnet18``          with random weights, the data's classes, channels with its pretrained weights
``hf_hub:org/name``        with the weights of that repository               likewise
=========================  ================================================  ==================================

Hydra loads every plugin when it starts, so nothing is imported before a model is built. A file of these names in a
folder of the user's own would come first.
"""

from __future__ import annotations

import re
from typing import Any

from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import OmegaConf

_OPTION = re.compile(r"(student|teacher)/(torchvision|timm|hf_hub):(.+?)(\.yaml)?$")
_MAKERS = "kd_lightning.config.named_models"
_IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


class NamesSource(ConfigSource):
    """Makes the option that a name stands for."""

    @staticmethod
    def scheme() -> str:
        return "kd-names"

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return False

    def is_config(self, config_path: str) -> bool:
        return _OPTION.match(config_path) is not None

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        return []  # there are thousands

    def load_config(self, config_path: str) -> ConfigResult:
        match = _OPTION.match(config_path)
        if match is None:
            raise ConfigLoadError(f"no such config: {config_path}")
        group, package, name = match[1], match[2], match[3]
        node = _student(package, name) if group == "student" else _teacher(package, name)
        return ConfigResult(
            config=OmegaConf.create(node), path=self.full_path(), provider=self.provider, header={"package": None}
        )


def _student(package: str, name: str) -> dict[str, Any]:
    if package == "hf_hub":
        return {"_target_": f"{_MAKERS}.hub_model", "repo": name}
    if package == "timm":
        return {"_target_": f"{_MAKERS}.timm_model", "name": name, "num_classes": "auto", "in_channels": "auto"}
    size = {"image_size": "auto"} if name.startswith("vit_") else {}  # the others take images of any size
    return {"_target_": f"torchvision.models.{name}", "num_classes": "auto", **size, "weights": None}


def _teacher(package: str, name: str) -> dict[str, Any]:
    models = {
        "hf_hub": {"_target_": f"{_MAKERS}.hub_model", "repo": name},
        "timm": {"_target_": f"{_MAKERS}.timm_model", "name": name, "pretrained": True},
        "torchvision": {"_target_": f"{_MAKERS}.pretrained_torchvision", "name": name},
    }
    node: dict[str, Any] = {"defaults": ["none"], "name": name, "model": models[package]}
    return node if package == "hf_hub" else {**node, "normalization": _IMAGENET}
