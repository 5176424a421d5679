"""A fitted estimator as a teacher: training samples are answered by copies that had not seen them."""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_lightning.batch import UNLABELLED, Batch
from kd_lightning.data.samples import by_themselves
from kd_lightning.errors import UserError
from kd_lightning.joints import LABELS, PROBABILITIES, VALUES
from kd_lightning.outputs import ModelOutput
from kd_lightning.teachers.arrays import PROVIDES, as_output, rows_of
from kd_lightning.teachers.folds import fold_numbers, together
from kd_lightning.teachers.frozen import TeacherChanged, batch_device
from kd_lightning.teachers.kind import TeacherContext
from kd_lightning.teachers.temperature import fitted_temperature

log = logging.getLogger(__name__)

_READ = 4096
_PROBED = 16  # training samples whose answers show whether an estimator moved
NO_FOLD = -1


class FittedEstimator:
    """Answers with an estimator; a training sample with the copy that was fitted without it, where there is one.

    Args:
        estimator: fitted to all training samples.
        holds: what its answers are: probabilities, labels, or values.
        context: of the teacher that is made.
        copies: by fold, fitted to the training samples of the other folds.
        fold_of: of each of the student's training samples, int64 of shape (N,), ``NO_FOLD``: the estimator answers.
        inputs: which of the data's inputs by name it takes.
        origin: what :meth:`describe` says beside its own.
        own_classes: it was fitted elsewhere: its classes have to be found among the data's.
    """

    labels_new_inputs = True

    def __init__(
        self,
        estimator: Any,
        holds: str,
        context: TeacherContext,
        copies: Sequence[Any] = (),
        fold_of: Tensor | None = None,
        inputs: str | None = None,
        origin: Mapping[str, Any] | None = None,
        own_classes: bool = False,
    ) -> None:
        self.name, self.provides = context.name, PROVIDES[holds]
        self._estimator, self._copies, self._fold_of, self._inputs = estimator, list(copies), fold_of, inputs
        self._holds, self._context, self._where = holds, context, context.where
        self._classes = None if holds == VALUES else context.classes()
        self._own_classes = own_classes
        self._origin = dict(origin or {})
        self.temperature = 1.0
        self._samples = training_samples(context.datamodule)
        inputs_, target = self._samples.read(self._probes(), 0)
        self._probe = Batch(inputs_, target, self._probes(), 0, "train")
        self._digest = self._answer_digest()
        if self._answer_digest() != self._digest:
            raise UserError(
                f"{self._where}: {type(estimator).__name__} answers otherwise when it is asked the same again, so that nobody could "
                "say what the student learned from: make its answers reproducible (a seed, temperature 0), or ask it once and "
                "give the file, teacher=stored teacher.file=…"
            )

    def _probes(self) -> Tensor:
        samples = len(self._samples)
        return torch.linspace(0, samples - 1, min(_PROBED, samples)).round().long()

    @torch.no_grad()
    def __call__(self, batch: Batch) -> ModelOutput:
        """Logits (N, C): the logarithm of probabilities at :attr:`temperature`; of a regression values (N, D)."""
        rows = rows_of(batch.inputs, self._inputs, self._where)
        answers = as_output(self._numbers(rows, self._folds(batch)), self._holds, self._classes).logits
        if self._holds == VALUES:
            answers = self._context.encoded(answers)
        return ModelOutput((answers / self.temperature).to(batch_device(batch.inputs)))

    def _folds(self, batch: Batch) -> np.ndarray | None:
        if self._fold_of is None or batch.split != "train" or batch.index is None:
            return None
        folds: np.ndarray = self._fold_of[batch.index.cpu()].numpy()
        return folds

    def _numbers(self, rows: np.ndarray, folds: np.ndarray | None) -> np.ndarray:
        if folds is None:
            return self._of(self._estimator, rows)
        made: np.ndarray | None = None
        for fold in np.unique(folds):
            places = folds == fold
            part = self._of(self._estimator if fold == NO_FOLD else self._copies[fold], rows[places])
            if made is None:
                made = np.zeros((len(rows), *part.shape[1:]), part.dtype)
            made[places] = part
        assert made is not None
        return made

    def _of(self, estimator: Any, rows: np.ndarray) -> np.ndarray:
        """What one estimator says: probabilities (N, C), class numbers (N,) or values (N, D)."""
        try:
            said = estimator.predict_proba(rows) if self._holds == PROBABILITIES else estimator.predict(rows)
        except Exception as error:  # whatever the estimator does
            text = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(
                f"{self._where}: {type(estimator).__name__} cannot answer for inputs of shape {rows.shape}: {text[:200]}"
            ) from error
        answers = np.asarray(said)
        if self._holds == VALUES:
            return answers.reshape(len(rows), -1)
        assert self._classes is not None
        numbers = self._class_numbers(estimator)
        if self._holds == LABELS:
            return answers if numbers is None else numbers[np.searchsorted(np.asarray(estimator.classes_), answers)]
        if numbers is None:
            return answers
        columns = np.zeros((len(rows), self._classes))
        columns[:, numbers] = answers
        return columns

    def _class_numbers(self, estimator: Any) -> np.ndarray | None:
        """The data's class number of each of the estimator's classes; None where it does not say its classes."""
        classes = getattr(estimator, "classes_", None)
        if classes is None:
            return None
        known = {str(number): number for number in range(self._classes or 0)}
        if self._own_classes:
            known |= {str(name): number for number, name in enumerate(self._context.datamodule.class_names or [])}
        unknown = [name for name in classes if str(name) not in known]
        if unknown:
            raise UserError(
                f"{self._where}: its classes are {', '.join(map(str, classes[:8]))}; {str(unknown[0])!r} is none of the data's "
                f"({', '.join(list(known)[-(self._classes or 0) :][:8])})"
            )
        return np.array([known[str(name)] for name in classes])

    def calibrate(self, data: Any) -> None:
        """Find the temperature that suits labels of samples which the answering estimators had not seen."""
        unseen = "train" if self._copies else "val"
        if unseen == "val" and not data.val_samples:  # protocol=literature
            log.info(
                "teacher %s: its probabilities are taken as they are: without validation no label is left that it had not "
                "seen (teacher.folds=5 makes some)", self.name,
            )  # fmt: skip
            return
        samples = training_samples(data) if self._copies else data.val_dataloader().dataset
        logits, targets = [], []
        for batch in _batches(samples, unseen):
            keep = batch.target != UNLABELLED
            if unseen == "train" and self._fold_of is not None:
                keep &= self._fold_of[batch.index] != NO_FOLD
            logits.append(self(batch).logits.cpu()[keep])
            targets.append(batch.target[keep])
        known = torch.cat(targets)
        if len(known):
            self.temperature *= fitted_temperature(torch.cat(logits), known)
            self._origin["temperature"] = round(self.temperature, 4)
            log.info(
                "teacher %s: its probabilities are brought to temperature %.2f, which suits the labels of %s samples that "
                "it had not seen", self.name, self.temperature, f"{len(known):,}",
            )  # fmt: skip
            self._digest = self._answer_digest()

    def _answer_digest(self) -> str:
        return hashlib.sha256(self(self._probe).logits.cpu().numpy().tobytes()).hexdigest()

    def to(self, device: torch.device | str) -> FittedEstimator:
        """It stays where it is; its answers go to the device of the inputs."""
        return self

    def verify(self) -> None:
        """Raise TeacherChanged where it answers otherwise than it did when it was made."""
        if self._answer_digest() != self._digest:
            raise TeacherChanged(
                f"teacher {self.name!r}: {type(self._estimator).__name__} answers otherwise than before"
            )

    def cache_parts(self) -> dict[str, Any]:
        import sklearn

        text = re.sub(r" at 0x[0-9a-f]+", "", " ".join(repr(self._estimator).split()))  # a place in memory
        return {"estimator": text, "answers": self._digest, "copies": len(self._copies), "sklearn": sklearn.__version__}

    def describe(self) -> dict[str, Any]:
        kind = type(self._estimator).__name__
        return {"name": self.name, "parameters": None, "bytes": None, "estimator": kind, **self._origin}


