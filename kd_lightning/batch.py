"""What a loader hands to a training step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

UNLABELLED = -1
TARGET_NAMES = ("target", "label", "labels", "y")
"""How the target of a sample or batch by name is called."""


class Batch(NamedTuple):
    """One batch of samples; Lightning moves it between devices like any named tuple.

    Attributes:
        inputs: shape (N, ...), or any structure of tensors that the models take.
        target: ground truth, shape (N,) of class numbers or (N, ...) of values; the class number ``UNLABELLED`` (-1)
            marks a sample whose label is not known: it counts for the soft loss only.
        index: shape (N,), int64: each sample's position in its data set, or None where the loader does not tell.
        view: which augmented view of the samples this is (an epoch number, or 0 where the view never changes); int64 (N,),
            each sample's own, where a batch shows several of a sample (``data.repeats``).
            ``(split, index, view)`` names the model's input exactly, which is what stored teacher outputs, memory of
            evaluations and replays are keyed by.
        split: "train", "val" or "test"; empty where the loader does not tell.
        also: further views of the same samples, in the same order (methods that compare two views).
        partner_target: class numbers (N,) of the samples with which these were mixed (mixup, CutMix); None where nothing
            was mixed.
        weight: the share of ``target`` in the label, float32 (N,) in [0, 1]; that of ``partner_target`` is the rest. None
            where ``partner_target`` is.
    """

    inputs: Any
    target: Any
    index: Tensor | None = None  # type: ignore[assignment]  # hides tuple.index, which nobody calls on a batch
    view: int | Tensor = 0
    split: str = ""
    also: tuple[Batch, ...] = ()
    partner_target: Tensor | None = None
    weight: Tensor | None = None

    @property
    def size(self) -> int:
        """Number of samples (``len()`` of a named tuple counts its fields)."""
        return batch_size(self.inputs)


class Partner(NamedTuple):
    """What a data set that mixes samples gives behind ``(inputs, target)``: see :attr:`Batch.partner_target`."""

    target: Tensor
    weight: Tensor


def unnamed(batch: Batch) -> Batch:
    """The batch without its split: no store knows what was answered to it, a teacher is asked live and in full."""
    return batch._replace(split="")


def batch_size(inputs: Any) -> int:
    """Number of samples in a structure of tensors: the first dimension of its first tensor."""
    if isinstance(inputs, Tensor):
        return inputs.shape[0]
    if isinstance(inputs, dict):
        return batch_size(next(iter(inputs.values())))
    if isinstance(inputs, list) and all(isinstance(value, str) for value in inputs):
        return len(inputs)
    if isinstance(inputs, (list, tuple)) and inputs:
        return batch_size(inputs[0])
    raise ValueError(
        f"cannot tell the batch size of a {type(inputs).__name__}: expected a tensor or a dict/list of them"
    )


def as_batch(batch: Any) -> Batch:
    """A user's own loader may yield ``(inputs, target)``, ``(inputs, target, index)``, a mapping with a target called as
    in ``TARGET_NAMES``, or inputs alone, a tensor, which then have no label; wrap it."""
    if isinstance(batch, Batch):
        return batch
    if isinstance(batch, Tensor):
        return Batch(batch, torch.full((len(batch),), UNLABELLED, device=batch.device))
    if isinstance(batch, Mapping):
        target = next((name for name in TARGET_NAMES if name in batch), None)
        if target is not None:
            inputs = {name: value for name, value in batch.items() if name != target}
            return Batch(next(iter(inputs.values())) if len(inputs) == 1 else inputs, batch[target])
    if isinstance(batch, (list, tuple)) and len(batch) == 3 and isinstance(batch[2], Partner):
        return Batch(batch[0], batch[1], partner_target=batch[2].target, weight=batch[2].weight)
    if isinstance(batch, (list, tuple)) and len(batch) in (2, 3):
        index = batch[2] if len(batch) == 3 else None
        return Batch(batch[0], batch[1], torch.as_tensor(index) if index is not None else None)
    raise ValueError(f"a batch must be (inputs, target) or (inputs, target, index), got {type(batch).__name__}")


def channels_last(batch: Batch) -> Batch:
    """The batch with its images, of shape (N, C, H, W), in channels-last memory."""
    if isinstance(batch.inputs, Tensor) and batch.inputs.dim() == 4:
        batch = batch._replace(inputs=batch.inputs.contiguous(memory_format=torch.channels_last))
    if batch.also:
        batch = batch._replace(also=tuple(channels_last(view) for view in batch.also))
    return batch
