"""Representations: a model gives each sample an embedding; no label is read but to score it.

There is no loss of the task's own: a student learns from a teacher's embeddings (``method=embedding``, ``seed``, ``rkd``,
``compress``), or from itself (``method=dino``). Scores are those of the standard protocols, within the evaluation set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kd_lightning.batch import Batch
from kd_lightning.errors import UserError
from kd_lightning.metrics.clustering import known_labels
from kd_lightning.metrics.embeddings import (
    dimensions_in_use,
    few_label_probe,
    neighbour_hits,
    neighbours_in_common,
    probe_hits,
)
from kd_lightning.metrics.metric import Metric
from kd_lightning.outputs import ModelOutput
from kd_lightning.tasks.base import BaseTask

if TYPE_CHECKING:
    from PIL.Image import Image

    from kd_lightning.joints import DataModule, Step

LEAST = 10
"""Samples with a label (or at all) that a score needs."""


class RepresentationTask(BaseTask):
    """An embedding (N, D) for each sample, the output of a network without its classifier (``student=backbone``).

    The checkpoint is chosen without a label: by the neighbours in common with the teacher; without a teacher it is the
    last one. Where no validation sample has a label, neighbours in common are the headline.

    Args:
        neighbours: nearest others that vote on a label, and that are compared with the teacher's, >= 1.
        samples: so many of an evaluation set's first samples are measured, >= 20: the cost grows with their square.
        probe_labels: on how many samples of the evaluation set the linear probe is fitted, >= 10; it is tried on the others,
            and there is no such figure where there are none. None: on four fifths.
    """

    name = "representation"
    monitor = "knn"
    monitor_without_labels = "agreement"
    choosers = ("agreement", "measured")  # the second is always the same, and of equals the later is kept
    needs_labels = False
    learns_alone = False
    picture_samples = 1000
    metrics = (
        Metric("knn", True, share=True, title="kNN accuracy", counted=True),
        Metric("probe", True, share=True, title="linear probe"),
        Metric("dimensions", None, title="dimensions in use"),
        Metric("measured", True, title="samples measured"),
        Metric("agreement", True, share=True, title="neighbours in common", of="fidelity"),
        Metric("teacher_knn", True, share=True, title="teacher's kNN accuracy", of="teacher", like="knn"),
        Metric("teacher_probe", True, share=True, title="teacher's linear probe", of="teacher", like="probe"),
        Metric("teacher_dimensions", None, title="teacher's dimensions in use", of="teacher", like="dimensions"),
    )

    def __init__(self, neighbours: int = 10, samples: int = 5000, probe_labels: int | None = None) -> None:
        for key, value, least in (
            ("neighbours", neighbours, 1),
            ("samples", samples, 20),
            ("probe_labels", probe_labels, LEAST),
        ):
            if value is not None and value < least:
                raise UserError(f"task.{key} must be >= {least}, got {value}")
        self.neighbours, self.samples, self.probe_labels = neighbours, samples, probe_labels

    def loss(self, output: ModelOutput, target: Any) -> Tensor:
        """Always 0: embeddings are learned from a teacher, or by a method that needs none."""
        return 0.0 * output.logits.float().sum()

    def evaluator(self) -> RepresentationEvaluator:
        """A fresh collection of embeddings."""
        return RepresentationEvaluator(self.neighbours, self.samples, self.probe_labels)

    def check_output(self, output: ModelOutput, data: DataModule, where: str) -> None:
        """Raise a UserError where a model does not give one vector a sample."""
        if output.logits.dim() != 2:
            raise UserError(
                f"{where}: answers with {tuple(output.logits.shape[1:])} for each sample, a representation is one vector: "
                "take the network without its classifier (student=backbone, teacher=backbone)"
            )

    def useless(self, metrics: Mapping[str, float], data: DataModule) -> str | None:
        """A teacher whose embeddings lie on a line."""
        if metrics.get("dimensions", math.inf) >= 1.5:
            return None
        return (
            f"of no use as an encoder: its embeddings use {metrics['dimensions']:.1f} dimensions (they have collapsed); check its "
            "weights and its normalization (teacher.normalization)"
        )

    def picture(self, step: Step, data: DataModule, temperature: float) -> Image | None:
        """Each model's embeddings in the plane of their own two main directions, coloured by label, if there are any."""
        from kd_lightning.tasks.clustering_picture import Panel, panels_side_by_side

        labels = known_labels(step.batch.target, len(step.student.logits))
        what, groups = "classes" if bool((labels >= 0).any()) else "colour (no labels)", labels.clamp_min(0)
        panels = [Panel("student", step.student.logits, groups, what)]
        if step.teacher is not None:
            panels.insert(0, Panel("teacher", step.teacher.logits, groups, what))
        return panels_side_by_side(panels)


