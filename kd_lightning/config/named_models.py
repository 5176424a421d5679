"""Other packages' models by their names: timm's, torchvision's with weights, Hugging Face's hub.

What would be fetched and cannot be is told in one line: its address, and where it would lie.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kd_lightning.config.suggestions import did_you_mean
from kd_lightning.errors import UserError
from kd_lightning.runs.weights import load_weights_file

log = logging.getLogger(__name__)

TOLD_AFTER = 4.0
"""Seconds that a model may take to be made before it is said where its weights are fetched from: clients try again for a minute."""
HUB_FILES = ["config.json", "preprocessor_config.json", "*.safetensors"]
"""What is fetched of a repository: no pickle, no code."""
CFG = "pretrained_cfg"
"""The attribute of a model in which timm keeps what its inputs are to be."""


def timm_model(
    name: str, num_classes: int | None = None, in_channels: int = 3, pretrained: bool = False, **arguments: Any
) -> nn.Module:
    """``timm.create_model``.

    Args:
        name: as timm lists it; a tag after a dot chooses weights.
        num_classes: outputs; None: as many as the pretrained model has.
        in_channels: of the images.
        pretrained: with weights, which are fetched if they are not there.
        arguments: others of ``timm.create_model``.

    Raises:
        UserError: timm is not installed, knows no such model, or cannot fetch its weights.
    """
    timm = _package("timm", "timm")
    if num_classes is not None:
        arguments["num_classes"] = num_classes
    try:
        with _told(f"timm:{name}", _timm_address(timm, name) if pretrained else None):
            model: nn.Module = timm.create_model(name, pretrained=pretrained, in_chans=in_channels, **arguments)
    except RuntimeError as error:
        if "Unknown model" not in str(error) and "Invalid pretrained tag" not in str(error):
            raise _not_fetched(f"timm:{name}", _timm_address(timm, name), error) from error
        raise UserError(f"timm has no model {name!r}{did_you_mean(name, timm.list_models(), show=0)}") from error
    except Exception as error:  # whatever the hub's client raises
        raise _not_fetched(f"timm:{name}", _timm_address(timm, name), error) from error
    return model


def pretrained_torchvision(name: str, weights: str = "DEFAULT", **arguments: Any) -> nn.Module:
    """A model of torchvision with its weights.

    Args:
        name: as in ``torchvision.models``.
        weights: which: ``DEFAULT``, ``IMAGENET1K_V1``, ….
        arguments: others of the model's.

    Raises:
        UserError: there is no such model, no such weights, or they are not there and cannot be fetched.
    """
    from torchvision import models

    if name not in models.list_models(module=models):
        raise UserError(
            f"torchvision has no model {name!r}{did_you_mean(name, models.list_models(module=models), show=0)}"
        )
    known = models.get_model_weights(name)
    chosen = known.__members__.get(weights) or (next(iter(known)) if weights == "DEFAULT" else None)
    if chosen is None:
        raise UserError(f"torchvision:{name} has no weights {weights!r}{did_you_mean(weights, known.__members__)}")
    try:
        with _told(f"torchvision:{name}", chosen.url):
            model: nn.Module = models.get_model(name, weights=chosen, **arguments)
    except OSError as error:  # URLError is one
        raise _not_fetched(
            f"torchvision:{name}", chosen.url, error, Path(torch.hub.get_dir()) / "checkpoints"
        ) from error
    return model


def hub_model(repo: str, revision: str | None = None) -> nn.Module:
    """A model of Hugging Face's hub: one of timm's or of transformers', with the weights in safetensors.

    Of the repository only ``config.json``, ``preprocessor_config.json`` and ``*.safetensors`` are fetched: nothing in it is
    executed. What its inputs are to be normalised by is kept as ``pretrained_cfg``, as timm does.

    Args:
        repo: ``org/name``.
        revision: branch, tag or commit.

    Raises:
        UserError: it cannot be fetched, says no architecture, or needs a package that is missing.
    """
    hub = _package("huggingface_hub", "hub")
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    try:
        with _told(f"hf_hub:{repo}", f"{endpoint}/{repo}"):
            folder = Path(hub.snapshot_download(repo, revision=revision, allow_patterns=HUB_FILES, endpoint=endpoint))
    except Exception as error:  # of its client: no connection, no such repository, no permission
        where = Path(hub.constants.HF_HUB_CACHE)
        raise _not_fetched(f"hf_hub:{repo}", f"{endpoint}/{repo} ({', '.join(HUB_FILES)})", error, where) from error
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"hf_hub:{repo}: its config.json cannot be read, so nobody knows what model it is") from error
    if isinstance(config, dict) and "architecture" in config:
        return _of_timm(repo, config, folder)
    if isinstance(config, dict) and config.get("architectures"):
        return _of_transformers(repo, config, folder)
    raise UserError(
        f"hf_hub:{repo}: its config.json names no architecture of timm or transformers: fetch its weights and load them "
        "into a class of yours (teacher.checkpoint=FILE)"
    )


def _of_timm(repo: str, config: dict[str, Any], folder: Path) -> nn.Module:
    arguments = config.get("model_args") or {}
    made = config.get("pretrained_cfg") or config
    model = timm_model(str(config["architecture"]), int(config["num_classes"]), **arguments)
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        raise UserError(f"hf_hub:{repo}: has {len(files)} files *.safetensors, one was expected")
    load_weights_file(model, files[0], f"hf_hub:{repo}")
    setattr(model, CFG, made)  # this repository's
    return model


def _of_transformers(repo: str, config: dict[str, Any], folder: Path) -> nn.Module:
    transformers = _package("transformers", "hub")
    name = str(config["architectures"][0])
    kind = getattr(transformers, name, None)
    if not isinstance(kind, type):
        raise UserError(f"hf_hub:{repo}: transformers has no {name}: its code would have to be executed")
    model: nn.Module = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True)  # type: ignore[attr-defined]
    with contextlib.suppress(OSError, ValueError):
        made = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
        if made.get("do_normalize", True):
            setattr(model, CFG, {"mean": made.get("image_mean"), "std": made.get("image_std")})
    return model


@contextlib.contextmanager
def _told(what: str, address: str | None) -> Iterator[None]:
    """Say what is waited for, once it takes longer than making a model does."""
    timer = threading.Timer(TOLD_AFTER, log.info, (f"{what}: waiting for its weights from {address}",))
    timer.daemon = True
    if address is not None:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _package(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f'{name} is missing: pip install "kd-lightning[{extra}]"') from error


def _timm_address(timm: Any, name: str) -> str:
    known = timm.models.get_pretrained_cfg(name, allow_unregistered=True) if timm.models.is_model(name) else None
    if known is not None and known.hf_hub_id:
        return f"https://huggingface.co/{known.hf_hub_id}"
    return str(known.url) if known is not None and known.url else "the hub"


def _not_fetched(what: str, address: str, error: Exception, where: Path | None = None) -> UserError:
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    place = f" into {where}" if where is not None else ""
    return UserError(f"{what} is not here and would be fetched from {address}{place}, which fails: {reason}")
