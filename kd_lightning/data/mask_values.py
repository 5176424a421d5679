"""What the pixels of a mask file mean: numbers of classes as they are, or grey values or colours that stand for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from kd_lightning.batch import UNLABELLED
from kd_lightning.errors import UserError

Value = int | Sequence[int]
"""A grey value, or a colour: red, green, blue, 0 to 255."""


class MaskValues:
    """Reads masks, and makes class numbers of what they hold.

    Args:
        values: of each class, in the classes' order; all grey values or all colours. None: a mask holds the numbers themselves.
        ignore: grey values, or colours, that mean "no label"; of those that ``values`` has, too, it is the class that counts.

    Raises:
        UserError: values of both kinds, colours that are none, or a value twice.
    """

    def __init__(self, values: Sequence[Value] | None, ignore: Sequence[Value]) -> None:
        self.colours = values is not None and any(not isinstance(value, int) for value in values)
        self.known: dict[int, int] | None = None
        if values is not None:
            if len({isinstance(value, int) for value in values}) > 1 or len(values) < 2:
                raise UserError(
                    f"data.mask_values={list(values)}: name a grey value for each class ([0, 255]), or a colour for each ([[0, 0, 0], "
                    "[255, 0, 0]])"
                )
            numbers = [_number(value, "data.mask_values") for value in values]
            if len(set(numbers)) < len(numbers):
                raise UserError(f"data.mask_values={list(values)}: two classes have one value")
            self.known = {number: place for place, number in enumerate(numbers)}
        fitting = [value for value in ignore if isinstance(value, int) != self.colours]
        self.ignored = [_number(value, "data.ignore") for value in fitting]

    def read(self, path: str) -> np.ndarray:
        """What is in a mask's file, (H, W), uint8 or int32; a colour is one number.

        Raises:
            UserError: the file cannot be read, or holds colours where numbers are expected.
        """
        return read_colours(path) if self.colours else read_mask(path)

    def classes(self, found: np.ndarray, path: str) -> np.ndarray:
        """Class numbers, int64, ``UNLABELLED`` where there is no label, of what :meth:`read` gave, or a part of it.

        Raises:
            UserError: a value is none of those that are known.
        """
        made = found.astype(np.int64)
        if self.known is None:
            made[np.isin(made, self.ignored)] = UNLABELLED
            return made
        present, places = np.unique(made, return_inverse=True)
        known = self.known | {value: UNLABELLED for value in self.ignored if value not in self.known}
        odd = [value for value in present.tolist() if value not in known]
        if odd:
            told = _colour(odd[0]) if self.colours else odd[0]
            raise UserError(
                f"{path}: the mask holds {told}, which is none of data.mask_values: name it there, or in data.ignore if it means no "
                "label"
            )
        numbers = np.array([known[value] for value in present.tolist()])
        return numbers[places].reshape(made.shape)


def read_mask(path: str) -> np.ndarray:
    """The class numbers in a picture file, (H, W), uint8 or int32: grey values, or a palette's numbers."""
    try:
        with Image.open(path) as file:
            if file.mode not in ("L", "P", "1", "I", "I;16"):
                raise UserError(
                    f"{path}: a mask holds one class number for each pixel (a grey or palette picture), this one has the form {file.mode}: "
                    "say which colour is which class, data.mask_values=[[0,0,0],[255,0,0]]"
                )
            numbers = np.array(file)
    except (OSError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as a mask: {error}") from error
    return numbers.astype(np.uint8 if numbers.dtype in (np.uint8, np.bool_) else np.int32)


def read_colours(path: str) -> np.ndarray:
    """The colours in a picture file, (H, W), int32: red, green and blue in one number."""
    try:
        with Image.open(path) as file:
            red, green, blue = (np.array(band).astype(np.int32) for band in file.convert("RGB").split())
    except (OSError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as a mask: {error}") from error
    return (red << 16) | (green << 8) | blue


def _number(value: Value, key: str) -> int:
    if isinstance(value, int):
        return value
    parts = list(value)
    if len(parts) != 3 or not all(isinstance(part, int) and 0 <= part <= 255 for part in parts):
        raise UserError(f"{key}: {parts} is no colour: give red, green and blue, each 0 to 255")
    return (parts[0] << 16) | (parts[1] << 8) | parts[2]


def _colour(number: int) -> list[int]:
    return [number >> 16, number >> 8 & 255, number & 255]
