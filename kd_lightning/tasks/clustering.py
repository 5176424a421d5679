"""Clustering: a model gives each sample a score for every cluster. No label is read but to score the result.

A student learns the clusters of a teacher that clusters (``teacher=spectral``, ``kmeans``, ``gmm``, ``dec``), as soft
assignments (``method=assignments``), and so becomes a model that assigns new samples. Left alone it learns clusters of
its own, by mutual information.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kd_lightning.batch import Batch
from kd_lightning.errors import UserError
from kd_lightning.metrics.clustering import (
    CountTable,
    adjusted_rand_index,
    distance_table,
    known_labels,
    matched_share,
    normalized_mutual_information,
    silhouettes,
)
from kd_lightning.metrics.metric import Metric
from kd_lightning.outputs import ModelOutput
from kd_lightning.tasks.base import BaseTask
from kd_lightning.tasks.classification_evaluator import at_least_float32

if TYPE_CHECKING:
    from PIL.Image import Image

    from kd_lightning.joints import DataModule, Step

COLLAPSED = 0.95
"""A division with so large a share of all samples in one cluster says nothing."""


class ClusteringTask(BaseTask):
    """Every sample belongs to one of K clusters, whose numbers mean nothing; logits (N, K) are the scores.

    The checkpoint is chosen without a label: by the agreement with the teacher, of a student alone by its own loss.
    Where no validation sample has a label, the silhouette is the headline.

    Args:
        silhouette_samples: so many of an evaluation set's first samples, as they are given to the models, count for the
            silhouette, whose cost grows with their square; 0: it is left out.
        clusters: K, >= 2, the number of outputs of all models; None: as many as the data has classes.
    """

    name = "clustering"
    monitor = "nmi"
    monitor_without_labels = "silhouette"
    choosers = ("agreement", "loss_task")
    needs_labels = False
    picture_samples = 1000
    metrics = (
        Metric("nmi", True, share=True, title="NMI"),
        Metric("cluster_acc", True, share=True, title="cluster accuracy", counted=True),
        Metric("ari", True, share=True, title="ARI"),
        Metric("silhouette", True),
        Metric("largest", None, share=True, title="largest cluster"),
        Metric("loss_task", False, title="own loss (minus mutual information)"),
        Metric("agreement", True, share=True, of="fidelity"),
        Metric("nmi_teacher", True, share=True, title="NMI with the teacher", of="fidelity"),
        *(
            Metric(
                f"teacher_{name}",
                better,
                share=name != "silhouette",
                title=f"teacher's {title}",
                of="teacher",
                like=name,
            )
            for name, better, title in (
                ("nmi", True, "NMI"),
                ("cluster_acc", True, "cluster accuracy"),
                ("ari", True, "ARI"),
                ("silhouette", True, "silhouette"),
                ("largest", None, "largest cluster"),
            )
        ),
    )

    def __init__(self, silhouette_samples: int = 500, clusters: int | None = None) -> None:
        if clusters is not None and clusters < 2:
            raise UserError(f"task.clusters must be >= 2, or null, got {clusters}")
        if silhouette_samples < 0:
            raise UserError(f"task.silhouette_samples must be >= 0, got {silhouette_samples}")
        self.clusters, self.silhouette_samples = clusters, silhouette_samples
        if not silhouette_samples:
            self.metrics = tuple(metric for metric in self.metrics if "silhouette" not in metric.name)

    def loss(self, output: ModelOutput, target: Any) -> Tensor:
        """What a student without a teacher learns from: minus the mutual information of sample and cluster.

        ``mean_i H(p_i) - H(mean_i p_i)`` in nats, in [-ln K, 0]: each assignment sure, all clusters used (Bridle, Heading &
        MacKay 1991; Krause, Perona & Gomes 2010). The target is not looked at. Logits (N, K); returns a scalar.
        """
        log_p = F.log_softmax(at_least_float32(output.logits), dim=1)
        p = log_p.exp()
        mean = p.mean(0)
        return -(p * log_p).sum(1).mean() + (mean * mean.clamp_min(torch.finfo(mean.dtype).tiny).log()).sum()

    def sizes(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """An output for each cluster."""
        return dict(sizes) if self.clusters is None else {**sizes, "num_classes": self.clusters}

    def evaluator(self) -> ClusteringEvaluator:
        """A fresh set of sums."""
        return ClusteringEvaluator(self.silhouette_samples)

    def check_output(self, output: ModelOutput, data: DataModule, where: str) -> None:
        """Raise a UserError where a model gives no score for each of at least two clusters."""
        shape = tuple(output.logits.shape)
        if len(shape) != 2 or shape[1] < 2:
            raise UserError(
                f"{where}: answers with {shape[1:]} for each sample, a clustering takes one score for each of at least two "
                "clusters: set num_classes to the number of clusters"
            )
        if self.clusters is not None and shape[1] != self.clusters:
            raise UserError(
                f"{where}: answers for {shape[1]} clusters, task.clusters={self.clusters} (what teacher.clusters says, unless it "
                "is given): give the number once, as teacher.clusters, and the model's num_classes follows"
            )

    def useless(self, metrics: Mapping[str, float], data: DataModule) -> str | None:
        """A teacher that puts nearly everything into one cluster."""
        largest = metrics.get("largest", 0.0)
        if largest < COLLAPSED:
            return None
        return (
            f"of no use as a clustering: {100 * largest:.0f} % of the samples are in one cluster; choose another clusterer, "
            "other features (teacher.encoder, teacher.components) or fewer clusters"
        )

    def predict(self, output: ModelOutput) -> Tensor:
        """The share of each cluster in each sample, (N, K); the largest is the sample's cluster."""
        return at_least_float32(output.logits).softmax(1)

    def picture(self, step: Step, data: DataModule, temperature: float) -> Image | None:
        """The samples in the plane of their two main directions, coloured by the teacher's and the student's clusters."""
        from kd_lightning.tasks.clustering_picture import cluster_picture

        teacher = None if step.teacher is None else step.teacher.logits
        return cluster_picture(_flat(step.batch.inputs), step.student.logits, teacher)


