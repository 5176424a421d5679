"""From the bytes of an image file to RGB pixels, or to one line that says what is wrong with the file.

JPEG goes to libjpeg-turbo through simplejpeg, which is the fastest decoder in a wheel and lets other threads run; what
it does not take (CMYK, other formats, slightly damaged files that Pillow can still read whole) goes to Pillow. A file's
kind is told by its content, not by its name.
"""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from kd_lightning.data.images.grey import GreyError, grey_bytes
from kd_lightning.errors import UserError

MAX_PIXELS = 89_478_485  # Pillow's limit too: a quarter of a GiB as RGB
_FIX = "remove the file, or set data.on_bad_image=skip"
_TURBO_SPACES = ("YCbCr", "Gray", "RGB")
_ORIENTATION = 0x0112
_SEQUENTIAL = (0xC0, 0xC1)  # JPEG markers before a picture's size; 0xDA: its data begin
_BELOW = re.compile(r"extraneous bytes before marker 0xd[0-79]")  # the next restart, or the end
# EXIF orientation -> (swap rows and columns first, flip rows, flip columns)
_TURNS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


class ImageError(UserError):
    """An image file cannot be decoded; the text names the file and the reason."""


def read_image(
    path: str | Path,
    factor: Callable[[int, int], int] | None = None,
    max_pixels: int = MAX_PIXELS,
    rows: Callable[[int, int], int] | None = None,
    grey_white: int | None = None,
) -> tuple[np.ndarray, tuple[int, int]]:
    """The RGB pixels of an image file, uint8 of shape (H, W, 3), upright, and the picture's full (height, width).

    Args:
        path: the file.
        factor: called with a JPEG's full (height, width); the picture is decoded at 1/2, 1/4 or 1/8 of that if it
            answers 2, 4 or 8. Faster for large files. libjpeg shrinks by leaving out the high frequencies of each 8x8
            block, which keeps more detail than averaging its pixels: after an antialiased resize photographs differed
            by 1.3 to 5 of 255 on average, and 99 % of their values by less than 11 to 35 (bounded in
            tests/data/test_decode.py). None: the full size.
        max_pixels: larger images are refused, before any of them is decoded.
        rows: called with the full (height, width); how many rows from the top will be looked at. Those below may hold
            anything: a JPEG is not decoded further than that where it need not be, nor is damage found there.
            None: all.
        grey_white: which value of a grey picture of more than 8 bits is white. None: 255, 4095 or 65535, the first that
            its largest value does not exceed (values up to 1.0 in files of floats: 1.0), told once.

    Raises:
        ImageError: the file is not there, empty, truncated, not an image, or too large.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            data = file.read()
    except OSError as error:
        raise ImageError(f"{shown(path)} cannot be read: {error.strerror or error}; {_FIX}") from error
    return decode_image(data, shown(path), factor, max_pixels, rows, grey_white)


def shown(path: str | Path) -> str:
    """A path that can be printed and stored: bytes of a name that are not UTF-8 become ``\\xe9``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def decode_image(
    data: bytes,
    name: str,
    factor: Callable[[int, int], int] | None = None,
    max_pixels: int = MAX_PIXELS,
    rows: Callable[[int, int], int] | None = None,
    grey_white: int | None = None,
) -> tuple[np.ndarray, tuple[int, int]]:
    """:func:`read_image` for bytes that are in memory; ``name`` is for error messages."""
    if not data:
        raise ImageError(f"{name} is empty (0 bytes); {_FIX}")
    if data[:2] == b"\xff\xd8":
        decoded = _decode_turbo(data, name, factor, max_pixels, rows)
        if decoded is not None:
            return decoded
    pixels = _decode_pillow(data, name, max_pixels, grey_white)
    return pixels, pixels.shape[:2]


