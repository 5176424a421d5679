"""What the first two items of a user's data set tell: the form of the inputs, and whether the data set draws."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kd_lightning.data.content import item_digest
from kd_lightning.data.inputs import Inputs
from kd_lightning.data.items import ItemForm
from kd_lightning.data.sample_data import Items
from kd_lightning.errors import UserError


class FirstLook:
    """Reads two items, the first of them twice under the same random numbers.

    Attributes:
        inputs: how inputs are cast.
        first, target: the first item's inputs and its target, as they are.
        shape: of a sample's inputs after the cast; None where they are no single tensor.
        draws: items differ from view to view.
        repeats: an item is the same when it is read again under the same random numbers.
        notes: what a user should know, a few words each.

    Raises:
        UserError: items cannot be read or made a batch of, or share one piece of memory.
    """

    def __init__(self, items: Items, form: ItemForm, input_type: str | None) -> None:
        item = items(0)
        before, again = item_digest(item), items(0)
        self.repeats = before == item_digest(again)
        if items.rows > 1:
            items(1)
        if item_digest(item) != before:
            raise UserError(
                f"data.train: {items.kind} writes every item into the memory of the one before: return a copy (.clone(), "
                ".copy())"
            )
        self.draws = items.drew or not self.repeats
        self.first, self.target = form.split(item)
        try:
            batch, _ = form.batch([item])
        except UserError:
            raise
        except Exception as error:  # whatever a collate function does
            text = " ".join(str(error).split())
            raise UserError(f"data.train: no batch can be made of an item of {items.kind}: {text}") from error
        self.inputs = Inputs(batch[0] if isinstance(batch, Tensor) else batch, input_type)
        cast: Any = self.inputs.cast(batch)
        self.kind = type(cast).__name__
        self.shape = tuple(cast.shape[1:]) if isinstance(cast, Tensor) else None
        self.notes = [*filter(None, [form.said(item)]), *self.inputs.notes]
        if not self.repeats:
            self.notes.append(
                "the data set draws from a generator of its own, which nobody can seed: its views cannot be made again"
            )

    def require_pictures(self) -> None:
        """Raise a UserError where there is nothing to crop and flip."""
        if self.shape is None or len(self.shape) != 3:
            told = f"shape {self.shape}" if self.shape is not None else f"no single tensor but {self.kind}"
            raise UserError(f"data.augment crops images (C, H, W), the samples have {told}: set it false")
