"""Colours and the common layout of every chart; one table maps each light colour to its dark counterpart.

Charts are built in light colours. ``darkened`` (and the page's script, with the same table) replaces them one by one,
so a chart looks the same in a notebook, on a light page and on a dark one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

INK = "#1d2126"
MUTED = "#69717b"
GRID = "#e5e8ec"
CARD = "#fefefe"
ACCENT = "#1a6bb0"
WORSE = "#d98a72"
NEUTRAL = "#f4f3ee"
ALONE = "#7a8089"
ALONE_BAND = "rgba(122,128,137,0.16)"
TEACHER = "#1d2127"

SEQUENCE = ("#d99a00", "#4f9d3a", "#1690a7", "#4a6fd0", "#a03fb0")
"""Ordered values: from few to much, of different hues, darker with each step; SYMBOLS tell them apart as well."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "triangle-down", "x")
CATEGORIES = ("#1a6bb1", "#e07b39", "#2f9e77", "#a04fb0", "#c94f5f", "#8a7a2e", "#4aa3c7", "#6b6f9e")

DARK = {
    INK: "#e9ebee",
    MUTED: "#9aa3ad",
    GRID: "#2d333b",
    CARD: "#1b1f24",
    ACCENT: "#4f9fe0",
    WORSE: "#b5614a",
    NEUTRAL: "#2a2e34",
    ALONE: "#959ca6",
    ALONE_BAND: "rgba(149,156,166,0.18)",
    TEACHER: "#f4f5f7",
    "#1a6bb1": "#4f9fe1",
}

_ON_FILL = {  # text on a cell: (dark ink on the light page?, dark ink on the dark page?) -> colour on the light page
    (True, False): INK,
    (True, True): "#1d2128",
    (False, False): "#ffffff",
    (False, True): "#fffffe",
}
DARK["#1d2128"] = DARK["#fffffe"] = "#101317"

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
COMPARED = (ACCENT, "#e07b39", "#2f9e77", "#a04fb0", "#c94f5f", "#8a7a2e")
"""Line colours of the configurations that a reader compares, the chosen one first."""

Spec = dict[str, Any]


def colours(count: int, ordered: bool) -> list[str]:
    """``count`` distinguishable colours; ordered values get neighbours of one sequence."""
    if not ordered:
        return [CATEGORIES[i % len(CATEGORIES)] for i in range(count)]
    if count <= 1:
        return [SEQUENCE[1]] * count
    return [_blend(SEQUENCE, i / (count - 1)) for i in range(count)]


def translucent(colour: str, opacity: float) -> str:
    return "rgba({},{},{},{})".format(*_rgb(colour), opacity)


def mixed(first: str, second: str, share: float) -> str:
    """The colour ``share`` of the way from ``first`` to ``second``, as Plotly's colour scales mix."""
    pairs = zip(_rgb(first), _rgb(second), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def takes_dark_ink(fill: str) -> bool:
    """Whether dark text contrasts better with ``fill`` than white text (relative luminance of WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in _rgb(fill))]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return luminance > 0.24


def ink_on(ends: tuple[str, str], share: float) -> str:
    """Text colour on a cell ``share`` of the way between two colours; its counterpart suits the dark page."""
    light = takes_dark_ink(mixed(*ends, share))
    dark = takes_dark_ink(mixed(DARK[ends[0]], DARK[ends[1]], share))
    return _ON_FILL[light, dark]


def _blend(stops: Sequence[str], position: float) -> str:
    place = position * (len(stops) - 1)
    low = min(int(place), len(stops) - 2)
    return stops[round(place)] if place == int(place) else mixed(stops[low], stops[low + 1], place - low)


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def axis(title: str | None = None, **settings: Any) -> Spec:
    """A quiet axis: thin grid, no line, no zero line."""
    spec: Spec = {
        "gridcolor": GRID,
        "linecolor": GRID,
        "zeroline": False,
        "ticks": "",
        "tickfont": {"color": MUTED, "size": 11},
        "automargin": True,
        **settings,
    }
    if title:
        spec["title"] = {"text": escape(title), "font": {"color": MUTED, "size": 12}, "standoff": 8}
    return spec


def layout(height: int = 300, **settings: Any) -> Spec:
    spec: Spec = {
        "height": height,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 12, "color": INK},
        "margin": {"l": 48, "r": 12, "t": 10, "b": 44},
        "legend": {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": -0.2,
            "yanchor": "top",
            "font": {"color": MUTED},
        },
        "hoverlabel": {"bgcolor": CARD, "bordercolor": GRID, "font": {"color": INK, "family": FONT, "size": 12}},
        "hovermode": "closest",
        "dragmode": False,
    }
    spec["legend"].update(font={"color": MUTED}, traceorder="normal")
    return {**spec, **settings}


def escape(text: Any) -> str:
    """Text safe inside Plotly's small HTML: names of runs and values are shown, never interpreted."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def darkened(value: Any) -> Any:
    """A chart's description with every light colour replaced by its dark counterpart."""
    if isinstance(value, dict):
        return {key: darkened(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [darkened(item) for item in value]
    return DARK.get(value, value) if isinstance(value, str) else value
