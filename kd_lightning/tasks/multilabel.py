"""A yes or no for each class: several labels a sample, or two classes with one logit.

A model answers with one logit a class, whose sigmoid is the probability of "yes". What a teacher hands on are these
probabilities, softened one by one (``method=sigmoid_kd``); a softmax over the classes would make them compete.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kd_lightning.batch import UNLABELLED, Batch
from kd_lightning.errors import UserError
from kd_lightning.joints import UNNORMALISED
from kd_lightning.metrics.binary import BinaryCounts
from kd_lightning.metrics.metric import FIDELITY, TEACHER, Metric
from kd_lightning.outputs import ModelOutput
from kd_lightning.tasks.base import BaseTask
from kd_lightning.tasks.classification_evaluator import at_least_float32
from kd_lightning.tasks.yes_or_no import yes_or_no_losses

if TYPE_CHECKING:
    from kd_lightning.joints import DataModule


class MultilabelTask(BaseTask):
    """Targets are (N, C) of 0 and 1 (-1 or nan: not known), or class numbers (N,): of two classes one logit answers whether
    it is class 1, of more each class is a question of its own.

    The loss of a class is ``w_c (1 - p)^focal (-log p)`` for a yes, without w_c and with 1 - p for a no; averaged over the
    answers that are known.

    Args:
        positive_weight: w, a number > 0, one for each class, or "balanced": noes over yeses among the training labels.
        focal: exponent >= 0 that makes what is right already count less (Lin et al. 2017, arXiv:1708.02002, eq. 4).
    """

    name = "multilabel"
    monitor = "auc"
    monitor_without_labels = "agreement"
    provides = frozenset({UNNORMALISED})
    metrics = (
        Metric("auc", True, share=True, title="AUC"),
        Metric("f1", True, share=True, title="F1"),
        Metric("exact", True, share=True, title="all right", counted=True),
        Metric("loss_task", False, title="task loss"),
        Metric("agreement", True, share=True, of=FIDELITY),
        Metric("kl_teacher", False, title="KL to the teacher", of=FIDELITY),
        Metric("teacher_auc", True, share=True, title="teacher's AUC", of=TEACHER, like="auc"),
        Metric("teacher_f1", True, share=True, title="teacher's F1", of=TEACHER, like="f1"),
        Metric("teacher_exact", True, share=True, title="teacher's share of all right", of=TEACHER, like="exact"),
    )

    def __init__(
        self,
        positive_weight: float | Sequence[float] | Literal["balanced"] | None = None,
        focal: float = 0.0,
    ) -> None:
        if not focal >= 0:
            raise UserError(f"task.focal must be >= 0, got {focal}")
        self.focal = focal
        self._balanced = positive_weight == "balanced"
        numbers: list[float] = []
        if isinstance(positive_weight, (int, float)):
            numbers = [float(positive_weight)]
        elif positive_weight is not None and not isinstance(positive_weight, str):
            numbers = [float(number) for number in positive_weight]
        if (isinstance(positive_weight, str) and not self._balanced) or any(not number > 0 for number in numbers):
            raise UserError(f"task.positive_weight must be balanced, or numbers > 0, got {positive_weight}")
        self.positive_weight = torch.tensor(numbers) if numbers else None
        self._classes: int | None = None

    # -- data --------------------------------------------------------------------------------------------------------
    def fit(self, data: DataModule) -> None:
        """Find out how many questions there are; count yeses for balanced weights.

        Raises:
            UserError: the targets are no answers of yes and no.
        """
        targets = data.train_targets()
        if targets is None:
            raise UserError("task: nobody knows the training labels before they are read, or whether there are any")
        classes = data.sizes().get("num_classes")
        if targets.dim() == 1:
            if targets.is_floating_point():
                targets = targets[:, None]
            elif classes is None:
                raise UserError("task: nobody knows how many classes there are: set data.num_classes")
            else:
                self._classes = 1 if classes == 2 else classes
        if targets.dim() > 1:
            self._classes = targets.shape[1]
        answers, known = self.answers(targets)
        odd = answers[known & (answers != 0) & (answers != 1)]
        if odd.numel():
            raise UserError(
                f"data: a label is {float(odd[0]):g}: task=multilabel takes 0 and 1 for each class (-1: not known)"
            )
        if self._balanced:
            yes, count = (answers * known).sum(0), known.sum(0)
            if bool(((yes == 0) | (yes == count)).any()):
                raise UserError(
                    "task.positive_weight=balanced: a class has no yes, or no no, among the training labels"
                )
            self.positive_weight = ((count - yes) / yes).float()
        if self.positive_weight is not None and len(self.positive_weight) not in (1, self._classes):
            raise UserError(
                f"task.positive_weight: {len(self.positive_weight)} numbers, the data has {self._classes} classes"
            )

    def fitted(self) -> dict[str, Any]:
        weights = self.positive_weight.tolist() if self._balanced and self.positive_weight is not None else None
        return {"classes": self._classes, **({"positive_weight": weights} if weights else {})}

    def restore(self, fitted: Mapping[str, Any]) -> None:
        self._classes = fitted["classes"]
        if "positive_weight" in fitted:
            self.positive_weight = torch.tensor(fitted["positive_weight"])

    def sizes(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """One output for each question."""
        return dict(sizes) if self._classes is None else {**sizes, "num_classes": self._classes}

    def answers(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Targets as 0 and 1, float32 (N, C), and which are known, bool (N, C)."""
        if target.dim() == 1 and not target.is_floating_point():
            known = (target != UNLABELLED)[:, None]
            if self._classes in (1, None):
                return target.clamp_min(0).float()[:, None], known
            return F.one_hot(target.clamp_min(0), self._classes).float(), known.expand(-1, self._classes)
        target = target.reshape(len(target), -1)
        known = ~target.isnan() if target.is_floating_point() else target != UNLABELLED
        return torch.where(known, target.float(), 0.0), known

    # -- models ------------------------------------------------------------------------------------------------------
    def read(self, output: ModelOutput) -> ModelOutput:
        """Logits (N,) as (N, 1)."""
        return ModelOutput(output.logits[:, None], output.features) if output.logits.dim() == 1 else output

    def predict(self, output: ModelOutput) -> Tensor:
        """Probabilities of yes, (N, C)."""
        return output.logits.sigmoid()

    def loss(self, output: ModelOutput, target: Tensor) -> Tensor:
        """Mean over the known answers, in float32; exactly 0 where none is known."""
        answers, known = self.answers(target)
        return (self.losses(at_least_float32(output.logits), answers) * known).sum() / known.sum().clamp(min=1)

    def losses(self, logits: Tensor, answers: Tensor) -> Tensor:
        """Of each class, (N, C)."""
        return yes_or_no_losses(logits, answers, self.focal, self.positive_weight)

    def check_output(self, output: ModelOutput, data: DataModule, where: str) -> None:
        """Raise a UserError if a model does not answer for the data's classes."""
        if output.logits.dim() != 2 or output.logits.shape[1] != self._classes:
            given = tuple(output.logits.shape[1:])
            raise UserError(
                f"{where}: answers in the shape {given}, the data has {self._classes} classes with a yes or no each: set "
                f"num_classes={self._classes}"
            )

    def evaluator(self) -> MultilabelEvaluator:
        return MultilabelEvaluator(self, self._classes or 1)

    def useless(self, metrics: Mapping[str, float], data: DataModule) -> str | None:
        """A teacher that ranks no better than chance does."""
        if not metrics.get("auc", 1.0) <= 0.55:
            return None
        return f"no better than chance (AUC {metrics['auc']:.3f}): check its checkpoint, and that its classes are the data's"


