"""Tokenized texts in memory, and batches of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from kd_lightning.errors import UserError

Tokenizer = Callable[..., Mapping[str, Any]]


class TextRows(Dataset):
    """Items ``{"input_ids", "attention_mask", "text", "label"}``; the first two int64 of shape (L,).

    Args:
        texts: N texts.
        labels: N labels, None where one is missing; None: there are none.
        tokenizer: called with a list of texts, ``truncation=True`` and ``max_length``, gives ``input_ids``.
        max_length: the most tokens of a text, >= 1.
        positions: where each text stands in the file, int64 of shape (N,).
        total: texts in the file.
        ids: what each text is called, or None.
        groups: what each text belongs to, or None.
        origin: which of the files it is: "train", "val" or "test".
    """

    thread_safe = True

    def __init__(
        self,
        texts: Sequence[str],
        labels: Sequence[Any] | None,
        tokenizer: Tokenizer,
        max_length: int,
        *,
        positions: Tensor | None = None,
        total: int | None = None,
        ids: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
        origin: str = "train",
    ) -> None:
        self.texts, self.labels = list(texts), None if labels is None else list(labels)
        self.positions = torch.arange(len(self.texts)) if positions is None else positions
        self.total, self.ids, self.groups, self.origin = total or len(self.texts), ids, groups, origin
        self.padding = padding_of(tokenizer)
        try:
            numbers = tokenizer(self.texts, truncation=True, max_length=max_length)["input_ids"]
        except Exception as error:  # whatever a tokenizer does
            if isinstance(error, UserError):
                raise
            text = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(
                f"data.tokenizer: {type(tokenizer).__name__} cannot be called as tokenizer(texts, truncation=True, "
                f"max_length={max_length}): {text[:200]}"
            ) from error
        numbers = [row if len(row) else [self.padding] for row in numbers]
        ends = torch.tensor([0, *(len(row) for row in numbers)]).cumsum(0)
        self.starts, self.lengths = ends[:-1], ends[1:] - ends[:-1]
        self.tokens = torch.tensor([number for row in numbers for number in row], dtype=torch.int32)

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        start, length = int(self.starts[index]), int(self.lengths[index])
        numbers = self.tokens[start : start + length].long()
        item = {"input_ids": numbers, "attention_mask": torch.ones_like(numbers), "text": self.texts[index]}
        return item if self.labels is None else {**item, "label": self.labels[index]}

    def gather(self, indices: Tensor, view: int) -> tuple[dict[str, Any], list[Any] | None]:
        """A batch, padded to its longest text: inputs (N, L) and the texts, and their labels."""
        lengths = self.lengths[indices]
        places = torch.arange(int(lengths.max()))
        mask = places < lengths[:, None]
        wanted = (self.starts[indices][:, None] + places).clamp(max=len(self.tokens) - 1)
        numbers = torch.where(mask, self.tokens[wanted].long(), self.padding)
        rows = indices.tolist()
        inputs = {"input_ids": numbers, "attention_mask": mask.long(), "text": [self.texts[row] for row in rows]}
        return inputs, None if self.labels is None else [self.labels[row] for row in rows]


def padding_of(tokenizer: Tokenizer) -> int:
    """The token number that pads; 0 where the tokenizer names none."""
    return int(getattr(tokenizer, "pad_token_id", None) or 0)


class PaddedBatch:
    """Makes a batch of single items, padded to the longest, as :meth:`TextRows.gather` does.

    Args:
        padding: the token number that pads.
    """

    thread_safe = True

    def __init__(self, padding: int) -> None:
        self.padding = padding

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Token numbers and masks (N, L), the other fields as lists."""
        longest = max(len(item["input_ids"]) for item in items)
        made: dict[str, Any] = {}
        for name, filling in (("input_ids", self.padding), ("attention_mask", 0)):
            made[name] = torch.full((len(items), longest), filling)
            for row, item in enumerate(items):
                made[name][row, : len(item[name])] = item[name]
        return made | {name: [item[name] for item in items] for name in items[0] if name not in made}
