"""A teacher that clusters: an encoder's features, or the samples as they are, divided by one of scikit-learn's clusterers.

::

    training samples ─► encoder ─► principal components ─► clusterer.fit ─► scores (N, K) ─► temperature ─► soft assignments

It sees no label. What a clusterer leaves behind decides how new samples are answered:

==========================================  ==========================================================================
it has                                      score of sample x for cluster k
==========================================  ==========================================================================
``predict_proba`` (mixtures, DEC)           its log-probability
``cluster_centers_`` (k-means and kin)      minus the squared distance to the centre
``labels_`` alone (spectral, agglomerative) log share of k among the nearest training samples: a transductive clusterer
                                            answers for new samples only by keeping all training samples
==========================================  ==========================================================================

Distances have no scale of their own, so a fixed temperature means nothing: it is found by bisection, so that the mean
entropy of the soft assignments is a given share of ln K.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import hydra
import numpy as np
import torch
from torch import Tensor

from kd_lightning.batch import Batch
from kd_lightning.errors import UserError
from kd_lightning.joints import ASSIGNMENTS, LOGITS, Teacher
from kd_lightning.outputs import ModelOutput
from kd_lightning.runs.latency import parameters_count
from kd_lightning.teachers.cluster_features import Features
from kd_lightning.teachers.cluster_scores import CentreScores, NeighbourScores, ProbabilityScores, Scores
from kd_lightning.teachers.kind import TeacherContext, build_kind

log = logging.getLogger(__name__)

TINIEST, LARGEST = 1e-8, 1e12
NUMBER_OF_CLUSTERS = ("n_clusters", "n_components")


class ClusteringTeacher:
    """Makes a :class:`Clustering` of the training samples.

    Args:
        clusterer: ``_target_`` and arguments of an estimator with ``fit``.
        clusters: K, >= 2, given to the clusterer as its ``n_clusters`` or ``n_components``; None: as many as a model has
            outputs by the task, which are the data's classes (only counted; which sample has which is not looked at).
        encoder: a teacher of its own (a node as under ``teacher``) whose features are clustered; None: the samples.
        layer: of the encoder whose features these are; None: its output.
        components: so many principal components of the features are clustered, >= 1; None: the features.
        entropy: mean entropy of the soft assignments, as a share of ln K, in (0, 1); None: the scores as they are.
        neighbours: so many nearest training samples vote where a clusterer only has labels, >= 1.
        fit_samples: the clusterer gets so many of the training samples, >= 2; None: all.
    """

    provides = frozenset({LOGITS, ASSIGNMENTS})
    labels_new_inputs = True

    def __init__(
        self,
        clusterer: Mapping[str, Any],
        clusters: int | None = None,
        encoder: Mapping[str, Any] | None = None,
        layer: str | None = None,
        components: int | None = None,
        entropy: float | None = 0.15,
        neighbours: int = 10,
        fit_samples: int | None = None,
    ) -> None:
        if entropy is not None and not 0 < entropy < 1:
            raise UserError(f"teacher.entropy must be a share of ln K between 0 and 1, or null, got {entropy}")
        for key, value, least in (
            ("clusters", clusters, 2),
            ("components", components, 1),
            ("neighbours", neighbours, 1),
            ("fit_samples", fit_samples, 2),
        ):
            if value is not None and value < least:
                raise UserError(f"teacher.{key} must be >= {least}, got {value}")
        if layer is not None and encoder is None:
            raise UserError(f"teacher.layer={layer}: names a layer of teacher.encoder, and there is none")
        self.clusterer, self.clusters, self.encoder, self.layer = dict(clusterer), clusters, encoder, layer
        self.components, self.entropy, self.neighbours, self.fit_samples = components, entropy, neighbours, fit_samples

    def make(self, context: TeacherContext) -> Teacher:
        encoder = self._encoder(context)
        estimator = context.build(self._sized(context), "clusterer")
        if not callable(getattr(estimator, "fit", None)):
            raise UserError(
                f"{context.where}.clusterer: {self.clusterer.get('_target_')} is no clusterer: it has no fit"
            )
        features = Features(encoder, self.layer)
        rows = features.of_training(context.datamodule, self.fit_samples)
        if self.components is not None:
            features.reduce(rows, self.components, f"{context.where}.components")
            rows = features.projected(rows)
        if not np.isfinite(rows).all():
            raise UserError(f"{context.where}: some of the training samples' features are no finite numbers")
        if context.trial:  # shapes are what matters
            rows = rows[: max(64, 4 * _clusters(estimator))]
        scores = self._fitted(estimator, rows, context.where)
        own = scores(torch.from_numpy(rows))
        if own.shape[1] < 2:
            raise UserError(
                f"{context.where}.clusterer: {type(estimator).__name__} found {own.shape[1]} cluster; set another"
            )
        temperature = 1.0 if self.entropy is None else calibrated(own, self.entropy)
        if not context.trial:
            log.info(
                "teacher %s: %s divided %s training samples into %d clusters, temperature %.3g",
                context.name, type(estimator).__name__, f"{len(rows):,}", own.shape[1], temperature,
            )  # fmt: skip
        return Clustering(features, scores, temperature, name=context.name)

    def _encoder(self, context: TeacherContext) -> Teacher | None:
        if self.encoder is None:
            return None
        layers = () if self.layer is None else (self.layer,)
        inner = replace(context.of_member("encoder", self.encoder, layers), needs_logits=False)
        task = inner.config.get("task") or {}
        if "clusters" in task:  # that many of its features' clusters; its own outputs are as many as ever
            inner = replace(inner, config={**inner.config, "task": {**task, "clusters": None}})
        made = build_kind(inner.config["teacher"], inner.where).make(inner)
        if made is None:
            raise UserError(f"{inner.where}: is no network; encoder=null clusters the samples themselves")
        return made

    def _sized(self, context: TeacherContext) -> dict[str, Any]:
        """The clusterer's node with the number of clusters, under the name that the clusterer has for it."""
        node = dict(self.clusterer)
        takes = inspect.signature(hydra.utils.get_object(node["_target_"])).parameters
        key = next((name for name in NUMBER_OF_CLUSTERS if name in takes), None)
        if key is None or key in node:  # it finds the number itself, or is given it
            if self.clusters is not None:
                told = "finds the number itself" if key is None else f"has clusterer.{key}={node[key]} already"
                raise UserError(f"{context.where}.clusters={self.clusters}: {node['_target_']} {told}: set it to null")
            return node
        classes = context.datamodule.sizes().get("num_classes")
        outputs = context.task.sizes(context.datamodule.sizes()).get("num_classes")
        if self.clusters is not None and outputs not in (classes, self.clusters):
            raise UserError(
                f"{context.where}.clusters={self.clusters}, and task.clusters={outputs}: give the number once, as "
                f"{context.where}.clusters"
            )
        node[key] = self.clusters or outputs
        if node[key] is None:
            raise UserError(f"{context.where}.clusters: the data has no classes to count: give the number of clusters")
        return node

    def _fitted(self, estimator: Any, rows: np.ndarray, where: str) -> Scores:
        try:
            estimator.fit(rows)
        except Exception as error:  # whatever an estimator does with samples that it is not made for
            text = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(
                f"{where}.clusterer: fails on {rows.shape[0]} samples of {rows.shape[1]} values: {text[:300]}"
            ) from error
        if callable(getattr(estimator, "predict_proba", None)):
            return ProbabilityScores(estimator)
        if getattr(estimator, "cluster_centers_", None) is not None:
            return CentreScores(estimator.cluster_centers_)
        return NeighbourScores(rows, np.asarray(estimator.labels_), self.neighbours)


