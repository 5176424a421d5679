"""An opened export beside the checkpoint that it was made of: outputs, decisions, metric, time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.batch import Batch, as_batch
from kd_lightning.errors import UserError
from kd_lightning.exporting.formats import first_line
from kd_lightning.exporting.model import Pixels, answering
from kd_lightning.exporting.named_inputs import Inputs, each, samples_in, tensors_of
from kd_lightning.joints import Task
from kd_lightning.runs.latency import median_ms

TOLERANCE = 1e-4
"""Largest difference of an output in float32, as a share of the largest output (of 1 where that is smaller)."""
BATCHES = (1, 32)
"""Numbers of samples that are timed."""
AS_TRAINED, BYTES, TOKENS = "normalised", "uint8", "tokens"
"""What a model takes: what the student was trained on, or pixels; of texts, token numbers and their mask."""
SECONDS, REPEATS = 0.5, 50
"""Of timing: no repetition starts after so many seconds, and there are never more."""


class Compared:
    """One model's answers on the test split, beside those that were expected.

    Args:
        name: for messages.
        call: the model.
        pixels: how its raw inputs are made into the student's; None where it takes them as the student does.
        task: whose metrics are computed.
        share: largest difference of an output, as a share of the largest output (of 1 where that is smaller).
    """

    def __init__(
        self,
        name: str,
        call: Callable[[Any], Any],
        pixels: Pixels | None,
        task: Task,
        share: float = TOLERANCE,
    ) -> None:
        self.name, self.pixels, self._share = name, pixels, share
        self._call = call
        self._task, self._evaluator = task, task.evaluator()
        self._difference = torch.zeros(())
        self._largest = torch.zeros(())
        self._equal = self._decisions = 0

    def add(self, batch: Batch, student: nn.Module) -> None:
        """One batch of the test split."""
        inputs = tensors_of(batch.inputs) if self.pixels is None else self.pixels.raw(batch.inputs)
        expected = answering(student, inputs if self.pixels is None else self.pixels(inputs))
        got = self.answer(inputs)
        if got.shape != expected.shape:
            raise UserError(f"{self.name}: answers in the shape {tuple(got.shape)}, expected {tuple(expected.shape)}")
        # torch.maximum and max() keep NaN, which is no difference within any tolerance
        self._difference = torch.maximum(self._difference, (got - expected).abs().max())
        self._largest = torch.maximum(self._largest, expected.abs().max())
        if expected.dim() > 1:
            equal = got.argmax(1) == expected.argmax(1)
            self._equal += int(equal.sum())
            self._decisions += equal.numel()
        self._evaluator.update(self._task.imported(got), None, batch)

    def answer(self, inputs: Inputs) -> Tensor:
        """What it answers for any number of samples.

        Raises:
            UserError: it fails.
        """
        try:
            return answering(self._call, inputs)
        except Exception as error:  # whatever reads the file, with whatever it raises
            raise UserError(
                f"{self.name}: does not answer for {samples_in(inputs)} samples: {first_line(error)}"
            ) from error

    @property
    def difference(self) -> float:
        """Largest difference of an output from what was expected; NaN where one is no number."""
        return float(self._difference)

    @property
    def tolerance(self) -> float:
        """The largest difference that counts as rounding."""
        return self._share * max(1.0, float(self._largest))

    def figures(self, sample: Inputs, classes: bool) -> dict[str, Any]:
        """All that was found, plain.

        Args:
            sample: inputs of one test sample, (1, ...), as the student takes them, or several by name.
            classes: whether the largest output is a decision.
        """
        pixels = self.pixels
        inputs = sample if pixels is None else each(sample, pixels.raw)
        return {
            "inputs": TOKENS if isinstance(sample, Mapping) else AS_TRAINED if self.pixels is None else BYTES,
            "metrics": self._evaluator.compute(),
            "largest_difference": self.difference,
            "tolerance": self.tolerance if math.isfinite(self.tolerance) else None,
            "equal_decisions": self._equal / self._decisions if classes and self._decisions else None,
            "latency_ms": {str(samples): self._latency(inputs, samples) for samples in BATCHES},
        }

    def _latency(self, inputs: Inputs, samples: int) -> float:
        batch = each(inputs, lambda part: part.repeat(samples, *[1] * (part.dim() - 1)))
        return median_ms(lambda: self.answer(batch), torch.device("cpu"), SECONDS, REPEATS)


def on_the_test_split(
    compared: Sequence[Compared], student: nn.Module, loader: Iterable[Any], reads: str | None = None
) -> tuple[int, Inputs]:
    """Show the test split to all of them, once; of inputs by name the one that is called ``reads``.

    Returns:
        The number of samples, and the inputs of one.

    Raises:
        UserError: a model fails or answers in another shape, or there are no test samples.
    """
    samples, first = 0, None
    for item in loader:
        batch = as_batch(item)
        samples += batch.size
        if reads is not None:
            batch = batch._replace(inputs=batch.inputs[reads])
        first = each(tensors_of(batch.inputs), lambda part: part[:1]) if first is None else first
        for model in compared:
            model.add(batch, student)
    if first is None:
        raise UserError("the test split has no samples: an export that cannot be compared is not kept")
    return samples, first