def training_samples(data: Any) -> Any:
    """The training samples, each by itself, of which any view can be read."""
    return by_themselves(data.train_views_dataset)


def groups_of(data: Any) -> Tensor | None:
    """Which training samples belong together, where the data module says it."""
    said = getattr(data, "train_groups", None)
    return None if said is None else said()


def fit_out_of_fold(
    estimator: Any, holds: str, context: TeacherContext, data: Any, *, folds: int, seed: int, inputs: str | None
) -> FittedEstimator:
    """Fit an estimator to the labelled training samples of ``data``, and copies of it to all but a fold of them each.

    Raises:
        UserError: there are too few labels, or the estimator does not take the data.
    """
    from sklearn.base import clone

    mixing = getattr(context.datamodule, "mixing", None)
    if folds and mixing is not None:
        raise UserError(
            f"{context.where}.folds={folds} has each training sample answered by a copy that was fitted without it; a mixed one "
            f"shows two: leave out {mixing.keys}, or set {context.where}.folds=0"
        )
    estimator = seeded(estimator, seed)
    rows, targets = _table(training_samples(data), inputs, context.where)
    known = np.isfinite(targets.reshape(len(targets), -1)).all(1) if holds == VALUES else targets != UNLABELLED
    if known.sum() < max(2, folds):
        raise UserError(
            f"{context.where}: {int(known.sum())} training samples have a label, {type(estimator).__name__} with "
            f"{folds} folds needs more: raise data.labelled (or teacher.data.labelled), or lower teacher.folds"
        )
    contents = together(rows, groups_of(data))
    context.begin()
    began = time.monotonic()
    copies, of_content = [], np.full(int(contents.max()) + 1, NO_FOLD)
    if folds:
        of_content = fold_numbers(contents, targets, known, folds, seed, classes=holds != VALUES)
        for fold in range(folds):
            chosen = known & (of_content[contents] != fold)
            copies.append(_fitted(clone(estimator), rows[chosen], targets[chosen], context.where))
    whole = _fitted(estimator, rows[known], targets[known], context.where)
    if data is context.datamodule:
        fold_of = of_content[contents]
    else:  # the student's training samples may be others, or in another order
        by_content = dict(zip(_keys(rows), of_content[contents].tolist(), strict=True))
        mine, _ = _table(training_samples(context.datamodule), inputs, context.where)
        fold_of = np.array([by_content.get(key, NO_FOLD) for key in _keys(mine)])
    log.info(
        "teacher %s: %s fitted to %s samples%s in %.1f s", context.name, type(estimator).__name__, f"{int(known.sum()):,}",
        f", and {folds} copies to all but a fold of them" if folds else "", time.monotonic() - began,
    )  # fmt: skip
    origin = {"fitted_to": int(known.sum()), "folds": folds}
    return FittedEstimator(whole, holds, context, copies, torch.from_numpy(fold_of), inputs, origin)


