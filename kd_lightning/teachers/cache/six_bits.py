"""Six bits a logit: levels that lie close where softmax looks, near the largest class, and far apart below.

A class that is d below its sample's largest logit gets the code q of the nearest level ``d = span * (q / 63)^2``, where
``span`` is the distance from the largest to the smallest. Its error is at most ``span * (q + 1/2) / 3969``: a fortieth of
a percent of the span near the top, 1.6 % at the bottom. Code 0 is the largest class's alone, so that the decision stays.
The largest logit and the span are stored beside the codes, two bytes each: the level as well as the shape comes back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from kd_lightning.losses.inputs import MASKED
from kd_lightning.teachers.cache.approximate import SIX_BIT
from kd_lightning.teachers.cache.forms import NotCacheable, relative_deviation
from kd_lightning.teachers.cache.store import Column

_TOP = 63  # the largest code
_RELATIVE, _LEAST = 2.0**-10, 2.0**-13
"""A span is at least so much of the largest logit, and at least so much: what is next to the largest stays below it when
both are float32, and the span is no subnormal number of fp16. Both are below what fp16 could tell apart."""


class SixBitLogits:
    """Logits of classes, (N, C) or (N, C, ...), as packed codes, the largest of each row, and its span.

    Args:
        shape: of a sample's logits, (C, ...).
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._classes, places = shape[0], shape[1:]
        self.columns = [
            Column("codes", "uint8", (*places, packed_bytes(self._classes))),
            Column("largest", "fp16", places),
            Column("span", "fp16", places),
        ]

    def parts(self, logits: Tensor) -> dict[str, Tensor]:
        """What is stored of logits (N, C, ...), by column."""
        rows = logits.float().movedim(1, -1)
        if rows.numel() and float(rows.amin()) <= MASKED:
            raise NotCacheable(
                f"teacher.cache_precision={SIX_BIT} cannot hold classes that the teacher masks (logits of -inf): use fp16"
            )
        largest, first = rows.max(dim=-1, keepdim=True)
        below = largest - rows
        span = torch.maximum(below.amax(-1, keepdim=True), largest.abs() * _RELATIVE).clamp_min(_LEAST)
        codes = (below / span.half().float()).sqrt_().mul_(_TOP).round_().clamp_(1, _TOP).to(torch.uint8)
        codes.scatter_(-1, first, 0)
        return {"codes": pack(codes), "largest": largest.squeeze(-1), "span": span.squeeze(-1)}

    def logits(self, parts: Mapping[str, Tensor]) -> Tensor:
        """The logits (N, C, ...), float32."""
        codes = unpack(parts["codes"], self._classes).float()
        unit = parts["span"].float().div_(-(_TOP**2)).unsqueeze(-1)
        rows = torch.addcmul(parts["largest"].float().unsqueeze(-1), codes.square_(), unit)
        return rows.movedim(-1, 1)

    def deviation(self, live: Tensor, parts: Mapping[str, Tensor]) -> Tensor:
        """Beyond half a step of each logit's level."""
        codes = unpack(parts["codes"], self._classes).float()
        rounding = (codes + 0.5) * (parts["span"].float() / _TOP**2).unsqueeze(-1)
        return relative_deviation(live, self.logits(parts), rounding.movedim(-1, 1))


def packed_bytes(codes: int) -> int:
    """Bytes that so many codes of six bits take."""
    return math.ceil(codes * 6 / 8)


def pack(codes: Tensor) -> Tensor:
    """Codes below 64, uint8 of shape (..., C), four in three bytes: uint8 of shape (..., packed_bytes(C))."""
    count = codes.shape[-1]
    a, b, c, d = torch.nn.functional.pad(codes, (0, -count % 4)).unflatten(-1, (-1, 4)).unbind(-1)
    threes = torch.stack([a | (b << 6), (b >> 2) | (c << 4), (c >> 4) | (d << 2)], dim=-1)
    return threes.flatten(-2)[..., : packed_bytes(count)]


def unpack(packed: Tensor, count: int) -> Tensor:
    """The codes again, uint8 of shape (..., count)."""
    threes = torch.nn.functional.pad(packed, (0, -packed.shape[-1] % 3)).unflatten(-1, (-1, 3))
    x, y, z = threes.unbind(-1)
    fours = torch.stack([x & 63, (x >> 6) | ((y & 15) << 2), (y >> 4) | ((z & 3) << 4), z >> 2], dim=-1)
    return fours.flatten(-2)[..., :count]