class RepresentationEvaluator:
    """Embeddings of an evaluation set's first samples, kept and measured at its end.

    In a distributed run each process measures what it has seen, and the figures' mean is taken, weighted by samples.
    """

    def __init__(self, neighbours: int = 10, samples: int = 5000, probe_labels: int | None = None) -> None:
        self._neighbours, self._most, self._probe_labels = neighbours, samples, probe_labels
        self._kept: list[tuple[Tensor, Tensor | None, Tensor]] = []
        self._seen = 0
        self._reduced: dict[str, float] | None = None

    @torch.no_grad()
    def update(self, student: ModelOutput, teacher: ModelOutput | None, batch: Batch) -> None:
        """Add one batch: embeddings (N, D) of the student, (N, D') of the teacher; a target of class numbers (N,)."""
        room = self._most - self._seen
        if room <= 0:
            return
        theirs = None if teacher is None else teacher.logits[:room].float().cpu()
        labels = known_labels(batch.target, len(student.logits))[:room]
        self._kept.append((student.logits[:room].float().cpu(), theirs, labels))
        self._seen += len(labels)

    def sync(self, reduce: Callable[[Tensor], Tensor]) -> None:
        """Mean over processes: ``reduce`` sums a tensor over all of them."""
        mine = self.compute()
        names = [metric.name for metric in RepresentationTask.metrics]
        sums = torch.tensor(
            [[mine.get(n, 0.0) * self._seen, self._seen * (n in mine)] for n in names], dtype=torch.float64
        )
        total = reduce(sums).cpu()
        self._reduced = {n: float(row[0] / row[1]) for n, row in zip(names, total, strict=True) if float(row[1])}

    def compute(self) -> dict[str, float]:
        """Metrics by name, shares in [0, 1]; those against labels only where there were some."""
        if self._reduced is not None:
            return self._reduced
        metrics = {"measured": float(self._seen)}
        if not self._seen:
            return metrics
        ours, labels = (torch.cat([kept[part] for kept in self._kept]) for part in (0, 2))  # type: ignore[misc]  # no None there
        teachers = [theirs for _, theirs, _ in self._kept if theirs is not None]
        theirs = torch.cat(teachers) if len(teachers) == len(self._kept) else None
        metrics |= self._scores(ours, labels, "")
        if theirs is not None:
            metrics |= self._scores(theirs, labels, "teacher_")
            if self._seen > 1:
                metrics["agreement"] = float(neighbours_in_common(ours, theirs, self._neighbours).mean())
        return metrics

    def _scores(self, embeddings: Tensor, labels: Tensor, prefix: str) -> dict[str, float]:
        if not torch.isfinite(embeddings).all():
            return {f"{prefix}{name}": math.nan for name in ("dimensions", "knn", "probe")}
        found = {f"{prefix}dimensions": dimensions_in_use(embeddings)}
        known = labels >= 0
        if int(known.sum()) >= LEAST:
            rows, classes = embeddings[known], labels[known]
            found[f"{prefix}knn"] = float(neighbour_hits(rows, classes, self._neighbours).double().mean())
            if self._probe_labels is None:
                found[f"{prefix}probe"] = float(probe_hits(rows, classes).double().mean())
            elif self._probe_labels < len(rows):
                found[f"{prefix}probe"] = few_label_probe(rows, classes, self._probe_labels)
        elif bool(known.any()):  # too few to say anything
            found |= {f"{prefix}knn": math.nan, f"{prefix}probe": math.nan}
        return found
