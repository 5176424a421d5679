"""A bag of tokens: the mean of their vectors, and a perceptron (fastText: Joulin et al. 2017, arXiv:1607.01759)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class TokenBag(nn.Module):
    """Classifies texts by which tokens they hold, whatever their order.

    Args:
        vocab_size: token numbers, 0 to ``vocab_size - 1``.
        num_classes: C.
        width: length of a token's vector.
        hidden: widths of the layers between the mean and the logits.
        dropout: of the mean, in [0, 1).
    """

    def __init__(
        self, vocab_size: int, num_classes: int, width: int = 16, hidden: Sequence[int] = (), dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.vectors = nn.Embedding(vocab_size, width)
        self.dropout = nn.Dropout(dropout)
        layers: list[nn.Module] = []
        for into, out in zip([width, *hidden], hidden, strict=False):
            layers += [nn.Linear(into, out), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear([width, *hidden][-1], num_classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token numbers and mask (1: a token, 0: padding), both (N, L), to logits (N, C)."""
        mask = attention_mask.unsqueeze(-1).to(self.vectors.weight.dtype)
        mean = (self.vectors(input_ids) * mask).sum(1) / mask.sum(1).clamp_min(1)
        logits: Tensor = self.head(self.body(self.dropout(mean)))
        return logits
