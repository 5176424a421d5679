"""Weights out of anybody's checkpoint: which of its tensors are this model's, and under which names.

A checkpoint is a tree of mappings; somewhere in it lie the model's tensors, by names that wrappers have put words in front
of (``module.``, ``_orig_mod.``, ``backbone.``). Names are tried as they are first. What is taken has to fit the whole model
(unless part of it is enough), and how much fitted, and what did not, is always said.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from kd_lightning.errors import UserError
from kd_lightning.runs.checkpoint import Unread, load_checkpoint, printable, shape_of
from kd_lightning.runs.directory import checkpoint_in
from kd_lightning.runs.weight_match import Match, all_matches, places

log = logging.getLogger(__name__)


def load_weights_file(
    model: nn.Module, path: Path | str, key: str, part: str | None = None, partial: bool = False, new_head: bool = False
) -> Match:
    """Fill ``model`` from a checkpoint of ours, of Lightning, or of anybody; say what was taken and what was not.

    Args:
        model: to fill, in place.
        path: the file, or a run's directory, whose best checkpoint is meant.
        key: configuration key that named it, for messages.
        part: which of the weights in the file: a key, or words in front of names ("model_ema", "teacher"); None: the
            model's own, raw rather than averaged.
        partial: layers that are missing or of another shape in the file keep their initial values (a new head on a
            pretrained backbone); otherwise the whole model must be in it.
        new_head: a single layer may be missing in the file and keeps its initial values: the classifier on a backbone that
            was trained without one.

    Raises:
        UserError: the file is none, or holds no weights that fit; the line says what differs.
    """
    path = checkpoint_in(path)
    return fill(model, load_checkpoint(path, key), path, key, part, partial, new_head)


def fill(
    model: nn.Module,
    content: Mapping[str, Any],
    path: Path | str,
    key: str,
    part: str | None = None,
    partial: bool = False,
    new_head: bool = False,
) -> Match:
    """:func:`load_weights_file` on a checkpoint that has been read."""
    where = printable(f"{key}={path}")
    matches = [match for match in all_matches(model, content) if part is None or _chosen(match, part)]
    if not matches:
        raise UserError(f"{where}: {_no_weights(content, part)}")
    whole = sorted((match for match in matches if match.fits and (match.expected or part)), key=lambda m: m.rank)
    if len(whole) > 1 and whole[1].rank == whole[0].rank:
        raise UserError(f"{where}: {_listed([m.place for m in whole])} all fit; choose with {key}_key=…")
    if whole:
        taken = whole[0]
    else:
        taken = max(matches, key=lambda match: (len(match.found), not match.averaged))
        if not taken.found or not (partial or (new_head and _lacks_one_layer(taken))):
            raise UserError(f"{where}: {_difference(model, taken)}")
    try:
        model.load_state_dict(dict(taken.found), strict=False)
    except RuntimeError as error:  # names and shapes fit and the values do not: quantised ones, for example
        raise UserError(
            f"{where}: its tensors cannot be copied into {type(model).__name__} ({one_line(error)})"
        ) from error
    log.info("%s: %s", where, _told(model, content, taken, [m.place for m in whole[1:]], key))
    return taken


def _lacks_one_layer(match: Match) -> bool:
    """Whether all that a place in a file has not is one layer, and what it has is the model's."""
    return not match.shaped and not match.foreign and len({name.rpartition(".")[0] for name in match.missing}) == 1


def one_line(error: Exception) -> str:
    """The whole text of an error on one line, short enough for a terminal."""
    return printable(" ".join(str(error).split()), 300)


def _chosen(match: Match, part: str) -> bool:
    wanted, words = part.strip(".").split("."), match.words
    return any(words[i : i + len(wanted)] == wanted for i in range(len(words)))


def _told(model: nn.Module, content: Mapping[str, Any], taken: Match, others: Sequence[str], key: str) -> str:
    total = len(model.state_dict())
    parts = [f"{len(taken.found)} of {total} tensors" + (f" from {printable(taken.place)!r}" if taken.place else "")]
    if taken.missing:
        parts.append(f"not in the file: {_listed(taken.missing)}")
    if taken.shaped:
        parts.append(f"of another shape: {_listed(tuple(taken.shaped))}")
    counters = [n for n in model.state_dict() if n not in {*taken.found, *taken.missing, *taken.shaped}]
    if counters:
        parts.append(f"left as they were: {_listed(counters)}")
    if taken.unused:
        parts.append(f"not used: {_listed(taken.unused)}")
    unread = list(_unread(content))
    if unread:
        parts.append(f"not read: {_listed(unread)}")
    if others:
        parts.append(f"{_listed(others)} would fit as well (choose with {key}_key=…)")
    return "; ".join(parts)


def _difference(model: nn.Module, closest: Match) -> str:
    if closest.shaped:
        name, shape = next(iter(closest.shaped.items()))
        problem = f"{name} has shape {shape}, expected {shape_of(model.state_dict()[name])}"
    elif closest.missing:
        problem = f"{closest.missing[0]} is missing"
    elif closest.foreign:
        problem = f"{printable(closest.foreign[0])} is not in the model"
    else:
        problem = f"only a part of it, {printable(closest.place)!r}, fits"
    counts = f"{len(closest.missing)} missing, {len(closest.foreign)} unexpected, {len(closest.shaped)} of other shape"
    return f"made for another architecture than {type(model).__name__} ({problem}; {counts})"


def _no_weights(content: Mapping[str, Any], part: str | None) -> str:
    offered = sorted({".".join(path) for path, _ in places(content)} - {""})
    if part is not None:
        return f"has no weights under {part!r} that fit; weights lie under {_listed(offered) or 'no key'}"
    unread = list(_unread(content))
    if unread and not offered:
        return f"holds no tensors by name; {_listed(unread)} could only be read by its own code"
    return f"holds no tensor with a name of the model; its keys are {_listed([str(name) for name in content])}"


def _unread(content: Mapping[Any, Any], before: str = "") -> Iterator[str]:
    for name, value in content.items():
        if isinstance(value, Unread):
            yield f"{before}{name} ({value.name})"
        elif isinstance(value, Mapping):
            yield from _unread(value, f"{before}{name}.")


def _listed(names: Sequence[str], most: int = 4) -> str:
    shown = [printable(str(name), 80) or "the names as they are" for name in names[:most]]
    return ", ".join(shown) + (f", … ({len(names)} in all)" if len(names) > most else "")
