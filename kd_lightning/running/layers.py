"""The layers of student and teacher beside each other: names, outputs, parameters, and which of them go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.batch import Batch
from kd_lightning.calling import ask
from kd_lightning.config.build import build_datamodule, build_model
from kd_lightning.errors import UserError
from kd_lightning.layout import TOKENS, square_side
from kd_lightning.runs.latency import parameters_count


@dataclass(frozen=True)
class Layer:
    """A layer that gave a tensor on an example.

    Attributes:
        name: as ``named_modules()`` and the taps call it.
        kind: its class.
        shape: of its output without the batch dimension.
        parameters: numbers that it and what is inside it learn.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int


def layers_of(model: nn.Module, batch: Batch) -> list[Layer]:
    """The layers of a model that give a tensor, in the order in which they end; the model is asked once, in eval mode."""
    found: dict[str, Layer] = {}
    names = {module: name for name, module in model.named_modules() if name}

    def note(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        tensor = (
            next((v for v in output if isinstance(v, Tensor)), None) if isinstance(output, (tuple, list)) else output
        )
        if isinstance(tensor, Tensor):
            name = names[module]
            found.pop(name, None)  # one that runs several times: its last output is what a tap sees
            found[name] = Layer(name, type(module).__name__, tuple(tensor.shape[1:]), parameters_count(module))

    handles = [module.register_forward_hook(note) for module in names]
    training = model.training
    try:
        with torch.no_grad():
            ask(model.eval(), batch.inputs)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return list(found.values())


def proposed_taps(student: Sequence[Layer], teacher: Sequence[Layer], tokens: bool = True) -> list[tuple[Layer, Layer]]:
    """Pairs that a method can compare: for each size of map that both have, the last layer that gives it, a transformer's
    tokens counting as the maps that they are of (``tokens``); then the last vectors before the logits."""
    pairs = []
    sizes = {x.shape[1:] for x in (*student, *teacher) if len(x.shape) == 3 and x.shape[1:] != (1, 1)}
    maps = [[_as_map(layer) if tokens else layer for layer in layers] for layers in (student, teacher)]
    for size in dict.fromkeys(layer.shape[1:] for layer in maps[0] if layer.shape[1:] in sizes):
        mine, theirs = ([x for x in found if len(x.shape) == 3 and x.shape[1:] == size] for found in maps)
        if mine and theirs:
            pairs.append((mine[-1], theirs[-1]))  # it holds or follows the others
    vectors = [[layer for layer in layers if len(layer.shape) == 1][:-1] for layers in (student, teacher)]
    if all(vectors):
        pairs.append((vectors[0][-1], vectors[1][-1]))
    return pairs


def _as_map(layer: Layer) -> Layer:
    """A layer that gives tokens (L, D) of a square as a tap makes a map of them; others as they are."""
    side = square_side(layer.shape[0]) if len(layer.shape) == 2 else None
    return layer if side is None else replace(layer, name=layer.name + TOKENS, shape=(layer.shape[1], side, side))


def layers_lines(student: Sequence[Layer], teacher: Sequence[Layer]) -> list[str]:
    """Both models' layers beside each other, one line a row; no name is cut."""
    columns = [_column("student", student), *([_column("teacher", teacher)] if teacher else [])]
    widths = [max(map(len, column)) for column in columns]
    rows = zip_longest(*columns, fillvalue="")
    return ["   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _column(who: str, layers: Sequence[Layer]) -> list[str]:
    cells = [(who, "", "output", "parameters")]
    cells += [(x.name, x.kind, " x ".join(map(str, x.shape)) or "1", f"{x.parameters:,}") for x in layers]
    widths = [max(len(row[k]) for row in cells) for k in range(4)]
    return [
        f"{row[0].ljust(widths[0])}  {row[1].ljust(widths[1])}  {row[2].rjust(widths[2])}  {row[3].rjust(widths[3])}"
        for row in cells
    ]


def models_layers(config: Mapping[str, Any]) -> tuple[list[Layer], list[Layer]]:
    """The layers of a configuration's student and teacher (empty without one), on two samples of its data."""
    data = build_datamodule(config)
    batch = data.example_batch()
    found = []
    for where, node in (("student", config["student"]), ("teacher.model", (config.get("teacher") or {}).get("model"))):
        try:
            found.append([] if node is None else layers_of(build_model(node, config, data, where), batch))
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{where}: cannot take the data's inputs: {' '.join(str(error).split())}") from error
    return found[0], found[1]


def taps_lines(student: Sequence[Layer], teacher: Sequence[Layer]) -> list[str]:
    """What to type, one line for each proposed pair."""
    lines = []
    for mine, theirs in proposed_taps(student, teacher):
        sizes = " and ".join(" x ".join(map(str, layer.shape)) for layer in (mine, theirs))
        lines.append(f"  method.taps.student.hint={mine.name} method.taps.teacher.hint={theirs.name}    # {sizes}")
    return lines
