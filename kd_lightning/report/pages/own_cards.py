"""Cards of a user's own in the report: a function each, named in the runs' configuration (``report.cards``).

::

    # my_cards.py                                                    on the command line, or in a YAML of yours
    def spread(study):                                               +report.cards.spread._target_=my_cards.spread
        values = [run.metrics[study.test_metric] for cell in study.cells for run in cell.runs.values()]
        return {"title": "Spread", "text": f"from {min(values):.3f} to {max(values):.3f}"}

A card is a mapping with a ``title`` and, as it likes, a ``text``, a ``table`` (rows of texts, the first one the head), and
a ``figure`` of Plotly (``data`` and ``layout``). It is made from what is on the disk, as all of the page is.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from kd_lightning.report.study.study import Study

log = logging.getLogger(__name__)

PREFIX = "report.cards."


def own_cards(study: Study) -> list[dict[str, Any]]:
    """What the page shows of each card that some run of the study names; one that fails says so in its place."""
    return [_made(name, node, study) for name, node in _named(study).items()]


def _named(study: Study) -> dict[str, dict[str, Any]]:
    """Cards by name: their target and arguments."""
    cards: dict[str, dict[str, Any]] = {}
    for run in study.runs:
        for name, key, value in _settings(run.config):
            cards.setdefault(name, {})[key] = value
    return {name: node for name, node in cards.items() if "_target_" in node}


def _settings(config: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    for key, value in config.items():
        if key.startswith(PREFIX):
            name, _, argument = key.removeprefix(PREFIX).partition(".")
            yield name, argument, value


def _made(name: str, node: Mapping[str, Any], study: Study) -> dict[str, Any]:
    arguments = {key: value for key, value in node.items() if not key.startswith("_")}
    try:
        card = dict(_function(str(node["_target_"]))(study, **arguments))
        return {
            "title": str(card.get("title") or name),
            "text": str(card.get("text") or ""),
            "table": [[str(cell) for cell in row] for row in card.get("table") or ()],
            "figure": _figure(card.get("figure")),
        }
    except Exception as error:  # a user's code: the rest of the page does not depend on it
        said = f"{PREFIX}{name} ({node['_target_']}) failed: {type(error).__name__}: {' '.join(str(error).split())}"
        log.warning("%s", said)
        return {"title": name, "text": said, "table": [], "figure": None}


def _function(target: str) -> Any:
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # as for the commands that train: last, so that it shadows nothing
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _figure(figure: Any) -> dict[str, Any] | None:
    """Plotly's data and layout, of a mapping or of a ``plotly.graph_objects.Figure``."""
    if figure is None:
        return None
    plain = figure.to_plotly_json() if hasattr(figure, "to_plotly_json") else figure
    return {"data": list(plain["data"]), "layout": {"height": 336, **plain.get("layout", {})}}
