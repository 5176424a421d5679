"""A layer of another teacher as what is taught: its features in the place of its answer, as embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kd_lightning.batch import Batch
from kd_lightning.errors import UserError
from kd_lightning.joints import FEATURES, LOGITS, Teacher
from kd_lightning.outputs import ModelOutput
from kd_lightning.teachers.cluster_features import Features
from kd_lightning.teachers.kind import TeacherContext, build_kind
from kd_lightning.teachers.wrapper import TeacherWrapper


class EncoderTeacher:
    """Makes an :class:`Encoder` of the teacher that ``encoder`` describes.

    Args:
        encoder: a node as under ``teacher``; its recipe may name a task of its own (``train.task``).
        layer: whose features are the embeddings; maps and tokens are averaged. None: its output.
    """

    provides = frozenset({LOGITS, FEATURES})
    labels_new_inputs = True

    def __init__(self, encoder: Mapping[str, Any], layer: str | None = None) -> None:
        self.encoder, self.layer = encoder, layer

    def make(self, context: TeacherContext) -> Teacher:
        layers = {*context.layers} - {EMBEDDING} | ({self.layer} if self.layer is not None else set())
        inner = replace(context.of_member("encoder", self.encoder, layers), needs_logits=False)
        made = build_kind(inner.config["teacher"], inner.where).make(inner)
        if made is None:
            raise UserError(f"{inner.where}: is no network: choose one, as in teacher@teacher.encoder=small_cnn")
        return Encoder(made, self.layer, context.name)


EMBEDDING = "hidden"
"""The name by which the embedding is tapped, as that of a :class:`~kd_lightning.models.backbone.Backbone`."""


class Encoder(TeacherWrapper):
    """A teacher whose logits are the embeddings (N, D), float32; they are among its features, too, as ``hidden``."""

    provides = EncoderTeacher.provides

    def __init__(self, teacher: Teacher, layer: str | None, name: str = "encoder") -> None:
        super().__init__(teacher)
        self._layer, self._name = layer, name
        self._features = Features(teacher, layer)

    @property
    def name(self) -> str:
        return self._name

    def __call__(self, batch: Batch) -> ModelOutput:
        answer = self.teacher(batch)
        rows = self._features.of_answer(answer)
        return ModelOutput(rows, {**answer.features, EMBEDDING: rows})

    def cache_parts(self) -> dict[str, Any]:
        return {"encoder": self.teacher.cache_parts(), "layer": self._layer}

    def describe(self) -> dict[str, Any]:
        encoder = self.teacher.describe()
        kept: dict[str, Any] = {key: encoder[key] for key in ("parameters", "bytes") if key in encoder}
        return {"name": self.name, **kept, "members": {"encoder": encoder}}
