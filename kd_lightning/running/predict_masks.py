"""``kd-predict`` of a segmentation: a mask for each picture, of the picture's size, as a PNG of class numbers with a palette."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from kd_lightning.data.images.decode import read_image, shown
from kd_lightning.errors import UserError
from kd_lightning.running.open_run import OpenRun
from kd_lightning.running.predict_inputs import GivenInputs, found_files
from kd_lightning.running.whole_pictures import classes_of, squares_of
from kd_lightning.runs.atomic import write_atomically
from kd_lightning.tasks.segmentation_picture import class_colours

CLASSES, OVERLAYS = "classes.json", "overlays"
MOST = 256
"""Classes that a PNG's palette can tell apart."""


ROWS = (".csv", ".tsv", ".json", ".jsonl")
"""What tables of answers are called."""


class MaskFiles:
    """Writes masks into a folder, and beside them ``classes.json``: number, name and colour of each class.

    Args:
        folder: made if it is not there.
        overlays: whether each picture is written too, half of it the mask's colours, in a folder ``overlays``.
        class_names: None: their numbers.
    """

    def __init__(self, folder: Path, overlays: bool, class_names: Sequence[str] | None) -> None:
        self.folder, self.overlays, self.class_names = folder, overlays, class_names
        self._colours: np.ndarray | None = None

    def write(self, name: str, classes: Tensor, count: int, picture: np.ndarray | None) -> None:
        """One mask.

        Args:
            name: path within the folder, without suffix.
            classes: (H, W), int64.
            count: how many classes there are.
            picture: (H, W, 3), uint8, for the overlay; None where there is none.

        Raises:
            UserError: the folder cannot be written to.
        """
        colours = self._colours_of(count)
        mask = Image.fromarray(classes.numpy().astype(np.uint8 if count <= MOST else np.uint16))
        if count <= MOST:
            mask.putpalette(colours.tobytes())  # the numbers stay
        self._save(mask, self.folder / f"{name}.png")
        if self.overlays and picture is not None:
            mixed = (picture.astype(np.uint16) + colours[classes.numpy()]) // 2
            self._save(Image.fromarray(mixed.astype(np.uint8)), self.folder / OVERLAYS / f"{name}.png")

    def _colours_of(self, count: int) -> np.ndarray:
        if self._colours is None:
            self._colours = class_colours(count)
            names = self.class_names or [str(number) for number in range(count)]
            listed = [
                {"number": number, "name": name, "colour": colour}
                for number, (name, colour) in enumerate(zip(names, self._colours.tolist(), strict=True))
            ]
            self._write(self.folder / CLASSES, json.dumps({"classes": listed}, indent=1, ensure_ascii=False) + "\n")
        return self._colours

    def _save(self, picture: Image.Image, path: Path) -> None:
        made = io.BytesIO()
        picture.save(made, "PNG")
        self._write(path, made.getvalue())

    def _write(self, path: Path, content: str | bytes) -> None:
        try:
            write_atomically(path, content)
        except OSError as error:
            raise UserError(f"output={self.folder}: {path} cannot be written: {error.strerror or error}") from error


def predict_masks(run: OpenRun, inputs: Sequence[str], output: str | None, overlay: bool, batch_size: int) -> int:
    """Write a mask for each picture and each sample of an array; say on stderr what could not be read.

    Returns:
        0, or 1 where inputs were left out.

    Raises:
        UserError: there is nothing to read, no place to write to, or two masks would have one name.
    """
    if output is None:
        raise UserError("the run answers with masks: say into which folder, output=FOLDER")
    if Path(output).suffix.lower() in ROWS:
        raise UserError(f"output={output}: the run answers with masks, not with rows of values: name a folder for them")
    files = MaskFiles(Path(output), overlay, run.class_names)
    if files.folder.exists() and not files.folder.is_dir():
        raise UserError(f"output={output}: is a file; masks go into a folder")
    given = GivenInputs(run, inputs)
    named = list(_named(inputs, files))
    written = skipped = 0
    for path, name, kind in named:
        try:
            if kind == "array":
                written += _array(run, given, path, name, files, batch_size)
                continue
            pixels, size = _pixels(path)
            channels, side = run.example_shape[0], run.example_shape[-1]
            squares, places = squares_of(pixels, channels, side, float(run.preprocessing.scale or 1))
            answers = run.predict(run.preprocessing(squares), batch_size)
        except _Unreadable as error:
            print(f"skipped: {error}", file=sys.stderr)
            skipped += 1
            continue
        files.write(name, classes_of(answers, places, size), answers.shape[1], pixels)
        written += 1
    for note in given.notes:
        print(f"note: {note}", file=sys.stderr)
    what = "mask" if written == 1 else "masks"
    print(f"{written:,} {what} in {shown(files.folder)}; what their numbers mean: {CLASSES} there")
    return 1 if skipped else 0


class _Unreadable(UserError):
    """An input that is left out."""


def _pixels(path: str) -> tuple[np.ndarray, tuple[int, int]]:
    try:
        pixels, _ = read_image(path)
    except UserError as error:
        raise _Unreadable(str(error).rsplit("; ", 1)[0]) from error
    return pixels, (pixels.shape[0], pixels.shape[1])


def _array(run: OpenRun, given: GivenInputs, path: str, name: str, files: MaskFiles, batch_size: int) -> int:
    """Masks of an array's samples, in a folder of its name; returns how many."""
    count = 0
    for sample in given.array(path):
        try:
            read = sample.read()
        except UserError as error:
            raise _Unreadable(str(error)) from error
        if read.is_floating_point() and not bool(read.isfinite().all()):
            raise _Unreadable(f"{sample.name} holds values that are no finite numbers")
        answer = run.predict(read[None], batch_size)
        files.write(f"{name}/{sample.name.rpartition(':')[2]}", answer[0].argmax(0), answer.shape[1], None)
        count += 1
    return count


def _named(inputs: Sequence[str], files: MaskFiles) -> Iterator[tuple[str, str, str]]:
    """Each file, its mask's name, and its kind; a folder's pictures keep their place below it."""
    taken: dict[str, str] = {}
    for given in inputs:
        for path, kind in found_files(given):
            if kind == "table":
                raise UserError(
                    f"{shown(path)}: masks are predicted of pictures and of arrays of pixels, not of tables"
                )
            inside = Path(path).relative_to(given) if Path(given).is_dir() else Path(Path(path).name)
            name = inside.with_suffix("").as_posix()
            if name in taken:
                raise UserError(
                    f"{shown(taken[name])} and {shown(path)}: masks of both would be called {name}; predict them into folders of "
                    "their own"
                )
            target = files.folder / f"{name}.png"
            if target.exists() and target.samefile(path):
                raise UserError(f"{shown(path)}: its mask would take its place; choose another output=FOLDER")
            taken[name] = path
            yield path, name, kind
