"""Regression: values, standardised for the models and reported in the data's units.

A target ``y`` becomes ``(y - mean) / std``, both fitted on the labelled training samples, so that losses, weights and
learning rates mean the same whatever the target's unit. Models, loss terms and stored answers are in these units; every
figure, picture and prediction is in the data's.

What a model's output is, and so what a teacher can hand on, is ``output``:

===========  ==================================  ============================  =====================================
``output``   a model answers with                loss against the target       a teacher hands on
===========  ==================================  ============================  =====================================
value        D values                            MSE, Huber or MAE             values (``method=mse``, …)
gaussian     D means and D log-variances         negative log-likelihood       values and spread (``gaussian_kl``)
bins         logits of K bins a value            HL-Gauss cross-entropy        a distribution (``kd``, any for logits)
===========  ==================================  ============================  =====================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from kd_lightning.batch import UNLABELLED
from kd_lightning.errors import UserError
from kd_lightning.metrics.regression import Predicted
from kd_lightning.outputs import ModelOutput
from kd_lightning.tasks.base import BaseTask
from kd_lightning.tasks.regression_evaluator import RegressionEvaluator, figures_of
from kd_lightning.tasks.regression_forms import BinsForm, GaussianForm, ValueForm

if TYPE_CHECKING:
    from PIL.Image import Image

    from kd_lightning.joints import DataModule, Step

OUTPUTS = ("value", "gaussian", "bins")
LOSSES = ("mse", "huber", "mae")


class RegressionTask(BaseTask):
    """Targets are one or several values, (N,) or (N, D); nan where a value is not known.

    Args:
        output: what models answer with: "value", "gaussian" or "bins", see above.
        loss: of ``output=value``: "mse", "huber" or "mae".
        delta: of Huber's loss: where it turns from squares to lines, in standard deviations of the target, > 0.
        bins: of ``output=bins``: their number, >= 2.
        sigma: of ``output=bins``: width of the Gaussian around a target, in widths of a bin, > 0.
        mean, std: the target's, by which it is standardised, one number or one a value; None: fitted on the training
            samples. ``mean=0 std=1`` leaves the target as it is.
        unit: of the target, for tables and pictures: "kWh".
    """

    name = "regression"
    monitor = "rmse"
    monitor_without_labels = "rmse_teacher"
    picture_samples = 400

    def __init__(
        self,
        output: Literal["value", "gaussian", "bins"] = "value",
        loss: Literal["mse", "huber", "mae"] = "mse",
        delta: float = 1.0,
        bins: int = 50,
        sigma: float = 0.75,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        unit: str = "",
    ) -> None:
        for key, value, allowed in (("output", output, OUTPUTS), ("loss", loss, LOSSES)):
            if value not in allowed:
                raise UserError(f"task.{key} must be {' or '.join(allowed)}, got {value!r}")
        if loss != "mse" and output != "value":
            raise UserError(
                f"task.loss={loss}: is for task.output=value; {output} has a loss of its own, task.loss=mse"
            )
        for key, number, above in (("delta", delta, 0), ("sigma", sigma, 0), ("bins", bins, 1)):
            if not number > above:
                raise UserError(f"task.{key} must be > {above}, got {number}")
        forms = {"value": ValueForm(loss, delta), "gaussian": GaussianForm(), "bins": BinsForm(bins, sigma)}
        self.form: ValueForm = forms[output]
        self.provides = self.form.provides
        self.unit = unit
        self._given = {"mean": _listed(mean), "std": _listed(std)}
        if (mean is None) != (std is None) or any(not value > 0 for value in self._given["std"] or ()):
            raise UserError(f"task.mean and task.std belong together, with std > 0; got {mean} and {std}")
        self.mean, self.std = (
            torch.tensor(self._given[key] or [default]) for key, default in (("mean", 0.0), ("std", 1.0))
        )
        self.metrics = figures_of(unit, self.form.has_spread)

    # -- units -------------------------------------------------------------------------------------------------------
    def fit(self, data: DataModule) -> None:
        """Mean and standard deviation of the labelled training targets, and the bins' range.

        Raises:
            UserError: the targets are no values, none is known, or they are all the same.
        """
        targets = data.train_targets()
        if targets is None:
            raise UserError(
                "task: nobody knows the training targets before they are read (nor if there are any): give task.mean and "
                "task.std"
            )
        if _no_label(targets):
            if self._given["mean"] is None:
                raise UserError("task: no training sample has a target: give some a label, or task.mean and task.std")
            targets = torch.full((len(targets), len(self.mean)), math.nan)
        if not targets.is_floating_point():
            raise UserError(
                "data: targets are class numbers, a regression takes values: set data.target_type=values, or choose "
                "another task (task=NAME)"
            )
        values = targets.reshape(len(targets), -1).double()
        if self._given["mean"] is None:
            known = ~values.isnan()
            count = known.sum(0)
            if not bool((count > 0).all()):
                raise UserError("task: no training sample has a target: give some a label, or task.mean and task.std")
            zeroed = torch.where(known, values, 0.0)
            mean = zeroed.sum(0) / count
            std = (torch.where(known, zeroed - mean, 0.0).square().sum(0) / count).sqrt()
            if not bool((std > 1e-12 * mean.abs()).all()):
                raise UserError(f"task: all training targets are {float(mean[0]):g}: there is nothing to learn")
            self.mean, self.std = mean.float(), std.float()
        if len(self.mean) not in (1, values.shape[1]) or len(self.mean) != len(self.std):
            raise UserError(
                f"task.mean and task.std have {len(self.mean)} and {len(self.std)} numbers, a sample {values.shape[1]} values"
            )
        self.mean, self.std = self.mean.expand(values.shape[1]), self.std.expand(values.shape[1])
        self.form.fit(self.encode(values))

    def fitted(self) -> dict[str, Any]:
        return {"mean": self.mean.tolist(), "std": self.std.tolist(), **self.form.fitted()}

    def restore(self, fitted: Mapping[str, Any]) -> None:
        self.mean, self.std = (torch.tensor([float(x) for x in fitted[key]]) for key in ("mean", "std"))
        self.form.restore(fitted)

    def encode(self, target: Tensor) -> Tensor:
        """Targets (N,) or (N, D) of the data in standardised units, (N, D); nan stays."""
        if _no_label(target):
            target = torch.full((len(target), len(self.mean)), math.nan, device=target.device)
        values = target.reshape(len(target), -1)
        values = values if values.dtype == torch.float64 else values.float()
        return (values - self.mean.to(values)) / self.std.to(values)

    def for_terms(self, target: Tensor) -> Tensor:
        """What terms are given: standardised values (N, D), nan where none is known; with bins, as of classes, the
        numbers of the targets' bins, ``UNLABELLED`` where there is none: (N,), or (N, D) for several values."""
        return self.form.for_terms(self.encode(target))

    def decode(self, values: Tensor) -> Tensor:
        """Standardised values (N, D) in the data's units."""
        return values * self.std.to(values) + self.mean.to(values)

    def recode(self, output: ModelOutput, fitted: Mapping[str, Any]) -> ModelOutput:
        """An output in the units of another fit, in those of this one."""
        mean, std = (torch.tensor([float(x) for x in fitted[key]], dtype=torch.float64) for key in ("mean", "std"))
        own = self.mean.double(), self.std.double()
        if len(mean) != len(own[0]):
            raise UserError(f"the teacher was trained for {len(mean)} values, the data has {len(own[0])}")
        return self.form.rescaled(output, std / own[1], (mean - own[0]) / own[1], fitted)

    # -- models ------------------------------------------------------------------------------------------------------
    def sizes(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """As many outputs as the form takes for the data's values."""
        known = dict(sizes)
        if "num_classes" in known:
            known["num_classes"] = self.form.width(known["num_classes"])
        return known

    def read(self, output: ModelOutput) -> ModelOutput:
        return self.form.read(output)

    def predict(self, output: ModelOutput) -> Tensor:
        """Values (N, D) in the data's units: of a distribution its mean."""
        return self.decode(self.form.mean(output))

    def deviation(self, output: ModelOutput) -> Tensor | None:
        """Standard deviations (N, D) in the data's units, of ``output=gaussian`` and ``bins``."""
        deviation = self.form.deviation(output)
        return None if deviation is None else deviation * self.std.to(deviation)

    def exported(self, output: ModelOutput) -> Tensor:
        """Values (N, D) in the data's units, behind them the standard deviations of ``output=gaussian``; logits of bins."""
        if isinstance(self.form, BinsForm):
            return output.logits
        values, deviation = self.predict(output), self.deviation(output)
        return values if deviation is None else torch.cat([values, deviation], 1)

    def imported(self, answer: Tensor) -> ModelOutput:
        if isinstance(self.form, BinsForm):
            return ModelOutput(answer)
        count = len(self.std)
        spread = None if answer.shape[1] == count else 2 * (answer[:, count:] / self.std.to(answer)).log()
        return ModelOutput(self.encode(answer[:, :count]), spread=spread)

    def describe_exported(self) -> dict[str, Any]:
        said: dict[str, Any] = {"unit": self.unit}
        if not isinstance(self.form, BinsForm):
            return {"answers": "values and their standard deviations" if self.form.has_spread else "values", **said}
        ends = {end: float(self.decode(torch.tensor([value]))[0]) for end, value in self.form.fitted().items()}
        return {"answers": "logits of equal bins from low to high; the value is their mean", **ends, **said}

    def loss(self, output: ModelOutput, target: Tensor) -> Tensor:
        """Mean over the known values, in standardised units; exactly 0 where none is known.

        Args:
            output: read.
            target: (N,) or (N, D), in the data's units.
        """
        wanted = self.encode(target)
        known = ~wanted.isnan()
        losses = self.form.losses(output, torch.where(known, wanted, 0.0))
        return torch.where(known, losses, 0.0).sum() / known.sum().clamp(min=1)

    def check_output(self, output: ModelOutput, data: DataModule, where: str) -> None:
        """Raise a UserError if a model does not answer with as many values as the data have."""
        target = data.example_batch().target
        if not target.is_floating_point() and not _no_label(target):
            raise UserError("data: targets are class numbers, a regression takes values: set data.target_type=values")
        self.form.require_its_own(output, where)
        given, wanted = self.form.mean(output).shape, self.encode(target).shape
        if given != wanted:
            raise UserError(
                f"{where}: answers with {given[1] if len(given) == 2 else tuple(given[1:])} values, a target has "
                f"{wanted[1]}: set num_classes={self.form.width(wanted[1])}"
            )

    # -- figures -----------------------------------------------------------------------------------------------------
    def evaluator(self) -> RegressionEvaluator:
        return RegressionEvaluator(self)

    def predicted(self, output: ModelOutput, target: Tensor) -> Predicted:
        """What an output predicts of targets, in standardised units."""
        form = self.form
        return Predicted(form.mean(output), form.log_density(output, target), form.cumulative(output, target))

    def useless(self, metrics: Mapping[str, float], data: DataModule) -> str | None:
        """A teacher that explains nothing of the targets' variance."""
        if not metrics.get("r2", 1.0) <= 0:
            return None
        return (
            f"no better than the mean of the targets (R² {metrics['r2']:.3f} in validation): train it longer, or check that "
            "it answers in the data's units (teacher.outputs)"
        )

    def picture(self, step: Step, data: DataModule, temperature: float) -> Image | None:
        """Predictions of student and teacher against the truth, of the first value."""
        from kd_lightning.tasks.regression_picture import scatter

        truth = step.batch.target.reshape(step.batch.size, -1)[:, 0]
        teacher = None if step.teacher is None else self.predict(step.teacher)[:, 0]
        deviation = self.deviation(step.student)
        spread = None if deviation is None else deviation[:, 0]
        return scatter(truth, self.predict(step.student)[:, 0], teacher, spread, self.unit)


def _no_label(target: Tensor) -> bool:
    """Whether targets are those of data without any: class numbers (N,), all ``UNLABELLED``."""
    return not target.is_floating_point() and target.dim() == 1 and bool((target == UNLABELLED).all())


def _listed(value: float | Sequence[float] | None) -> list[float] | None:
    if value is None:
        return None
    return [float(value)] if isinstance(value, (int, float)) else [float(number) for number in value]
