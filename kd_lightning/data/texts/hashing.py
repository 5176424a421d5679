"""A tokenizer that needs no vocabulary: words, and sequences of letters, by the hash of what they are (Weinberger et al.
2009, arXiv:0902.2206)."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence

from kd_lightning.errors import UserError

_WORD = re.compile(r"\w+")
PADDING = 0


class HashingTokenizer:
    """Token numbers 1 … ``vocab_size - 1``; 0 pads. Two tokens may share a number, more of them the fewer there are.

    Called as tokenizers of Hugging Face are: ``tokenizer(texts, truncation=True, max_length=128)``.

    Args:
        vocab_size: how many numbers there are, 0 included, >= 2.
        words: whole words are tokens.
        ngrams: lengths of the letter sequences that are tokens, each >= 1; a word's ends count as a letter.
        lowercase: capital letters are small ones.

    >>> HashingTokenizer(1000)(["A cat.", "a CAT"])["input_ids"]
    [[172, 470], [172, 470]]
    """

    pad_token_id = PADDING

    def __init__(
        self, vocab_size: int = 4096, words: bool = True, ngrams: Sequence[int] = (), lowercase: bool = True
    ) -> None:
        if vocab_size < 2:
            raise UserError(f"data.tokenizer.vocab_size must be >= 2, got {vocab_size}")
        if not words and not ngrams:
            raise UserError("data.tokenizer: with words=false it needs ngrams, as [3]")
        if any(length < 1 for length in ngrams):
            raise UserError(f"data.tokenizer.ngrams: lengths must be >= 1, got {list(ngrams)}")
        self.vocab_size, self.words, self.ngrams, self.lowercase = vocab_size, words, list(ngrams), lowercase

    def __len__(self) -> int:
        return self.vocab_size

    def __call__(
        self, texts: Sequence[str], truncation: bool = False, max_length: int | None = None
    ) -> dict[str, list[list[int]]]:
        """``input_ids`` of each text; with ``truncation`` at most ``max_length``, the first ones."""
        limit = max_length if truncation else None
        return {"input_ids": [[self._number(token) for token in self._tokens(text)][:limit] for text in texts]}

    def _tokens(self, text: str) -> Iterator[str]:
        for word in _WORD.findall(text.lower() if self.lowercase else text):
            if self.words:
                yield word
            bounded = f"\x02{word}\x03"
            for length in self.ngrams:
                for start in range(len(bounded) - length + 1):
                    yield bounded[start : start + length]

    def _number(self, token: str) -> int:
        return zlib.crc32(token.encode("utf-8")) % (self.vocab_size - 1) + 1