def seeded(estimator: Any, seed: int) -> Any:
    """The estimator, with every ``random_state`` that is left to chance set to ``seed``."""
    get = getattr(estimator, "get_params", None)
    if callable(get):
        open_ones = {k: seed for k, v in get().items() if k.rpartition("__")[2] == "random_state" and v is None}
        if open_ones:
            estimator.set_params(**open_ones)
    return estimator


def _fitted(estimator: Any, rows: np.ndarray, targets: np.ndarray, where: str) -> Any:
    try:
        return estimator.fit(rows, targets[:, 0] if targets.ndim == 2 and targets.shape[1] == 1 else targets)
    except Exception as error:  # whatever the estimator does
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(
            f"{where}.estimator: {type(estimator).__name__} cannot be fitted to {rows.shape}: {text[:300]}"
        ) from error


def _batches(samples: Any, split: str) -> Any:
    for start in range(0, len(samples), _READ):
        index = torch.arange(start, min(start + _READ, len(samples)))
        inputs, target = samples.read(index, 0)
        yield Batch(inputs, target, index, 0, split)


def _table(samples: Any, inputs: str | None, where: str) -> tuple[np.ndarray, np.ndarray]:
    """All samples' rows in view 0, and their targets."""
    parts = [(rows_of(batch.inputs, inputs, where), batch.target.numpy()) for batch in _batches(samples, "train")]
    return np.concatenate([rows for rows, _ in parts]), np.concatenate([targets for _, targets in parts])


def _keys(rows: np.ndarray) -> list[Any]:
    return list(rows) if rows.dtype == object else [row.tobytes() for row in rows]
