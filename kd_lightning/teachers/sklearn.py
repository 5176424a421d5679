"""A teacher that is an estimator of scikit-learn's kind: anything with ``fit`` and ``predict_proba`` or ``predict``.

A model is sure of what it was fitted to: a forest's probabilities for its own training samples are nearly 0 and 1, and
teach no more than the labels do. So a training sample is answered by a copy that was fitted without it (out of fold; the
"cross-fitting" of Dao et al. 2021, arXiv:2108.00085, section 4), any other input by the estimator that was fitted to all.
Such answers are too cautious or too bold; one temperature, fitted to the labels of samples that the answering copies had
not seen, mends that (Guo et al. 2017, arXiv:1706.04599).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from kd_lightning.config.build import instantiate
from kd_lightning.config.targets import TargetProblem
from kd_lightning.errors import UserError
from kd_lightning.joints import LABELS, PROBABILITIES, VALUES, Teacher
from kd_lightning.teachers.arrays import PROVIDES
from kd_lightning.teachers.checkpoint import require_file
from kd_lightning.teachers.estimator_file import PICKLES, load_estimator
from kd_lightning.teachers.fitted import FittedEstimator, fit_out_of_fold
from kd_lightning.teachers.kind import TeacherContext
from kd_lightning.teachers.recipe import check_own_data
from kd_lightning.teachers.stand_in import StandIn
from kd_lightning.teachers.training import data_of_training

log = logging.getLogger(__name__)


class SklearnTeacher:
    """Fits an estimator to the training data, or takes a fitted one from a file.

    Args:
        estimator: its ``_target_`` and arguments; a pipeline works as well. What it leaves to chance
            (``random_state``) is set to ``seed``.
        file: a fitted estimator, saved with skops; instead of ``estimator``.
        trusted: names of types, beside scikit-learn's, that such a file may hold.
        unpickle: open a file that pickle or joblib wrote. It runs whatever code is in it: for files of your own only.
        folds: copies that are fitted without a part of the training samples each, >= 2, to answer for that part; 0: the
            estimator answers for what it was fitted to.
        calibrate: bring probabilities to one temperature that suits the labels.
        seed: of the folds and of the estimator.
        inputs: which of the data's inputs by name it takes; None: texts, or the only one.
        data: arguments of the data that differ in its training: ``{labelled: null}`` gives it all labels.
    """

    labels_new_inputs = True

    def __init__(
        self,
        estimator: Mapping[str, Any] | None = None,
        file: str | None = None,
        trusted: Sequence[str] = (),
        unpickle: bool = False,
        folds: int = 5,
        calibrate: bool = True,
        seed: int = 0,
        inputs: str | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        if (estimator is None) == (file is None):
            raise UserError("teacher: give teacher.estimator (it is fitted here) or teacher.file (a fitted one)")
        if folds == 1 or folds < 0:
            raise UserError(f"teacher.folds must be >= 2, or 0 for an estimator that answers for all, got {folds}")
        self.estimator, self.file, self.trusted, self.unpickle = estimator, file, trusted, unpickle
        self.folds, self.calibrate, self.seed, self.inputs = folds, calibrate, seed, inputs
        self.data = dict(data or {})

    instead: ClassVar[Mapping[str, str]] = {VALUES: "teacher.estimator._target_=sklearn.ensemble.ExtraTreesRegressor"}
    """What makes it provide something else, for messages."""

    @staticmethod
    def check(node: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        """What can be wrong with the node beyond its signature.

        Raises:
            TargetProblem: its key is relative to the node.
        """
        require_file(node, "file")
        check_own_data(node, config)
        file = node.get("file")
        if file is not None and Path(str(file)).suffix in PICKLES and not node.get("unpickle"):
            raise TargetProblem(
                "file",
                f"{file} is a pickle, and opening one runs whatever code it holds: save the estimator with skops.io.dump, "
                "or set teacher.unpickle=true if the file is your own",
            )

    @cached_property
    def made(self) -> Any:
        """The estimator: not fitted yet, or from its file.

        Raises:
            UserError: it cannot be made, or has neither ``predict_proba`` nor ``predict``.
        """
        if self.file is not None:
            found = load_estimator(self.file, self.trusted, self.unpickle)
        else:
            found = instantiate(dict(self.estimator or {}), "teacher.estimator")
            if not callable(getattr(found, "fit", None)):
                raise UserError(f"teacher.estimator: {type(found).__name__} has no fit(X, y): it is no estimator")
        if not callable(getattr(found, "predict", None)) and not callable(getattr(found, "predict_proba", None)):
            raise UserError(f"teacher: {type(found).__name__} has neither predict_proba nor predict")
        return found

    @property
    def holds(self) -> str:
        """What its answers are: probabilities, labels, or values."""
        from sklearn.base import is_classifier

        if callable(getattr(self.made, "predict_proba", None)):
            return PROBABILITIES
        return LABELS if is_classifier(self.made) else VALUES

    @property
    def provides(self) -> frozenset[str]:
        return PROVIDES[self.holds]

    def make(self, context: TeacherContext) -> Teacher:
        """Fit it, and its copies, or take it from its file; in a trial, something that answers in its form."""
        estimator, holds = self.made, self.holds
        if context.trial:
            return StandIn(context, holds)
        if self.file is not None:
            fitted = FittedEstimator(
                estimator, holds, context, inputs=self.inputs, origin={"file": str(self.file)}, own_classes=True
            )
        else:
            data = data_of_training(context)
            fitted = fit_out_of_fold(
                estimator, holds, context, data, folds=self.folds, seed=self.seed, inputs=self.inputs
            )
        if self.calibrate and holds == PROBABILITIES:
            fitted.calibrate(context.datamodule)
        context.check_output(fitted(context.datamodule.example_batch()), "estimator")
        return fitted
