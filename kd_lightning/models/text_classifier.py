"""A pretrained classifier of texts, as a teacher for students that cut texts into other tokens."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kd_lightning.models.own_tokenizer import OwnTokenizer


class TextClassifier(OwnTokenizer):
    """N texts to logits (N, C).

    Args:
        pretrained, package, max_length: see :class:`~kd_lightning.models.own_tokenizer.OwnTokenizer`.

    Attributes:
        class_names: what its classes are called, in their order; by these a teacher's classes are found among the data's.

    Raises:
        UserError: a package is missing, or there is no such model.
    """

    opens = "AutoModelForSequenceClassification"

    def __init__(self, pretrained: str, package: str | None = None, max_length: int = 128) -> None:
        super().__init__(pretrained, package, max_length)
        names: Any = self.network.config
        self.class_names = [str(names.id2label[k]) for k in sorted(names.id2label)]

    def answer(self, tokens: Any) -> Tensor:
        """Logits of a batch of tokens."""
        logits: Tensor = self.network(**tokens).logits
        return logits
