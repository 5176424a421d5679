"""A kind of teacher: how one is made. ``conf/teacher/*.yaml`` name a class, whose arguments are the YAML's keys.

::

    class Table:                                         # mine/tables.py
        provides = frozenset({"logits"})
        labels_new_inputs = True

        def __init__(self, file: str) -> None: ...       # mine/teacher/table.yaml: {_target_: tables.Table, file: …}

        def make(self, context: TeacherContext) -> Teacher | None: ...

Nothing else has to be touched: the check reads the signature, a run's fingerprint the keys (a file by its content), and
what :meth:`make` returns answers in training and evaluation. Arguments that have a ``_target_`` of their own (a model, a
member of an ensemble) arrive as they stand in the YAML, for :meth:`TeacherContext.build` and its sisters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from kd_lightning.config.build import build_sized_model, build_task, instantiate
from kd_lightning.errors import UserError
from kd_lightning.joints import DataModule, Task, Teacher
from kd_lightning.outputs import ModelOutput
from kd_lightning.rng import RngStream
from kd_lightning.runs.spec import RunSpec
from kd_lightning.teachers.node import DEFAULT_KIND, arguments_of

Train = Callable[[RunSpec], Mapping[str, Any]]
Attempt = Callable[[RunSpec], None]


class TeacherKind(Protocol):
    """How teachers are made; the constructor's arguments are the YAML's keys.

    Attributes:
        provides: what the teacher's output will hold, see :class:`kd_lightning.joints.Teacher`.
        labels_new_inputs: whether it will answer for any input.
    """

    @property
    def provides(self) -> frozenset[str]: ...

    @property
    def labels_new_inputs(self) -> bool: ...

    def make(self, context: TeacherContext) -> Teacher | None:
        """The frozen teacher; None where there is to be none.

        Raises:
            UserError: it cannot be made of what the configuration says.
        """
        ...


def nothing(spec: RunSpec) -> None:
    """Tries nothing."""


def at_once() -> None:
    """Begins without a try."""


@dataclass(frozen=True)
class TeacherContext:
    """What a teacher may be made of.

    Attributes:
        config: of the run; its ``teacher`` is this teacher's node.
        datamodule: the run's data, ready.
        layers: the teacher's layers whose features some method looks at.
        train: trains a run to its end and returns its result; the same run is never trained twice.
        attempt: told of such a run before anything is written, to try it; raises where it cannot work.
        begin: called before work that takes long and is no run: tries the students first, so that what cannot work is told.
        needs_logits: whether some method reads the teacher's logits.
        where: the node's key in the configuration, for messages.
        trial: nothing is to be trained: a network answers with the weights that it starts from.
        found: run directories of teachers that were trained before, by key: taken as they are.
    """

    config: Mapping[str, Any]
    datamodule: DataModule
    layers: frozenset[str]
    train: Train
    attempt: Attempt = nothing
    begin: Callable[[], None] = at_once
    needs_logits: bool = True
    where: str = "teacher"
    trial: bool = False
    found: Mapping[str, Path] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the teacher is called."""
        node = self.config["teacher"]
        return str(node.get("name") or str(node["_target_"]).rpartition(".")[2])

    @property
    def called(self) -> str:
        """The name for messages: with the member that it is, where it is one of several."""
        within = self.where.partition(".")[2]
        return f"{self.name} ({within})" if within else self.name

    def build(self, node: Mapping[str, Any], key: str) -> Any:
        """The object of an argument's node (``_target_`` and arguments); ``key`` is the argument's name."""
        return instantiate(node, f"{self.where}.{key}")

    def build_model(self, node: Mapping[str, Any], key: str = "model", image_size: int | None = None) -> nn.Module:
        """The network of an argument's node; sizes that it leaves open come from the data, or from ``image_size``."""
        with RngStream(0):
            return build_sized_model(node, sizes_at(self.task, self.datamodule, image_size), f"{self.where}.{key}")

    @cached_property
    def task(self) -> Task:
        """The run's task, fitted to its data; ``task.encode(values)`` makes what a model answers of values of the data."""
        return build_task(self.config, self.datamodule)

    def check_output(self, output: ModelOutput, key: str = "model") -> None:
        """Raise a UserError where an output does not suit the data."""
        self.task.check_output(output, self.datamodule, f"{self.where}.{key}")

    def classes(self) -> int:
        """C, the number of the data's classes; of clusters, where the task says another.

        Raises:
            UserError: nobody knows it.
        """
        known = self.task.sizes(self.datamodule.sizes()).get("num_classes")
        if known is None:
            raise UserError(f"{self.where}: it answers for classes, and nobody knows the data's: set data.num_classes")
        return known

    def encoded(self, values: Tensor) -> Tensor:
        """Values in the data's units, (N, D), as the task's models give them (standardised, say)."""
        encoded: Tensor = self.task.encode(values)
        return encoded

    def of_member(self, key: str, node: Mapping[str, Any], layers: Iterable[str]) -> TeacherContext:
        """The context of a teacher within this one, at ``key`` below its node."""
        inner = {"_target_": DEFAULT_KIND, "name": key.rpartition(".")[2], **node}
        return replace(
            self, config={**self.config, "teacher": inner}, layers=frozenset(layers), where=f"{self.where}.{key}"
        )


def build_kind(node: Mapping[str, Any], where: str = "teacher") -> TeacherKind:
    """The kind of teacher that a node names, with its arguments."""
    kind: TeacherKind = instantiate({**arguments_of(node), "_recursive_": False}, where)
    if not callable(getattr(kind, "make", None)):
        raise UserError(f"{where}: {node['_target_']} is no kind of teacher: it has no method make(context)")
    return kind


def sizes_at(task: Task, datamodule: DataModule, image_size: int | None) -> dict[str, int]:
    """What a model may leave to data and task, where it sees images of ``image_size`` pixels a side (None: the data's)."""
    sizes = dict(task.sizes(datamodule.sizes()))
    if image_size is not None:
        sizes["image_size"] = image_size
        if "in_channels" in sizes:
            sizes["in_features"] = sizes["in_channels"] * image_size**2
    return sizes
