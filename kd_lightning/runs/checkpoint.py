"""Checkpoints on disk: written whole or not at all, read without executing anything."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.errors import UserError

FORMAT = 1


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` (tensors and plain Python) so that ``path`` always holds a complete checkpoint.

    Raises:
        OSError: the disk is full or not writable; the previous checkpoint stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save({"format": FORMAT, **content}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError of its zip writer
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise
        raise OSError(f"{path}: could not write the checkpoint ({first_line(error)})") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load_checkpoint(path: Path | str, key: str = "checkpoint") -> dict[str, Any]:
    """Read a checkpoint with ``weights_only=True``.

    Args:
        path: the file.
        key: configuration key that named it, for error messages.

    Raises:
        UserError: no such file, not a checkpoint, damaged, or a pickle that wants to run code.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{key}={path}: no such file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{key}={path}: refused, it is no plain checkpoint of tensors ({first_line(error)}); "
            "save the model's state_dict() instead"
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{key}={path}: not a readable checkpoint ({first_line(error)})") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{key}={path}: holds a {type(content).__name__}, expected a state_dict")
    return dict(content)


def model_weights(content: Mapping[str, Any], prefix: str = "student.") -> dict[str, Tensor]:
    """A model's weights out of a checkpoint of this project, of Lightning, or a bare state_dict."""
    state = content
    for name in ("state_dict", "model", "model_state_dict"):
        if isinstance(content.get(name), Mapping):
            state = content[name]
            break
    for start in (prefix, "module.", "model.", "net."):
        inner = {k[len(start) :]: v for k, v in state.items() if k.startswith(start)}
        if inner and (start == prefix or len(inner) == len(state)):
            return inner
    return dict(state)


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Fill ``model``, or raise a UserError that says how the checkpoint differs from it."""
    own = model.state_dict()
    missing = [k for k in own if k not in weights]
    unexpected = [k for k in weights if k not in own]
    shaped = [k for k in own if k in weights and own[k].shape != getattr(weights[k], "shape", None)]
    if missing or unexpected or shaped:
        problem = (
            f"{shaped[0]} has shape {tuple(getattr(weights[shaped[0]], 'shape', ()))}, "
            f"expected {tuple(own[shaped[0]].shape)}"
            if shaped
            else f"{missing[0]} is missing"
            if missing
            else f"{unexpected[0]} is not in the model"
        )
        raise UserError(
            f"{where}: made for another architecture than {type(model).__name__} ({problem}; "
            f"{len(missing)} missing, {len(unexpected)} unexpected, {len(shaped)} of other shape)"
        )
    model.load_state_dict(dict(weights))


def first_line(error: BaseException) -> str:
    """An error's text on one line, short enough for a terminal."""
    text = str(error).strip().splitlines()
    return (text[0][:160] if text else "") or type(error).__name__
