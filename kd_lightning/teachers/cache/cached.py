"""Stored teacher outputs in the teacher's place: each view of each sample is shown to the teacher once, then read.

Possible because an augmented view is a function of (seed, view, index). What is stored is keyed by everything that the
outputs depend on (teacher, data, transform and augmentation, precision), sealed by checksums, and compared with the
live teacher on some rows whenever it is opened: a run reads the right numbers or stops.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kd_lightning.batch import Batch
from kd_lightning.errors import UserError
from kd_lightning.joints import Teacher
from kd_lightning.outputs import ModelOutput
from kd_lightning.teachers.cache.forms import NotCacheable
from kd_lightning.teachers.cache.marks import input_marks, same_inputs
from kd_lightning.teachers.cache.rows import RowCodec
from kd_lightning.teachers.cache.sealed import CacheError
from kd_lightning.teachers.cache.store import CacheStore
from kd_lightning.teachers.cache.writer import Announce, move_data_to_device
from kd_lightning.teachers.wrapper import TeacherWrapper

log = logging.getLogger(__name__)

TRAINING = "train"
RECHECKED_ROWS = 64


class CachedTeacher(TeacherWrapper):
    """A teacher that answers training batches from its stored outputs, and asks the live one for all others.

    A batch says by ``split``, ``view`` and ``index`` what it holds, and its inputs must be the ones that were answered:
    where something changes batches after loading (mixup in a callback), the live teacher answers from then on.
    Features are not stored.

    Args:
        teacher: the live teacher.
        store: its stored outputs.
        codec: how they are stored.
        views: those that this run reads.
        strict: other inputs than the stored ones are an error.
        announce: told, once, where they are none.
    """

    def __init__(
        self,
        teacher: Teacher,
        store: CacheStore,
        codec: RowCodec,
        views: Sequence[int],
        *,
        strict: bool = False,
        announce: Announce = log.info,
    ) -> None:
        super().__init__(teacher)
        self.store = store
        self._codec, self._views = codec, frozenset(views)
        self._strict, self._announce = strict, announce
        self._in_use = True
        self._rows: dict[int, Tensor] = {}

    def __call__(self, batch: Batch) -> ModelOutput:
        """Logits of shape (N, C), float32, on the device of the batch's index."""
        index = batch.index
        numbers = batch.view.unique().tolist() if isinstance(batch.view, Tensor) else [batch.view]
        if not self._in_use or index is None or batch.split != TRAINING or not self._views.issuperset(numbers):
            return self.teacher(batch)
        try:
            rows = self._rows_of(index.cpu(), batch.view, numbers)
        except IndexError:
            raise UserError(
                f"teacher cache {self.store.directory}: sample {int(index.max())} is not among its "
                f"{self.store.samples} training samples"
            ) from None
        if not same_inputs(input_marks(batch.inputs), self._codec.marks(rows)).all():
            self._step_aside()
            return self.teacher(batch)
        answer = self._codec.decode(rows)
        return move_data_to_device(answer, index.device) if index.is_cuda else answer

    def _rows_of(self, index: Tensor, view: int | Tensor, numbers: Sequence[int]) -> Tensor:
        """The stored rows of samples (N,) in a view, or in ``numbers``, each in its own of ``view`` (N,)."""
        if not isinstance(view, Tensor):
            return self.rows(view).index_select(0, index)
        places = [(view == number).nonzero()[:, 0].cpu() for number in numbers]
        found = [self.rows(number)[index[chosen]] for number, chosen in zip(numbers, places, strict=True)]
        return torch.cat(found)[torch.cat(places).argsort()]

    def _step_aside(self) -> None:
        reason = (
            "training inputs are changed after they were loaded (by a callback?), and stored answers are not theirs"
        )
        if self._strict:
            raise CacheError(f"teacher cache {self.store.directory}: {reason}: set teacher.cache=off")
        self._in_use = False
        self._announce(f"teacher cache: not used, {reason}")

    def rows(self, view: int) -> Tensor:
        """The stored rows of a view, uint8 of shape (samples, row bytes), verified when first asked for."""
        if view not in self._rows:
            self._rows[view] = torch.from_numpy(self.store.rows(view))
        return self._rows[view]

    def recheck(self, dataset: Any, device: torch.device, count: int = RECHECKED_ROWS) -> None:
        """Compare about ``count`` stored rows, over at most four views, with what the live teacher says.

        Raises:
            NotCacheable: the data set gives other inputs than those that were answered.
            CacheError: answers differ by more than rounding (another precision, machine or batch size may cause).
        """
        views = sorted(self._views)
        chosen = [views[i] for i in sorted({round(i * (len(views) - 1) / 3) for i in range(4)})]
        for view in chosen:
            generator = torch.Generator().manual_seed(view)
            index = torch.randint(self.store.samples, (max(1, count // len(chosen)),), generator=generator)
            inputs, target = dataset.read(index, view)
            batch = Batch(inputs, target, index, view, TRAINING)
            stored = self.rows(view).index_select(0, index)
            require_equal_readings(dataset, index[:8], view)
            live = self.teacher(move_data_to_device(batch, device)).logits.float().cpu()
            far = self._codec.deviation(live, stored) > self._tolerance
            wrong = int((far | ~same_inputs(input_marks(batch.inputs), self._codec.marks(stored))).sum())
            if wrong:
                raise CacheError(
                    f"{self.store.paths(view)[0]}: {wrong} of {len(index)} rows are not what the teacher says now "
                    "(rows in another order, or a model whose code changed): delete the directory with kd-cache prune"
                )

    @property
    def _tolerance(self) -> float:
        precision = self.cache_parts().get("precision")
        if "bf16" in (self._codec.precision, precision):
            return 5e-2
        return 2e-2 if precision == "fp16" else 5e-3


def require_equal_readings(dataset: Any, index: Tensor, view: int) -> None:
    """Raise NotCacheable where reading samples twice gives different inputs."""
    first, second = (input_marks(dataset.read(index, view)[0]) for _ in range(2))
    if not same_inputs(first, second).all():
        raise NotCacheable(
            "the data set gives other inputs each time it is read (it draws at random): no stored answer would be theirs"
        )