class ClusteringEvaluator:
    """Tables of counts over an evaluation set, and some of its samples for the silhouette.

    Scores against labels count labelled samples; all others count all of them.
    """

    def __init__(self, silhouette_samples: int = 500) -> None:
        self._most = silhouette_samples
        self._tables = {name: CountTable() for name in ("labels", "teacher_labels", "between", "own", "teacher_own")}
        self._kept: list[tuple[Tensor, Tensor, Tensor | None]] = []
        self._silhouettes: Tensor | None = None
        self._shares: Tensor | None = None  # summed probabilities of each cluster, then entropy and number of samples

    @torch.no_grad()
    def update(self, student: ModelOutput, teacher: ModelOutput | None, batch: Batch) -> None:
        """Add one batch: logits (N, K); a target of class numbers (N,), anything else is no label."""
        log_p = F.log_softmax(at_least_float32(student.logits), dim=1).double()
        p = log_p.exp()
        entropy, count = -(p * log_p).sum(), float(len(p))
        sums = torch.cat([p.sum(0).cpu(), torch.tensor([float(entropy), count], dtype=torch.float64)])
        self._shares = sums if self._shares is None else self._shares + sums
        mine = student.logits.argmax(1).cpu()
        theirs = None if teacher is None else teacher.logits.argmax(1).cpu()
        label = known_labels(batch.target, len(mine))
        known = label >= 0
        tables = self._tables
        tables["labels"].add(mine[known], label[known])
        tables["own"].add(mine, torch.zeros_like(mine))
        if theirs is not None:
            tables["teacher_labels"].add(theirs[known], label[known])
            tables["between"].add(mine, theirs)
            tables["teacher_own"].add(theirs, torch.zeros_like(theirs))
        self._keep(_flat(batch.inputs), mine, theirs)

    def _keep(self, samples: Tensor | None, mine: Tensor, theirs: Tensor | None) -> None:
        room = self._most - sum(len(kept) for _, kept, _ in self._kept)
        if samples is not None and room > 0:
            self._kept.append((samples[:room].float().cpu(), mine[:room], None if theirs is None else theirs[:room]))

    def sync(self, reduce: Callable[[Tensor], Tensor]) -> None:
        """Add up over processes; the silhouette becomes the mean over what each process kept."""
        for table in self._tables.values():
            table.sync(reduce)
        if self._shares is not None:
            self._shares = reduce(self._shares).cpu()
        self._silhouettes = reduce(self._silhouette_sums()).cpu()

    def compute(self) -> dict[str, float]:
        """Metrics by name; those against labels only where there were some, those of the teacher where there was one."""
        tables = {name: table.counts for name, table in self._tables.items()}
        metrics = _scores(tables["labels"], "") if tables["labels"].numel() else {}
        metrics |= {"largest": _largest(tables["own"]), "loss_task": self._loss()}
        sums = self._silhouette_sums() if self._silhouettes is None else self._silhouettes
        student_sum, student_count, teacher_sum, teacher_count = sums.tolist()
        if student_count:
            metrics["silhouette"] = student_sum / student_count
        if tables["between"].numel():
            metrics["agreement"] = matched_share(tables["between"])
            metrics["nmi_teacher"] = normalized_mutual_information(tables["between"])
            metrics["teacher_largest"] = _largest(tables["teacher_own"])
            metrics |= _scores(tables["teacher_labels"], "teacher_") if tables["teacher_labels"].numel() else {}
            if teacher_count:
                metrics["teacher_silhouette"] = teacher_sum / teacher_count
        return metrics

    def _loss(self) -> float:
        if self._shares is None:
            return math.nan
        *shares, entropy, count = self._shares.tolist()
        return entropy / count + sum(share / count * math.log(share / count) for share in shares if share > 0)

    def _silhouette_sums(self) -> Tensor:
        """Sum and number of the silhouettes kept here, of the student and of the teacher."""
        sums = torch.zeros(4, dtype=torch.float64)
        if self._kept:
            samples = torch.cat([samples for samples, _, _ in self._kept])
            distances = distance_table(samples)
            sums[:2] = _sum_and_count(silhouettes(distances, torch.cat([mine for _, mine, _ in self._kept])))
            theirs = [groups for _, _, groups in self._kept if groups is not None]
            if len(theirs) == len(self._kept):
                sums[2:] = _sum_and_count(silhouettes(distances, torch.cat(theirs)))
        return sums


def _scores(counts: Tensor, prefix: str) -> dict[str, float]:
    return {
        f"{prefix}nmi": normalized_mutual_information(counts),
        f"{prefix}cluster_acc": matched_share(counts),
        f"{prefix}ari": adjusted_rand_index(counts),
    }


def _largest(counts: Tensor) -> float:
    return float(counts.max() / counts.sum()) if counts.numel() else math.nan


def _sum_and_count(values: Tensor) -> Tensor:
    return torch.tensor([float(values.sum()), float(len(values))], dtype=torch.float64)


def _flat(inputs: Any) -> Tensor | None:
    """Samples as rows (N, D); None where inputs are no single tensor."""
    return inputs.detach().flatten(1) if isinstance(inputs, Tensor) and inputs.dim() > 1 else None
