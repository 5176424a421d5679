"""A pretrained encoder of texts: one vector of unit length for each (Reimers & Gurevych 2019, arXiv:1908.10084)."""

from __future__ import annotations

from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor

from kd_lightning.models.own_tokenizer import OwnTokenizer


class SentenceEncoder(OwnTokenizer):
    """N texts to vectors (N, D) of length 1.

    Args:
        pretrained, package, max_length: see :class:`~kd_lightning.models.own_tokenizer.OwnTokenizer`.
        pooling: a text's vector is the mean over its tokens, or the first token's; the model's authors say which.

    Raises:
        UserError: a package is missing, or there is no such model.
    """

    def __init__(
        self,
        pretrained: str,
        package: str | None = None,
        pooling: Literal["mean", "first"] = "mean",
        max_length: int = 128,
    ) -> None:
        super().__init__(pretrained, package, max_length)
        self.pooling = pooling

    def answer(self, tokens: Any) -> Tensor:
        """Vectors of a batch of tokens."""
        states: Tensor = self.network(**tokens).last_hidden_state
        if self.pooling == "first":
            return F.normalize(states[:, 0].float(), dim=1)
        mask = tokens["attention_mask"].unsqueeze(-1).to(states.dtype)
        return F.normalize(((states * mask).sum(1) / mask.sum(1)).float(), dim=1)
