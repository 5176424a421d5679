"""Where a key of the composed configuration was written: the command line, or which file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig


class Origin:
    """Finds the file or override that a key comes from.

    Reads the choices and search path of the running Hydra application; without one, only overrides are known.

    Args:
        overrides: the job's overrides, ``key=value``.
    """

    def __init__(self, overrides: Sequence[str]) -> None:
        self.overrides = list(overrides)
        self.choices: dict[str, list[str]] = {}
        self.directories: list[Path] = []
        self.config_name = "train"
        if HydraConfig.initialized():
            hydra = HydraConfig.get()
            self.choices = {k: [v] if isinstance(v, str) else list(v or []) for k, v in hydra.runtime.choices.items()}
            self.directories = [Path(s.path) for s in hydra.runtime.config_sources if s.schema == "file"]
            self.config_name = hydra.job.config_name or "train"

    def of(self, key: str) -> str:
        """Return ``command line`` or a file, for the head of an error line; ``configuration`` if it cannot be told.

        A key that stands nowhere (one that is missing) belongs to the place of what it should be part of.
        """
        override = self.override_of(key)
        if override is not None:
            return "command line"
        files = list(self._files())
        while key:
            for path, content in files:
                if _holds(content, key):
                    return _shown(path)
            key = key.rpartition(".")[0]
        return "configuration"

    def override_of(self, key: str) -> str | None:
        """Return the last override that sets ``key``, a part of it, or what it is a part of."""
        for override in reversed(self.overrides):
            name = override.partition("=")[0].lstrip("+~")
            is_group = name in self.choices
            if not is_group and (name == key or key.startswith(f"{name}.") or name.startswith(f"{key}.")):
                return override
        return None

    def _files(self) -> Iterator[tuple[Path, Any]]:
        """The chosen files with their contents from the root, the ones that have the last word first."""
        whole_setups = (
            "debug",
            "sweep",
            "protocol",
            "recipe",
            "experiment",
        )  # what they say is said last, see conf/train.yaml
        groups = [g for g in whole_setups if g in self.choices] + [g for g in self.choices if g not in whole_setups]
        for group in groups:
            if not group.startswith("hydra"):
                yield from self.chosen(group)
        yield from self._file("", self.config_name)

    def chosen(self, group: str) -> Iterator[tuple[Path, Mapping[str, Any]]]:
        """The files that were chosen of a group, with their contents from the root."""
        for option in self.choices.get(group, []):
            yield from self._file(group.partition("@")[0], option)

    def _file(self, group: str, option: str) -> Iterator[tuple[Path, Mapping[str, Any]]]:
        for directory in self.directories:
            path = directory / group / f"{re.sub(r'[.]ya?ml$', '', option)}.yaml"
            if path.is_file():
                text = path.read_text(encoding="utf-8")
                content = yaml.safe_load(text) or {}
                if not isinstance(content, Mapping):
                    return
                package = re.search(r"^#\s*@package\s+(\S+)", text, re.M)
                where = group.replace("/", ".") if package is None else package[1].replace("_global_", "")
                nested: Any = {k: v for k, v in content.items() if k != "defaults"}
                for part in reversed([p for p in where.split(".") if p]):
                    nested = {part: nested}
                yield path, nested
                for base in content.get("defaults") or []:
                    if isinstance(base, str) and base != "_self_":
                        yield from self._file(group, base.rpartition("@")[0] or base)
                return


def _holds(content: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(content, Mapping) or part not in content:
            return False
        content = content[part]
    return True


def _shown(path: Path) -> str:
    """``path`` as the user knows it: from the working directory, or from our ``conf/``."""
    parts = path.parts
    packaged = Path(__file__).resolve().parents[1]
    for root in (packaged, packaged.parent):
        if (root / "conf") in path.parents:
            return str(path.relative_to(root))
    relative = os.path.relpath(path)
    return relative if not relative.startswith("..") else str(Path(*parts))
