"""Which way of reading suits a data set, and the same way without a loader."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils.data import IterableDataset, Subset

from kd_lightning.data.loader.foreign import ForeignCode
from kd_lightning.data.loader.reader import Delivery, Reader
from kd_lightning.data.loader.readers import FillReader, GatherReader, ItemReader, ItemsReader
from kd_lightning.data.loader.stream_reader import StreamReader
from kd_lightning.data.loader.tasks import Slot, Workers
from kd_lightning.data.loader.wrappers import fills, gathers, with_views


def has_getitems(dataset: Any) -> bool:
    """torch's Subset has ``__getitems__`` always; it is worth calling where the data set inside has it."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return callable(getattr(dataset, "__getitems__", None))


def is_stream(dataset: Any) -> bool:
    """An iterable data set: no sample has a position."""
    if isinstance(dataset, IterableDataset):
        return True
    by_position = hasattr(dataset, "__getitem__") or hasattr(dataset, "__getitems__")
    return not by_position and not gathers(dataset) and not fills(dataset)


def choose_reader(dataset: Any, single: bool) -> type[Reader]:
    """The fastest way that the data set offers; ``single``: samples are asked for one by one, for a collate function."""
    if is_stream(dataset):
        return StreamReader
    if not single and gathers(dataset):
        return GatherReader
    if not single and fills(dataset):
        return FillReader
    return ItemsReader if has_getitems(dataset) else ItemReader


def read_now(dataset: Any, indices: Tensor, view: int, seed: int) -> Any:
    """What a loader delivers for some samples in one view, read in this thread."""
    dataset = with_views(dataset)
    reader = choose_reader(dataset, single=False)(ForeignCode(dataset, seed, view), Delivery(view), len(indices), 1)
    slot = Slot(0, indices)
    workers = Workers(dataset, reader)
    reader.prepare(dataset, slot)
    for chunk in slot.cut(len(indices)):
        reader.read(dataset, chunk, workers)
    return reader.complete(dataset, slot)
