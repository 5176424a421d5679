"""The forms of export by name: shipped ones from a table, anybody else's by a dotted name."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from kd_lightning.config.suggestions import did_you_mean
from kd_lightning.config.targets import TargetProblem, import_target
from kd_lightning.errors import UserError
from kd_lightning.joints import Exporter

SHIPPED = {
    "safetensors": "kd_lightning.exporting.safetensors_file.SafetensorsExporter",
    "onnx": "kd_lightning.exporting.onnx_file.OnnxExporter",
    "torchscript": "kd_lightning.exporting.torchscript_file.TorchScriptExporter",
    "torch_export": "kd_lightning.exporting.torch_export_file.TorchExportExporter",
}
NEEDS = {"safetensors": ("safetensors",), "onnx": ("onnx", "onnxscript", "onnxruntime")}
"""Packages beyond our own dependencies that a shipped form needs."""
DEFAULT = ("safetensors", "torch_export")


def exporters(names: Sequence[str]) -> dict[str, Exporter]:
    """The exporters by their names, in the order given.

    Args:
        names: of :data:`SHIPPED`, or dotted names of classes that fit :class:`kd_lightning.joints.Exporter`.

    Raises:
        UserError: a name is unknown, a package is missing, or two forms would write the same file.
    """
    if not names:
        raise UserError(f"format: names no form of export; give {', '.join(SHIPPED)} or a class of yours")
    found = {name: _exporter(name) for name in names}
    by_suffix: dict[str, str] = {}
    for name, exporter in found.items():
        other = by_suffix.setdefault(exporter.suffix, name)
        if other != name:
            raise UserError(f"format={name}: writes a file with the suffix {exporter.suffix}, and so does {other}")
    return found


def _exporter(name: str) -> Exporter:
    missing = [package for package in NEEDS.get(name, ()) if importlib.util.find_spec(package) is None]
    if missing:
        raise UserError(f'format={name}: {", ".join(missing)} is not installed: pip install "kd-lightning[export]"')
    if name not in SHIPPED and "." not in name:
        hint = did_you_mean(name, SHIPPED, show=len(SHIPPED))
        raise UserError(f"format={name}: no such form of export{hint} (a class of yours is named with its module)")
    try:
        made = import_target(SHIPPED.get(name, name))()
    except TargetProblem as problem:
        raise UserError(f"format={name}: {problem.text}") from problem
    except Exception as error:  # whatever the user's class does when it is made
        raise UserError(f"format={name}: cannot be made without arguments: {first_line(error)}") from error
    if not isinstance(made, Exporter) or not str(made.suffix).startswith("."):
        raise UserError(
            f"format={name}: a {type(made).__name__} is no exporter: it needs suffix (as in .bin), holds_graph, write and "
            "open, as kd_lightning.joints.Exporter says"
        )
    return made


def first_line(error: BaseException) -> str:
    """What an error says at first, with its kind, for messages of one line."""
    if isinstance(error, UserError):
        return str(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
