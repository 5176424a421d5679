"""The joints: what the parts may know of each other. Whatever is not written here, no part may assume of another.

::

    DataModule ──► Batch ──► Teacher ──► ModelOutput ─┐
                     │                                ├──► Step ──► Terms ──► loss        (every training step)
                     └─────► student ──► ModelOutput ─┤
                                                      └──► Evaluator ──► Task's metrics   (validation and test)

Protocols: a class fits by having the members, nothing has to be inherited. ``N`` samples, ``C`` classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

from kd_lightning.batch import Batch
from kd_lightning.metrics.metric import Metric
from kd_lightning.outputs import ModelOutput

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from kd_lightning.runs.spec import RunSpec

# What a teacher may provide and a method may require (ModelOutput's fields, and what they mean). Logits are good up to a
# number added to each sample's, as logarithms of probabilities are; a method that sees that number requires UNNORMALISED.
LOGITS, UNNORMALISED, PROBABILITIES, LABELS, VALUES, SPREAD, FEATURES, ASSIGNMENTS = (
    "logits",
    "unnormalised logits",
    "probabilities",
    "labels",
    "values",
    "spread",
    "features",
    "assignments",
)


class Clock(NamedTuple):
    """Where a run stands: what schedules are functions of.

    Attributes:
        epoch: finished epochs, 0 in the first one.
        step: optimizer steps taken so far.
        total_steps: optimizer steps of the whole run, >= 1.
        steps_per_epoch: optimizer steps of one epoch, >= 1.
    """

    epoch: int
    step: int
    total_steps: int
    steps_per_epoch: int


Weight = float | Callable[[Clock], float]
"""A number >= 0, or a schedule: a callable of the clock (:mod:`kd_lightning.schedules`)."""


View = tuple[ModelOutput, ModelOutput | None]
"""What student and teacher (None: nobody needs it) make of one further view of a batch's samples."""


@dataclass(frozen=True)
class Step:
    """All that a method may look at in one batch.

    Attributes:
        batch: inputs, target, index, view, split, further views.
        student: the student's output, with graph.
        teacher: the teacher's output for the same batch, detached; None where nobody asked for it.
        clock: where the run stands.
    """

    batch: Batch
    student: ModelOutput
    teacher: ModelOutput | None
    clock: Clock


