"""Objects that Python hands over (a module, a data set) as nodes of a configuration.

::

    Net()                 {_target_: kd_lightning.config.given.copied, path: my_models.Net, content: 9f3c…}
    lambda: Net()         {_target_: kd_lightning.config.given.made, …}      called under the run's seed
    a data set            {_target_: kd_lightning.config.given.itself, …}

A configuration is plain values, so a node names its object by the digest of what is in it, and by where its class is
written. The digest is part of the run's identity, as a file's content is. Objects are found in this process only, as long
as somebody keeps them: nothing is pickled.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import inspect
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import nn

from kd_lightning.config.source import GIVEN
from kd_lightning.data.content import code_digest, items_digest, state_digest
from kd_lightning.data.loader.foreign import ForeignCode
from kd_lightning.errors import UserError
from kd_lightning.rng import RngStream
from kd_lightning.tensor_bytes import bytes_of

_ITEMS = 64
"""Items of a data set that are read for its digest; the tensors and arrays that it keeps all count."""

_objects: WeakValueDictionary[tuple[str, int], Any] = WeakValueDictionary()
"""(digest, id) -> object: equal ones stand side by side, so that one that goes takes no other's place along."""


def node_of_module(module: nn.Module) -> dict[str, str]:
    """The node that stands for copies of a module, as it is now."""
    return _node("copied", module, type(module), module_digest(module))


def node_of_function(make: Callable[[], Any], where: str) -> dict[str, str]:
    """The node that stands for what a function makes; it is called once here, under a seed, to see what that is.

    Raises:
        UserError: it fails, or makes no module; ``where`` names it.
    """
    try:
        with RngStream(0):
            made = make()
    except Exception as error:
        line = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{where}: the function that makes it fails: {line[:300]}") from error
    if not isinstance(made, nn.Module):
        raise UserError(f"{where}: the function gave a {type(made).__name__}, expected a torch.nn.Module")
    return _node("made", make, type(made), digest_of(module_digest(made), code_digest(make)))


def node_of_dataset(dataset: Any, seed: int = 0) -> dict[str, str]:
    """The node that stands for a data set; what is random in its items is drawn under ``seed`` for the digest."""
    rows = torch.linspace(0, len(dataset) - 1, min(_ITEMS, len(dataset)), dtype=torch.float64).round().long()
    state = state_digest(dataset)
    with ForeignCode(dataset, seed, 0).turn() as turn:
        items = items_digest(rows, lambda row: turn.sample(row, lambda: dataset[row]))
    return _node("itself", dataset, type(dataset), digest_of(state, items, len(dataset)))


def node_of_callable(function: Any) -> dict[str, str]:
    """The node that stands for a function itself (a collate function)."""
    return _node(
        "itself", function, function if hasattr(function, "__qualname__") else type(function), code_digest(function)
    )


def copied(path: str, content: str) -> Any:
    """A copy of the module that was given.

    Raises:
        UserError: this process does not have it, or it is not as it was.
    """
    for module in _found(path, content):
        if module_digest(module) == content:
            return copy.deepcopy(module)
    raise UserError(f"{path}: the module was changed since it was given: give it again")


def made(path: str, content: str) -> Any:
    """What the function that was given makes now."""
    return _found(path, content)[0]()


def itself(path: str, content: str) -> Any:
    """The object that was given."""
    return _found(path, content)[0]


def digest_of(*parts: Any) -> str:
    """32 hexadecimal digits of some texts and numbers."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def module_digest(module: nn.Module) -> str:
    """32 hexadecimal digits of a module: its structure, the code of its classes, its weights and buffers."""
    digest = hashlib.blake2b(repr(module).encode(), digest_size=16)
    for part in {type(part): part for part in module.modules()}.values():
        digest.update(_code(part).encode())
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        if isinstance(value, torch.Tensor):
            digest.update(f"{tuple(value.shape)}{value.dtype}".encode())
            digest.update(bytes_of(value).tobytes())
    return digest.hexdigest()


def _code(part: nn.Module) -> str:
    """What a module's class computes: its source where that can be read, else what its methods were compiled to."""
    kind = type(part)
    with contextlib.suppress(OSError, TypeError):
        inspect.getsource(kind)
        return code_digest(part)
    codes = [(name, f.__code__) for name, f in vars(kind).items() if inspect.isfunction(f)]
    return repr([(name, code.co_code, repr(code.co_consts), code.co_names) for name, code in codes])


def _node(function: str, value: Any, kind: Any, content: str) -> dict[str, str]:
    _objects.pop((content, id(value)), None)  # what is given last is asked first
    _objects[content, id(value)] = value
    return {"_target_": f"{GIVEN}{function}", "path": f"{kind.__module__}.{kind.__qualname__}", "content": content}


def _found(path: str, content: str) -> list[Any]:
    """The objects of a digest that somebody keeps, the one given last in front."""
    found = [value for (digest, _), value in reversed(list(_objects.items())) if digest == content]
    if not found:
        raise UserError(
            f"{path} was given as an object in Python, which this process does not have: give it again (an opened run's "
            "student: kd.open_run(RUN_DIR, student=...)), or name it by a _target_"
        )
    return found


def is_importable(made_by: Any) -> bool:
    """Whether a class or function can be named in a configuration: it stands at the top of a module of its own."""
    module, name = getattr(made_by, "__module__", None), getattr(made_by, "__qualname__", "")
    if module in (None, "__main__", "builtins") or not name.replace(".", "_").isidentifier():
        return False
    found: Any = inspect.getmodule(made_by)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is made_by