class MultilabelEvaluator:
    """Sums over an evaluation set; scores count known answers, closeness to the teacher all of them.

    Args:
        task: whose losses they are.
        classes: C.
    """

    def __init__(self, task: MultilabelTask, classes: int) -> None:
        self.task = task
        self._student, self._teacher = BinaryCounts(classes), BinaryCounts(classes)
        self._sums = torch.zeros(5, dtype=torch.float64)  # loss, known answers, agreement, divergence, answers compared

    @torch.no_grad()
    def update(self, student: ModelOutput, teacher: ModelOutput | None, batch: Batch) -> None:
        logits = at_least_float32(student.logits)
        answers, known = self.task.answers(batch.target)
        self._student.add(logits.sigmoid(), answers, known)
        found = [
            (self.task.losses(logits, answers) * known).sum(),
            known.sum(),
            *[torch.zeros((), device=logits.device)] * 3,
        ]
        if teacher is not None:
            theirs = at_least_float32(teacher.logits)
            self._teacher.add(theirs.sigmoid(), answers, known)
            p = theirs.sigmoid()
            gap = p * (F.logsigmoid(theirs) - F.logsigmoid(logits)) + (1 - p) * (
                F.logsigmoid(-theirs) - F.logsigmoid(-logits)
            )
            found[2:] = [((logits > 0) == (theirs > 0)).sum(), gap.sum(), torch.ones_like(gap).sum()]
        sums = torch.stack([value.double() for value in found])
        self._sums = self._sums.to(sums.device) + sums

    def sync(self, reduce: Callable[[Tensor], Tensor]) -> None:
        for counts in (self._student, self._teacher):
            counts.scores, counts.exact = reduce(counts.scores), reduce(counts.exact)
        self._sums = reduce(self._sums)

    def compute(self) -> dict[str, float]:
        loss, known, equal, gap, compared = self._sums.tolist()
        found = {**self._student.figures(), "loss_task": loss / known if known else float("nan")}
        if compared:
            found |= {f"teacher_{name}": value for name, value in self._teacher.figures().items()}
            found |= {"agreement": equal / compared, "kl_teacher": gap / compared}
        return found