class Term(Protocol):
    """A loss term: an ``nn.Module`` called as ``term(student, teacher, target)`` that returns a scalar tensor.

    A parameter of ``forward`` beyond these three is asked for by its name: ``index`` (N,), ``clock``
    (:class:`Clock`), ``views`` (a list of :data:`View`: outputs of student and teacher on the further views of the same
    samples), ``batch``. The signature is read once; what the data cannot give is an error before data is touched.

    What a term keeps between steps are its buffers: they travel in the run's checkpoint, not in an exported student.

    Optional members, looked for by name:
        needs_teacher: False for a term that uses no teacher (default True): ``teacher`` may then be None.
        takes_mixed: True for a term that is right for mixed samples (:attr:`Batch.partner_target`): it does not look at
            ``target``, or asks for ``batch`` and weighs both labels (default False: it is refused for them).
        tap_arguments: of its class: which of its arguments name a tap each, for ``method.taps=auto`` to fill in.
        requires: what it reads of the teacher's output (default ``{"logits"}``; features follow from the taps).
        temperature: how it softens the teacher's logits, a number or schedule; so does each attribute called
            ``…_temperature``, and ``temperatures``, several. Answers of which only the largest logits are known do up to
            1. A term that reads logits and has none, or ``standardise = True``, is taken to look at them as they are.
        differentiates: True for a term that differentiates the student's output by one of its features
            (``torch.autograd.grad``): its member is not computed together with others (``stacked``), and fused attention,
            which has no second derivative, is not used.
        ``prepare(student, teacher)``: build what depends on shapes, once, from outputs on an example.
        ``bind(student_model, teacher_model)``: get the models themselves (their heads and classifiers), once, after
            ``prepare`` and before the optimizer is made; a model that is kept as an attribute stays the model's own.
            ``teacher_model`` is None where there is no teacher, or none that is a module.
        ``after_step(student_model, clock)``: called after each optimizer step (EMA copies, memory banks).
    """

    def __call__(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor: ...


class Wrap(Protocol):
    """A method's ``wrap``: makes the model that is trained, evaluated and exported out of the student.

    A term's own layers (``prepare``) are left behind on export; what has to go with the student is put into it here. The
    configuration gives it with ``_partial_: true``, its settings filled in: ``method.wrap.<setting>``.
    """

    def __call__(
        self,
        student: nn.Module,
        *,
        teacher: nn.Module | None = None,
        example: Any = None,
        weights: Mapping[str, Tensor] | None = None,
    ) -> nn.Module:
        """The student, changed in place or another one; its layers' names are those that taps see.

        Args:
            student: as its configuration builds it, with random weights or those of ``init_from``.
            teacher: the teacher's network, before training; None where it is none.
            example: inputs of two samples, before training.
            weights: of the finished student, by name, in place of both: their shapes say what to build; whoever calls
                fills them in. So a run's student is opened again without its teacher.

        Raises:
            UserError: student and teacher do not fit, naming the key below ``method.wrap``.
        """
        ...


@runtime_checkable
class Teacher(Protocol):
    """Anything frozen that answers for batches.

    Attributes:
        name: for messages and tables.
        provides: what its output holds: some of ``logits``, ``probabilities``, ``labels``, ``values``, ``spread``,
            ``features``, ``assignments``.
        labels_new_inputs: whether it answers for any input (False: stored outputs know their samples only).

    Optional: ``splits``, of a teacher that does not answer for any input: of which splits it knows all samples
    ("train", and "val" and "test" where it can be measured); training samples are always known. ``finish()``: told when
    an evaluation asks it no more.
    """

    @property
    def name(self) -> str: ...

    @property
    def provides(self) -> frozenset[str]: ...

    @property
    def labels_new_inputs(self) -> bool: ...

    def __call__(self, batch: Batch) -> ModelOutput:
        """Its output for a batch, detached and on the batch's device; ``(batch.split, batch.index, batch.view)`` names the input
        exactly."""
        ...

    def to(self, device: torch.device | str) -> Teacher:
        """Move to a device, in place."""
        ...

    def verify(self) -> None:
        """Raise if anything that decides its outputs moved since it was frozen."""
        ...

    def cache_parts(self) -> dict[str, Any]:
        """All that its outputs depend on, its code included: part of the key under which they are stored."""
        ...

    def describe(self) -> dict[str, Any]:
        """What ``result.json`` says of it: parameters, bytes, fingerprint, …"""
        ...


@runtime_checkable
class ModuleTeacher(Protocol):
    """A teacher that is one network: terms may look at its layers (their ``bind``)."""

    @property
    def module(self) -> nn.Module: ...


class Evaluator(Protocol):
    """Sums over an evaluation set."""

    def update(self, student: ModelOutput, teacher: ModelOutput | None, batch: Batch) -> None:
        """Add one batch."""
        ...

    def sync(self, reduce: Callable[[Tensor], Tensor]) -> None:
        """Add up over processes: ``reduce`` sums a tensor over all of them."""
        ...

    def compute(self) -> dict[str, float]:
        """Metrics by name: those that the task declares; a metric of the teacher only where there was one."""
        ...


class Task(Protocol):
    """One kind of problem. Everything that is particular to it is in its one file.

    Attributes:
        name: "classification", …
        metrics: every figure that its evaluator may return; written into ``result.json``, where all readers find them.
        monitor: the name of the student's metric that tables are about and that chooses the best checkpoint; it has a
            direction.

    Optional members, looked for by name:
        monitor_without_labels: takes the monitor's place where no validation sample has a label.

    So are the members below ``picture``, whose defaults are :class:`kd_lightning.task_parts.TaskParts`: they are for tasks
    whose models answer in other units than the data's, or with several parts in one tensor. ``read`` is applied to whatever
    a student or a network as teacher returns; what losses, terms, stored answers and evaluators see has been read. A
    teacher that is no network answers in the models' units: ``task.encode(values)`` makes them of the data's.

    Attributes:
        provides: what a network's output holds once it was read (:attr:`Teacher.provides` of networks that say "logits").
        picture_samples: how many samples its picture wants to see, where ``pictures.samples`` would be too few.
        choosers: names of metrics with a direction, the first of which that there is a figure of chooses the best
            checkpoint in the monitor's place: of a task whose training must not look at labels.
        needs_labels: False: its ``loss`` does not look at the target, and learns where no sample has a label.
        takes_mixed: True: there is a ``mixed_loss``; else samples mixed two by two are refused. Said beside the ``loss``
            that it goes with: who overrides that one says it again.
        learns_alone: False: there is no ``loss`` to speak of; who learns from nothing else is refused.
    """

    name: str
    monitor: str
    provides: frozenset[str]
    picture_samples: int
    choosers: Sequence[str]
    needs_labels: bool
    takes_mixed: bool
    learns_alone: bool

    @property
    def metrics(self) -> Sequence[Metric]: ...

    def loss(self, output: ModelOutput, target: Any) -> Tensor:
        """The hard loss: a scalar; samples without ground truth are left out."""
        ...

    def mixed_loss(self, output: ModelOutput, target: Tensor, partner_target: Tensor, weight: Tensor) -> Tensor:
        """The hard loss of mixed samples (:attr:`Batch.partner_target`): a scalar; halves without ground truth are left out."""
        ...

    def evaluator(self) -> Evaluator:
        """A fresh set of sums."""
        ...

    def check_output(self, output: ModelOutput, data: DataModule, where: str) -> None:
        """Raise a UserError where a model's output does not suit the data; ``where`` is its configuration key."""
        ...

    def useless(self, metrics: Mapping[str, float], data: DataModule) -> str | None:
        """Words of warning if a teacher with these validation metrics has nothing to teach; else None."""
        ...

    def picture(self, step: Step, data: DataModule, temperature: float) -> Image | None:
        """The step's samples and what both models make of them; None where there is nothing to draw."""
        ...

    def fit(self, data: DataModule) -> None:
        """Learn what the task needs of the training data's targets, once, before anything else is asked."""
        ...

    def fitted(self) -> Mapping[str, Any]:
        """What :meth:`fit` learned, as plain values; kept in ``result.json`` as ``fitted``."""
        ...

    def restore(self, fitted: Mapping[str, Any]) -> None:
        """Take up what :meth:`fitted` gave, where there is no data."""
        ...

    def sizes(self, sizes: Mapping[str, int]) -> Mapping[str, int]:
        """The data's sizes (:meth:`DataModule.sizes`) as a model is to have them: its number of outputs."""
        ...

    def read(self, output: ModelOutput) -> ModelOutput:
        """A model's output with its parts in their places; one that was read comes back as it is."""
        ...

    def encode(self, target: Any) -> Any:
        """Values in the data's units, a target's or a teacher's that is no network, in those in which models answer."""
        ...

    def for_terms(self, target: Any) -> Any:
        """A target as loss terms are given it."""
        ...

    def predict(self, output: ModelOutput) -> Tensor:
        """What a user wants of an output that was read, in the data's units: (N, ...)."""
        ...

    def deviation(self, output: ModelOutput) -> Tensor | None:
        """Standard deviations (N, ...) of what :meth:`predict` gives, in its units; None: the output says nothing of them."""
        ...

    def exported(self, output: ModelOutput) -> Tensor:
        """The one tensor (N, ...) with which an exported student answers, of an output that was read."""
        ...

    def imported(self, answer: Tensor) -> ModelOutput:
        """The output, as :meth:`read` gives it, that such a tensor stands for."""
        ...

    def describe_exported(self) -> Mapping[str, Any]:
        """What that tensor means, plain: for ``preprocessing.json``."""
        ...

    def recode(self, output: ModelOutput, fitted: Mapping[str, Any]) -> ModelOutput:
        """An output, read, of a model that was trained under another fit, in the units of this one.

        Raises:
            UserError: it cannot be converted.
        """
        ...


@runtime_checkable
class DataModule(Protocol):
    """Where batches come from: a LightningDataModule with fixed splits and reproducible views.

    Attributes:
        class_names: names of the classes, or None.
        mean, std: per channel, by which the inputs were normalised; None where nobody knows.
        views: how often a sample's augmented view changes: 1 never, K cycles, 0 a fresh one each epoch.
        extra_views: how many further views of the same samples a training batch has (:attr:`Batch.also`).

    Optional:
        mixing: what mixes the training samples (its ``keys`` name it in messages), None where nothing does.
        repeats: how many views of a sample a training batch holds as samples of their own; None: one.
    """

    class_names: Sequence[str] | None
    mean: Sequence[float] | None
    std: Sequence[float] | None
    views: int
    extra_views: int

    def sizes(self) -> dict[str, int]:
        """What a model's configuration may leave to the data (``num_classes``, ``in_channels``, …), by name.

        What the data does not have is absent.
        """
        ...

    def prepare_data(self) -> None:
        """Fetch what is not there; called once, by one process."""
        ...

    def setup(self, stage: str) -> None:
        """Make the splits ready; "fit" comes before anything else is asked, and more than once does no harm."""
        ...

    def example_batch(self) -> Batch:
        """Two samples, to infer shapes from."""
        ...

    def labelled_in(self, split: str) -> int:
        """How many samples of ``split``, "train", "val" or "test", have a label."""
        ...

    def train_targets(self) -> Tensor | None:
        """The training samples' targets, (N, ...), hidden ones hidden; None where they are not known before they are read."""
        ...

    def describe(self) -> dict[str, Any]:
        """What ``result.json`` says of the data: sizes, class names, normalisation, the form of the inputs."""
        ...

    def summary(self) -> str:
        """One line to show before training: samples, labels, inputs, and what a user should know of them."""
        ...

    def train_dataloader(self) -> Any: ...

    def val_dataloader(self) -> Any: ...

    def test_dataloader(self) -> Any: ...

    def data_fingerprint(self) -> str:
        """Hex digest of the training samples, their targets, and which were chosen."""
        ...

    def view_fingerprint(self) -> str:
        """Hex digest of transform, augmentation, its seed and the number of views."""
        ...


class Judge(Protocol):
    """Decides whether a run is worth its remaining epochs: a search's trial, for example."""

    def report(self, epoch: int, value: float) -> None:
        """The monitored metric after so many epochs. All runs of a group report before the first of them asks."""
        ...

    def stop(self) -> bool:
        """Whether the run shall end here, as "pruned"."""
        ...


class Handle(Protocol):
    """A group of runs that was submitted."""

    def results(self) -> Iterator[dict[str, Any]]:
        """Each run's result, as ``result.json`` has it, as soon as it is there; over when the group has ended.

        Raises:
            UserError: a mistake of the user's keeps every run of the group that is left from going on.
            RunInterrupted: the group was stopped; its runs continue when they are submitted again.
        """
        ...

    def cancel(self) -> None:
        """Stop what has not ended yet; the state of runs that have begun is kept."""
        ...


class Executor(Protocol):
    """Runs groups of runs somewhere: in this process, on a cluster.

    A ``directory`` in its signature is filled in with the sweep's, or the single run's: where files of its own go.

    Attributes:
        fuse: whether runs that can train in lockstep are to be handed over as one group; else each is its own.
    """

    fuse: bool

    def submit(self, groups: Iterable[Sequence[RunSpec]], after: Sequence[Handle] = ()) -> Sequence[Handle]:
        """Start the groups once everything in ``after`` has ended; one handle a group.

        Whoever computes a group calls :func:`kd_lightning.running.run_group.run_group` with it, in any process.

        Raises:
            Submitted: everything was handed to others, who go on without this process: there is nothing to wait for.
            NothingRun: it was to say only what it would do.
        """
        ...


@runtime_checkable
class Exporter(Protocol):
    """A form in which a student leaves us, as one file; made without arguments.

    Attributes:
        suffix: of the file's name, with its dot: ".onnx".
        holds_graph: whether the file holds the computation; False: weights alone, read into the student's own class.
    """

    suffix: str
    holds_graph: bool

    def write(self, model: nn.Module, example: Any, path: Path) -> None:
        """Write ``model``, on the CPU and in eval mode, as ``path``; it takes any number of inputs like ``example``: a tensor
        (N, ...), or of texts a mapping of tensors (N, L), which are arguments of its ``forward`` by name.

        With a graph the model returns the logits, one tensor (N, ...); without, it is the student itself.
        """
        ...

    def open(self, path: Path, model: nn.Module) -> Callable[[Any], Any]:
        """What the file answers for a batch of inputs, for any number of samples.

        ``model`` is a freshly made student, for files without a graph.
        """
        ...
