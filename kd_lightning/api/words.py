"""Error lines of a call from Python: what was a key or a file of the command line is named as the argument that it was."""

from __future__ import annotations

import re

from kd_lightning.api.options import SHORT

_PLACE = re.compile(r"^(?:command line|configuration|(?:\S*/)?conf/\S+\.yaml): ")
_ASKED_BY = re.compile(r" \(asked for by conf/\S+ or the command line\)")
_FOLDERS = "; files of your own are found with --config-dir DIR"
_ARGUMENTS = {key: name for name, key in SHORT.items() if name not in ("precision", "accelerator", "labelled")}
_OWN = ("method", "student", "teacher", "optimizer", "baseline", "seed", "run_dir", "sweep_dir")


def in_python(line: str) -> str:
    """An error's line as somebody reads it who wrote arguments: ``command line: optimizer.lr: …`` is ``lr: …``."""
    placed = _PLACE.match(line)
    rest = _ASKED_BY.sub("", line[placed.end() :] if placed else line).replace(_FOLDERS, "")
    if choice := re.match(r"(\w+)=([^\s:]+): no such option", rest):
        group, name = choice.groups()
        argument = "train" if group == "data" else group
        if group in (*_OWN, "data"):
            return f"{argument}={name.strip(chr(39))!r}{rest[choice.end(2) :]}"
        return f'settings={{"{group}": {name!r}}}{rest[choice.end(2) :]}'
    if placed is None:
        return rest
    key, colon, what = rest.partition(": ")
    if key in _ARGUMENTS:
        return f"{_ARGUMENTS[key]}{colon}{what}"
    if key.startswith("method.weights"):
        return f"weights{key.removeprefix('method.weights')}{colon}{what}"
    if colon and "." in key and re.fullmatch(r"[\w.]+", key):
        return f'settings: "{key}"{colon}{what}'
    return rest
