"""A data set that lies in memory and is read a whole batch at a time.

Pixels stay in their own dtype (a byte each) until the last step: a batch is gathered, cropped, flipped and changed by a
policy as bytes, then cast and normalised once, and erased and mixed with others in float where that is asked for. All of it
is a handful of torch calls, during which other threads go on working.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from kd_lightning.batch import Partner
from kd_lightning.data.augment import CropFlip, is_dense, moved_along
from kd_lightning.data.mixing import Mixing, mixed
from kd_lightning.data.policy import Policy
from kd_lightning.errors import UserError


class ArrayData(Dataset):
    """Samples in memory, gathered by index.

    Args:
        inputs: shape (N, ...), uint8 or float; images are (N, C, H, W).
        targets: shape (N,) of class numbers (int64) or (N, ...) of values.
        scale: the value that becomes 1.0 (255 for bytes), > 0.
        mean, std: per channel, of the values divided by ``scale``: ``x / scale`` becomes ``(x / scale - mean) / std``.
            None leaves the values divided by ``scale``.
        augment: crop and flip of the training views; None where a sample has one view.
        policy: operations on the training views, and erasing; None: neither.
        mixing: of the views with one another; None: each shows one sample. Partners are drawn among these samples.
        seed: of augmentation, policy and mixing.
        name: how error messages call the data.
    """

    thread_safe = True

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        scale: float = 1.0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        augment: CropFlip | None = None,
        policy: Policy | None = None,
        mixing: Mixing | None = None,
        seed: int = 0,
        name: str = "the data",
    ) -> None:
        if len(inputs) != len(targets):
            raise ValueError(f"{name}: {len(inputs)} inputs and {len(targets)} targets: their numbers must be equal")
        if (mean is None) != (std is None):
            raise ValueError(f"{name}: mean and std belong together: give both or neither")
        channels = inputs.shape[1] if inputs.dim() > 1 else 1
        if mean is not None and not len(mean) == len(std) == channels:
            raise ValueError(f"{name}: mean and std need {channels} values, got {len(mean)} and {len(std)}")
        if mixing is not None and (inputs.dim() != 4 or targets.dim() != 1 or targets.is_floating_point()):
            raise UserError(
                f"{mixing.keys}: for pictures (C, H, W) that have one class number each; {name} has inputs of shape "
                f"{tuple(inputs.shape[1:])} and targets {str(targets.dtype).removeprefix('torch.')} of shape "
                f"{tuple(targets.shape[1:])}: leave it out"
            )
        if policy is not None:
            _require_pictures(policy, inputs, targets, scale, name)
        self.policy, self.mixing = policy, mixing
        self.augment = augment if augment is not None and augment.active else None
        self.targets, self.seed, self.name = targets.contiguous(), seed, name
        self._storage = inputs.contiguous() if self.augment is None else self.augment.pad(inputs)
        # (x / scale - mean) / std as shift + x * factor: two passes over a batch
        factors = [1 / (scale * s) for s in std] if std is not None else [1 / scale]
        shifts = [-m / s for m, s in zip(mean, std, strict=True)] if mean is not None else [0.0]
        self._affine = list(zip(shifts, factors, strict=True))

    def __len__(self) -> int:
        return len(self.targets)

    def on(self, device: torch.device) -> ArrayData:
        """The same data on a device: batches are gathered, cropped, flipped and normalised there. The pictures are those of
        the CPU; normalised, they may differ in the last digit."""
        there = copy.copy(self)
        there.targets, there._storage = self.targets.to(device), self._storage.to(device)
        return there

    @property
    def nbytes(self) -> int:
        """Bytes of pixels and targets."""
        return self._storage.nbytes + self.targets.nbytes

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """View 0 of one sample (what a plain DataLoader sees)."""
        inputs, target = self.read(torch.tensor([range(len(self))[index]]), 0)
        return inputs[0], target[0]

    def unmixed(self) -> ArrayData:
        """The same data, each view of a sample by itself: what is to be learned of it has one label."""
        alone = copy.copy(self)
        alone.mixing = None
        return alone

    def gather(self, indices: Tensor, view: int) -> tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Partner]:
        """One batch: inputs float32 of shape (N, ...) and their targets, for ``indices`` int64 of shape (N,).

        Where samples are mixed, the inputs are mixtures, ``target`` is the sample's own, and a :class:`Partner` follows.
        """
        if self.mixing is None:
            return self._views(indices, view)
        p = 0 if self.augment is None else self.augment.crop_padding
        height, width = (side - 2 * p for side in self._storage.shape[2:])
        plan = self.mixing.plan(self.seed, view, indices.cpu(), len(self), height, width)
        both, targets = self._views(torch.cat([indices, plan.partner.to(indices.device)]), view)
        n = len(indices)
        partner = Partner(targets[n:], plan.weight.to(targets.device))
        return mixed(both[:n], both[n:], plan.mask), targets[:n], partner

    def _views(self, indices: Tensor, view: int) -> tuple[Tensor, Tensor]:
        """A view of each sample by itself."""
        chosen = indices.to(self._storage.device)
        target = self.targets.index_select(0, chosen)
        if self.augment is None:
            values = self._storage.index_select(0, chosen)
        else:
            values = self.augment.gather(self._storage, indices, self.seed, view)
            places = torch.arange(len(indices))
            target = moved_along(self.augment, target, values.shape[-2:], places, self.seed, view, indices)
        if self.policy is None:
            return self._normalise(values), target
        values = self.policy.changed(values, indices, self.seed, view)
        return self.policy.erase(self._normalise(values), indices, self.seed, view), target

    def read(self, indices: Tensor, view: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets as of :meth:`gather`."""
        inputs, target, *_ = self.gather(indices, view)
        return inputs, target

    def describe(self, index: int) -> str:
        """How an error message calls a sample."""
        return f"sample {index} of {self.name}"

    def _normalise(self, values: Tensor) -> Tensor:
        inputs = values.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        if len(self._affine) == 1:
            shift, factor = self._affine[0]
            return inputs if (shift, factor) == (0.0, 1.0) else torch.add(shift, inputs, alpha=factor, out=inputs)
        for channel, (shift, factor) in enumerate(self._affine):
            plane = inputs[:, channel]
            torch.add(shift, plane, alpha=factor, out=plane)
        return inputs


def _require_pictures(policy: Policy, inputs: Tensor, targets: Tensor, scale: float, name: str) -> None:
    if inputs.dim() != 4 or is_dense(targets, inputs.shape[2:]):
        raise UserError(
            f"{policy.keys}: for pictures (C, H, W) whose target is not one of pixels; {name} has inputs of shape "
            f"{tuple(inputs.shape[1:])} and targets of shape {tuple(targets.shape[1:])}: leave it out"
        )
    if policy.changes_bytes and (inputs.dtype != torch.uint8 or scale != 255 or inputs.shape[1] not in (1, 3)):
        raise UserError(
            f"{policy.keys_of_bytes}: for pictures of one or three channels of bytes, 0 to 255; {name} has "
            f"{inputs.shape[1]} of {str(inputs.dtype).removeprefix('torch.')}, 0 to {scale:g}: leave it out"
        )