class Clustering:
    """A frozen division of all samples; its logits are scores over the calibrated temperature, their softmax the soft
    assignments.

    Args:
        features: what is clustered of a sample.
        scores: of rows of features, for each cluster.
        temperature: > 0.
        name: for messages and tables.
    """

    provides = ClusteringTeacher.provides
    labels_new_inputs = True

    def __init__(self, features: Features, scores: Scores, temperature: float, name: str = "clustering") -> None:
        self.features, self.scores, self.temperature, self.name = features, scores, temperature, name
        self._digest = self.scores.digest()

    def __call__(self, batch: Batch) -> ModelOutput:
        """Scores (N, K) on the device of the inputs."""
        rows = self.features(batch)
        return ModelOutput((self.scores(rows) / self.temperature).float().to(rows.device))

    def to(self, device: torch.device | str) -> Clustering:
        if self.features.encoder is not None:
            self.features.encoder.to(device)
        return self

    def verify(self) -> None:
        if self.features.encoder is not None:
            self.features.encoder.verify()
        if self.scores.digest() != self._digest:
            raise RuntimeError(f"teacher {self.name}: its clusters moved since it was fitted")

    def cache_parts(self) -> dict[str, Any]:
        encoder = None if self.features.encoder is None else self.features.encoder.cache_parts()
        return {"encoder": encoder, "scores": self._digest, "temperature": self.temperature}

    def describe(self) -> dict[str, Any]:
        encoder = {} if self.features.encoder is None else self.features.encoder.describe()
        module = getattr(self.features.encoder, "module", None)
        inside = parameters_count(module) if module is not None else int(encoder.get("parameters") or 0)
        kept = self.scores.numbers + (0 if self.features.directions is None else self.features.directions.numel())
        return {
            "name": self.name,
            "parameters": inside + kept,
            "bytes": int(encoder.get("bytes") or 0) + 4 * kept,
            "temperature": self.temperature,
            **({"members": {"encoder": encoder}} if encoder else {}),
        }


def calibrated(scores: Tensor, share: float) -> float:
    """The temperature at which the mean entropy of ``softmax(scores / T)`` is ``share * ln K``, by bisection of ln T.

    Scores (N, K). The entropy grows with T; where even the largest or smallest T does not reach it, that one is taken.
    """
    wanted = share * math.log(scores.shape[1])
    low, high = math.log(TINIEST), math.log(LARGEST)
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_entropy(scores / math.exp(middle)) < wanted else (low, middle)
    return math.exp((low + high) / 2)


def mean_entropy(logits: Tensor) -> float:
    """Mean entropy in nats of the softmax of logits (N, K)."""
    logs = torch.log_softmax(logits.double(), 1)
    return float(-(logs.exp() * logs).sum(1).mean())


def _clusters(estimator: Any) -> int:
    return int(getattr(estimator, "n_clusters", None) or getattr(estimator, "n_components", None) or 16)
