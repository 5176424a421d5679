"""Maps with the channels in front (N, C, H, W) and behind (N, H, W, C), told apart by the layers that made them; tokens as maps.

Losses on maps read dimension 1 as channels. Swin and other transformers keep them last, and a row of pixels taken for
channels is a loss that looks like any other.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from kd_lightning.errors import UserError

CHANNELS_FIRST, CHANNELS_LAST, TOKENS = ":nchw", ":nhwc", ":map"
"""Words behind a layer's name in a method's taps that say its layout; the last one makes a map of tokens."""

IN_FRONT = (0, 1, 2, 5)
"""Tokens before the patches: none, a class token, one of distillation as well, four registers as well."""

_FIRST = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.GroupNorm, nn.InstanceNorm2d)


def split_layout(layer: str) -> tuple[str, str | None]:
    """A tap's layer without its word on layout, and that word, if there is one."""
    for word in (CHANNELS_FIRST, CHANNELS_LAST, TOKENS):
        if layer.endswith(word):
            return layer.removesuffix(word), word
    return layer, None


def channels_first(feature: Tensor, module: nn.Module, declared: str | None, where: str) -> Tensor:
    """A map with its channels in dimension 1; features of other than four dimensions as they are, unless tokens are declared
    to be one.

    Args:
        feature: what a layer gave.
        module: the layer.
        declared: :data:`CHANNELS_FIRST`, :data:`CHANNELS_LAST`, or None: the layer's own convolutions and norms tell.
        where: the tap, for messages.

    Raises:
        UserError: the layout cannot be told, and the shape speaks for channels behind.
    """
    if declared == TOKENS:
        return _map_of(feature, where)
    if feature.dim() != 4 or declared == CHANNELS_FIRST:
        return feature
    if declared == CHANNELS_LAST or _ends_channels_last(module, feature):
        return feature.permute(0, 3, 1, 2)
    square_in_front = feature.shape[1] == feature.shape[2] != feature.shape[3]
    if square_in_front and not _has_channels(module, feature.shape[1]):
        raise UserError(
            f"{where} gives {tuple(feature.shape)}, which looks like (N, H, W, channels): write {CHANNELS_LAST} behind the "
            f"layer's name if it is, {CHANNELS_FIRST} if its channels are in front"
        )
    return feature


def square_side(tokens: int) -> int | None:
    """Height and width H of the square of patches that so many tokens are, with or without some in front; None: of none."""
    side = math.isqrt(tokens)
    extra = tokens - side**2
    if side == 0 or extra not in IN_FRONT or 2 * extra > side:
        return None  # so many more may as well be a picture that is no square
    return side


def _map_of(tokens: Tensor, where: str) -> Tensor:
    """Tokens (N, L, D) of a square's patches, row by row, as (N, D, H, H); what stands in front of them is left out."""
    side = square_side(tokens.shape[1]) if tokens.dim() == 3 else None
    if side is None:
        raise UserError(
            f"{where} gives {tuple(tokens.shape)}: {TOKENS} needs tokens (N, L, D) of a square of patches, L = H x H, and in "
            "front of them at most a class token, one of distillation or four registers"
        )
    return tokens[:, tokens.shape[1] - side**2 :].transpose(1, 2).unflatten(2, (side, side))


def _ends_channels_last(module: nn.Module, feature: Tensor) -> bool:
    """Whether the layer's parts are made for as many values as its last dimension has, and none for its first."""
    if _has_channels(module, feature.shape[1]):
        return False
    last = feature.shape[-1]
    for part in module.modules():
        if isinstance(part, nn.LayerNorm) and tuple(part.normalized_shape) == (last,):
            return True
        if isinstance(part, nn.Linear) and last in (part.out_features, part.in_features):
            return True
    return False


def _has_channels(module: nn.Module, channels: int) -> bool:
    """Whether a convolution or a norm over channels in the layer gives so many of them."""
    for part in module.modules():
        if isinstance(part, _FIRST):
            given = getattr(part, "out_channels", getattr(part, "num_features", getattr(part, "num_channels", None)))
            if given == channels:
                return True
    return False
