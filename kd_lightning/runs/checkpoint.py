"""Checkpoints on disk: written whole or not at all, read without executing anything."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from kd_lightning.errors import UserError
from kd_lightning.runs.plain_safetensors import read_safetensors

FORMAT = 1
SAVE_WEIGHTS = "save the model's state_dict() instead"
RUNS_CODE = re.compile(
    r"(__builtin__|builtins)\.(eval|exec|execfile|compile|getattr|setattr|delattr|__import__|open|input|breakpoint|apply)$"
    r"|(code|commands|ctypes|importlib|marshal|multiprocessing|nt|operator|os|pickle|pip|posix|pty|runpy|shutil|socket"
    r"|subprocess|sys|timeit|webbrowser)\."
)
"""What no checkpoint of weights needs and a pickle that was made to do harm does. Nothing of it would run: it is refused
because the file should not be trusted."""


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
        raise OSError(
            errno.EIO, f"the checkpoint could not be written, is the disk full? ({first_line(error)})", str(path)
        ) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load_checkpoint(path: Path | str, key: str = "checkpoint") -> dict[str, Any]:
    """Read a checkpoint's tensors and plain values, executing nothing.

    Objects of other classes (an ``argparse.Namespace``, a numpy scalar) stand in it as :class:`Unread`. A file that
    ends in ``.safetensors`` is read by the package of that name.

    Args:
        path: the file.
        key: configuration key that named it, for error messages.

    Raises:
        UserError: no such file, not a checkpoint, damaged, or a pickle that wants to run code.
    """
    path = Path(path)
    where = printable(f"{key}={path}")
    if path.is_dir():
        best = path / "checkpoints" / "best.ckpt"
        raise UserError(f"{where}: is a directory" + (f", give {printable(str(best))}" if best.is_file() else ""))
    if not path.is_file():
        raise UserError(f"{where}: no such file")
    try:
        content = _safetensors(path, where) if path.suffix == ".safetensors" else _pickled(path, where)
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = f"it holds an object of {printable(named.group(1))}" if named else "it is no plain checkpoint of tensors"
        raise UserError(f"{where}: refused: {what}; {SAVE_WEIGHTS}") from error
    except Exception as error:  # damaged bytes raise whatever they meet
        raise UserError(f"{where}: not a readable checkpoint ({first_line(error)})") from error
    if isinstance(content, Unread):
        raise UserError(f"{where}: holds a whole {content.name}, which only its own code could read; {SAVE_WEIGHTS}")
    if not isinstance(content, Mapping):
        raise UserError(f"{where}: holds a {printable(type(content).__name__)}, expected a state_dict")
    return dict(content)


class Unread:
    """Stands where a checkpoint has an object of a class that is not a tensor's: nothing of it was made or run.

    Attributes:
        name: of its class, printable.
    """

    name = "object"

    def __new__(cls, *args: object, **kwargs: object) -> Unread:
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Takes what the object would have been made of."""

    def __setstate__(self, state: object) -> None:
        """Leaves aside what the object would have held."""


def _pickled(path: Path, where: str) -> Any:
    """What ``torch.save`` wrote; a class that is not among torch's safe ones is replaced by an :class:`Unread`."""
    foreign = _foreign_classes(path)
    hostile = [name for name in foreign if RUNS_CODE.match(name)]
    if hostile:
        raise UserError(f"{where}: refused, it wants to run code ({printable(hostile[0])}); {SAVE_WEIGHTS}")
    stand_ins: list[Any] = [(type("Unread", (Unread,), {"name": printable(name)}), name) for name in foreign]
    safe = torch.serialization.safe_globals(stand_ins) if stand_ins else contextlib.nullcontext()
    with safe, warnings.catch_warnings():
        # What cannot be read is one line of ours, and old files are read as any other.
        warnings.filterwarnings("ignore", module=r"torch\._weights_only_unpickler")
        return torch.load(path, map_location="cpu", weights_only=True)


def _foreign_classes(path: Path) -> list[str]:
    look = getattr(torch.serialization, "get_unsafe_globals_in_checkpoint", None)  # since torch 2.6
    if look is None or not zipfile.is_zipfile(path):  # torch's older format: read only if nothing foreign is in it
        return []
    return sorted(look(path))


def _safetensors(path: Path, where: str) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError:  # it is no dependency of ours
        return read_safetensors(path)
    weights: dict[str, Tensor] = load_file(path, device="cpu")
    return weights


def model_weights(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The student's weights out of a checkpoint of ours, without its method's adapters."""
    state = content.get("state_dict")
    prefix = "student."
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)} if state else {}


def load_weights(model: nn.Module, weights: Mapping[str, Any], where: str) -> None:
    """Fill ``model`` with weights of exactly its names, or raise a UserError that says how they differ."""
    own = model.state_dict()
    missing = [name for name in own if name not in weights]
    unexpected = [name for name in weights if name not in own]
    shaped = [name for name in own if name in weights and not fits(own[name], weights[name])]
    if missing or unexpected or shaped:
        problem = (
            f"{shaped[0]} has shape {shape_of(weights[shaped[0]])}, expected {shape_of(own[shaped[0]])}"
            if shaped
            else f"{missing[0]} is missing"
            if missing
            else f"{printable(str(unexpected[0]))} is not in the model"
        )
        raise UserError(
            f"{where}: made for another architecture than {type(model).__name__} ({problem}; "
            f"{len(missing)} missing, {len(unexpected)} unexpected, {len(shaped)} of other shape)"
        )
    model.load_state_dict(dict(weights))


def fits(own: Tensor, stored: Any) -> bool:
    """Whether a stored value can fill a parameter or buffer; a lazy layer's takes any shape."""
    return isinstance(stored, Tensor) and (is_lazy(own) or own.shape == stored.shape)


def shape_of(value: Any) -> tuple[int, ...]:
    """A tensor's shape; of anything else the empty one."""
    return tuple(value.shape) if isinstance(value, Tensor) and not is_lazy(value) else ()


def printable(text: str, longest: int = 200) -> str:
    """Text out of a file that may be hostile, fit for a terminal: one line, nothing that moves the cursor."""
    shown = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def first_line(error: BaseException) -> str:
    """An error's text on one line, short enough for a terminal."""
    text = str(error).strip().splitlines()
    return printable(text[0], 160) if text and text[0] else type(error).__name__
