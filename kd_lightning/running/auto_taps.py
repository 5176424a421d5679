"""``method.taps=auto``: pairs of layers for a method's taps, by depth and resolution, chosen and told before training.

::

    terms' tap names ──► how many maps, a vector ──► kd-layers' pairs of both models ──► method.taps, and one line
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from kd_lightning.config.build import build_model
from kd_lightning.config.targets import import_target
from kd_lightning.errors import UserError
from kd_lightning.rng import RngStream
from kd_lightning.running.layers import Layer, layers_of, proposed_taps
from kd_lightning.runs.spec import RunSpec
from kd_lightning.terms import needs_teacher

log = logging.getLogger(__name__)

AUTO = "auto"
VECTORS = ("embedding", "vector")
"""Names of taps that mean the vector before the classifier; all others are maps where there are any."""


def with_taps(specs: Sequence[RunSpec], datamodule: Any) -> list[RunSpec]:
    """The runs with layers' names in place of ``auto``; which ones is told once for each choice."""
    found, told = [], set()
    for spec in specs:
        if spec.config["method"].get("taps") == AUTO:
            taps = chosen_taps(spec.config, datamodule)
            pairs = [f"{role}.{tap}={layer}" for role, layers in taps.items() for tap, layer in layers.items()]
            line = "method.taps=auto: " + (", ".join(pairs) or "the method looks at no layers")
            if line not in told:
                log.info("%s", line)
                told.add(line)
            method = {**spec.config["method"], "taps": taps}
            method["terms"] = {key: _with_layer(term, taps) for key, term in (method["terms"] or {}).items()}
            spec = replace(spec, config={**spec.config, "method": method})
        found.append(spec)
    return found


def chosen_taps(config: Mapping[str, Any], datamodule: Any) -> dict[str, dict[str, str]]:
    """Layers by tap, for both models.

    Raises:
        UserError: the models have too few layers that go together.
    """
    batch = datamodule.example_batch()
    node = (config.get("teacher") or {}).get("model")
    with RngStream(0):
        student = layers_of(build_model(config["student"], config, datamodule, "student"), batch)
        teacher = student
        if node is not None:
            teacher = layers_of(build_model(node, config, datamodule, "teacher.model"), batch)
    taps: dict[str, dict[str, str]] = {"student": {}, "teacher": {}}
    for key, term in (config["method"].get("terms") or {}).items():
        pairs = proposed_taps(
            student, teacher, tokens="layer" not in term
        )  # which is asked for what a layer itself gives
        maps = [pair for pair in pairs if len(pair[0].shape) == 3]
        vector = next((pair for pair in pairs if len(pair[0].shape) == 1), None)
        for names, roles in _names(term):
            fitting = _pairs(names, maps, vector)
            if fitting is None:
                there = ", ".join(f"{mine.name} and {theirs.name}" for mine, theirs in pairs) or "none"
                raise UserError(
                    f"method.taps=auto: method.terms.{key} needs {len(names)} pairs of layers, the models have {there}: "
                    "name them (kd-layers shows all), as in method.taps.student.TAP=LAYER method.taps.teacher.TAP=LAYER"
                )
            for name, pair in zip(names, fitting, strict=True):
                for role in roles:
                    taps[role][name] = pair[role == "teacher"].name
    return taps


def _with_layer(term: Mapping[str, Any], taps: Mapping[str, Mapping[str, str]]) -> Mapping[str, Any]:
    """A term with the teacher's layer of its tap in place of the one that its file names beside it (CrossKD, LwM)."""
    tap = term.get("tap")
    chosen = taps["teacher"].get(str(tap)) if "layer" in term else None
    return term if chosen is None else {**term, "layer": chosen}


def _names(term: Mapping[str, Any]) -> list[tuple[list[str], tuple[str, ...]]]:
    """A term's taps: lists of names from shallow to deep, with the models whose layers they are."""
    kind = import_target(term["_target_"])
    parameters = inspect.signature(kind).parameters
    single = getattr(kind, "tap_arguments", ())
    if single:  # each the name of one tap, the maps from shallow to deep
        names = [term.get(key, parameters[key].default) for key in single]
        two = ("student", "teacher")
        return [([x for x in names if x not in VECTORS], two), *(([x], two) for x in names if x in VECTORS)]
    given = {
        key: term.get(key, parameters[key].default) for key in ("tap", "taps", "teacher_taps") if key in parameters
    }
    models = ("student", "teacher") if needs_teacher(kind) else ("student",)
    found: list[tuple[list[str], tuple[str, ...]]] = []
    for key, value in given.items():
        names = [value] if isinstance(value, str) else list(value) if isinstance(value, (list, tuple)) else []
        both = models if "teacher_taps" not in given else ("teacher",) if key == "teacher_taps" else ("student",)
        if names:
            found.append((names, both))
    return found


def _pairs(
    names: Sequence[str], maps: Sequence[tuple[Layer, Layer]], vector: tuple[Layer, Layer] | None
) -> list[tuple[Layer, Layer]] | None:
    """As many pairs as names: the deepest maps, the vector where maps do not suffice or a name means it."""
    count = len(names)
    if count == 1 and vector is not None and (names[0] in VECTORS or not maps):
        return [vector]
    if count <= len(maps):
        return list(maps[len(maps) - count :])
    return [*maps, vector] if vector is not None and count == len(maps) + 1 else None