def _decode_turbo(
    data: bytes,
    name: str,
    factor: Callable[[int, int], int] | None,
    max_pixels: int,
    rows: Callable[[int, int], int] | None,
) -> tuple[np.ndarray, tuple[int, int]] | None:
    """None where Pillow should try: what libjpeg-turbo cannot convert to RGB, or complains about."""
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        if space not in _TURBO_SPACES:
            return None
        _check_size(height, width, name, max_pixels)
        orientation = exif_orientation(data)
        full = (width, height) if orientation in _TURNS and _TURNS[orientation][0] else (height, width)
        by = factor(*full) if factor is not None else 1
        if by == 1:
            pixels = None
            if rows is not None and orientation not in _TURNS:
                pixels = _decode_rows(data, rows(height, width))
            if pixels is None:
                pixels = simplejpeg.decode_jpeg(data)
        else:
            pixels = simplejpeg.decode_jpeg(data, min_height=height // by, min_width=width // by, min_factor=by)
    except ImageError:
        raise
    except (ValueError, KeyError):  # KeyError: a colour sampling that simplejpeg has no name for (4:4:1)
        return None
    return upright(pixels, orientation), full


def _decode_rows(data: bytes, rows: int) -> np.ndarray | None:
    """A picture (H, W, 3) of which the first ``rows`` rows are decoded; None where all of it has to be.

    The decoder is told of a lower picture: it decodes that, then complains of the data that follow. It reports the
    first of its complaints, so if that is the one, the rows are whole.
    """
    at = _frame(data)
    if at is None:
        return None
    height, width, components = struct.unpack(">HHB", data[at + 5 : at + 10])
    block = 8 * max(data[at + 11 + 3 * k] & 15 for k in range(components))
    lower = -(-(rows + 2) // block) * block  # 2: colours are interpolated from the next row
    if lower >= height:
        return None
    pixels = np.empty((height, width, 3), np.uint8)
    told = bytearray(data)
    told[at + 5 : at + 7] = lower.to_bytes(2, "big")
    try:
        simplejpeg.decode_jpeg(told, buffer=pixels)
    except ValueError as error:
        return pixels if _BELOW.search(str(error)) else None
    return None  # nothing followed, so the file is shorter than it says


def _frame(data: bytes) -> int | None:
    """Where a sequential JPEG says its size (marker, length, precision, height, width, components …), or None."""
    at = 2
    while at + 20 < len(data) and data[at] == 0xFF:
        if data[at + 1] in _SEQUENTIAL:
            return at
        if data[at + 1] == 0xDA:
            return None
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _decode_pillow(data: bytes, name: str, max_pixels: int, grey_white: int | None) -> np.ndarray:
    if data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) >= 24:  # before Pillow warns of it
        width, height = struct.unpack(">II", data[16:24])
        _check_size(height, width, name, max_pixels)
    try:
        with Image.open(io.BytesIO(data)) as image:
            _check_size(image.height, image.width, name, max_pixels)
            orientation = image.getexif().get(_ORIENTATION, 1)
            if image.mode[0] in "IF":  # more than 8 bits a pixel: Pillow's convert() would clip them at 255
                pixels = grey_bytes(np.asarray(image), name, grey_white)
            else:
                if isinstance(image.info.get("transparency"), bytes):
                    image = image.convert("RGBA")  # Pillow warns of the direct way; the colours are the same
                pixels = np.array(image.convert("RGB"))  # a copy: torch wants to be able to write
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not an image (or of an unknown format); {_FIX}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} is too large: {error}; {_FIX}") from error
    except (ImageError, MemoryError):
        raise
    except GreyError as error:
        raise ImageError(f"{name} {error}; {_FIX}") from error
    except Exception as error:  # decoders of damaged files raise whatever comes: RuntimeError, TypeError, KeyError, …
        told = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{name} is damaged: {told}; {_FIX}") from error
    return upright(pixels, orientation)


def _check_size(height: int, width: int, name: str, max_pixels: int) -> None:
    if height * width > max_pixels:
        raise ImageError(
            f"{name} has {width}x{height} pixels, more than data.max_pixels={max_pixels:,} (a decompression bomb?); "
            f"{_FIX}, or raise data.max_pixels"
        )


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (H, W, 3) turned as the EXIF tag "orientation" (1..8) says; contiguous. Other values change nothing."""
    if orientation not in _TURNS:
        return pixels
    swap, flip_rows, flip_columns = _TURNS[orientation]
    turned = pixels.swapaxes(0, 1) if swap else pixels
    turned = turned[::-1] if flip_rows else turned
    return np.ascontiguousarray(turned[:, ::-1] if flip_columns else turned)


def exif_orientation(data: bytes) -> int:
    """The orientation in a JPEG's EXIF segment, 1 where there is none. Reads a few bytes; never raises."""
    at, end = 2, len(data) - 4
    while at < end and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xDA:  # the picture begins
            return 1
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            return _tiff_orientation(data[at + 10 : at + 2 + length])
        at += 2 + length
    return 1


def _tiff_orientation(tiff: bytes) -> int:
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return 1
    (start,) = struct.unpack(order + "I", tiff[4:8])
    count = struct.unpack(order + "H", tiff[start : start + 2])[0] if start + 2 <= len(tiff) else 0
    for at in range(start + 2, min(start + 2 + 12 * count, len(tiff) - 11), 12):
        tag, kind = struct.unpack(order + "HH", tiff[at : at + 4])
        if tag == _ORIENTATION and kind == 3:
            return struct.unpack(order + "H", tiff[at + 8 : at + 10])[0]
    return 1
