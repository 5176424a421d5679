"""``kd-train rerun=RUN_DIR key=value``: a run's saved configuration as the configuration to start from.

What was saved is whole: it does not depend on the files that it was once composed from. Values that refer to others still
do (``method.temperature=8`` reaches the terms that share it). A group that is chosen anew (``method=dkd``) takes the place
of what was saved of it. The run gets a directory of its own, as any other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from kd_lightning.errors import UserError

NAME = "saved_run"
_HYDRAS = re.compile(r"\$\{hydra:([\w.]+)\}")
_OF_START = ("run_dir", "sweep_dir", "dry_run")


def taken_out(overrides: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The run directory of an override ``rerun=DIR``, and the other overrides."""
    runs = [override.partition("=")[2] for override in overrides if override.startswith("rerun=")]
    if len(runs) > 1:
        raise UserError(f"rerun={runs[1]}: give one run directory")
    return (Path(runs[0]) if runs else None), [o for o in overrides if not o.startswith("rerun=")]


def saved_run(config_path: str | None) -> Path | None:
    """The run whose ``.hydra`` folder a ``--config-path`` is; None where it is none."""
    folder = Path(config_path) if config_path else None
    if folder is None or not (folder / "config.yaml").is_file() or not (folder / "hydra.yaml").is_file():
        return None
    return folder.resolve().parent


def register(run_dir: Path, loader: ConfigLoader, defaults: Mapping[str, Any], overrides: Sequence[str]) -> str:
    """Make the saved configuration one that can be composed; returns its name.

    Args:
        run_dir: of the run.
        loader: knows the config groups.
        defaults: the content of ``conf/train.yaml``: says where runs go.
        overrides: of the new start: groups that are chosen anew are left out of what was saved.
    """
    plain = {key: value for key, value in defaults.items() if key != "defaults"}
    saved = {**plain, **_read(run_dir), **{key: plain[key] for key in _OF_START if key in plain}}
    chosen: list[Any] = []
    for override in overrides:
        key, _, value = override.partition("=")
        if key in saved and loader.get_group_options(key):
            saved.pop(key)
            chosen.append({key: value.split(",")[0]})
    hydra = [{"hydra": "default"}]
    if "launcher" not in saved:
        hydra.append({"launcher": "fused"})
    ConfigStore.instance().store(NAME, OmegaConf.create({"defaults": [*chosen, *hydra, "_self_"], **saved}))
    return NAME


def _read(run_dir: Path) -> dict[str, Any]:
    """The configuration as it was written, without what only the start before could know."""
    folder = run_dir / ".hydra"
    try:
        if (folder / "config.yaml").is_file():
            text = (folder / "config.yaml").read_text(encoding="utf-8")
            known = OmegaConf.load(folder / "hydra.yaml")
            text = _HYDRAS.sub(lambda match: str(OmegaConf.select(known, f"hydra.{match[1]}")), text)
            saved = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
        else:
            saved = json.loads((run_dir / "result.json").read_text(encoding="utf-8"))["config"]
    except FileNotFoundError as error:
        raise UserError(f"rerun={run_dir}: holds neither .hydra/config.yaml nor result.json") from error
    except (OSError, ValueError, KeyError, YAMLError, OmegaConfBaseException) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"rerun={run_dir}: its configuration cannot be read: {line}") from error
    if not isinstance(saved, dict):
        raise UserError(f"rerun={run_dir}: its configuration is no mapping")
    if "student" not in saved:
        raise UserError(
            f"rerun={run_dir}: holds no student: a teacher's training is not started by itself; give a run's directory"
        )
    return {str(key): value for key, value in saved.items()}
