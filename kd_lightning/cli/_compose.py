"""Compose the jobs of a sweep quickly: each choice of config groups once, values on copies of it.

Hydra composes every job of a sweep anew from some thirty files, and does so twice (once to see whether it can). Jobs that
differ in plain values only (``method.temperature``, ``seed``) differ in nothing that the files decide, and Hydra itself
sets such values after composing; so does this.
"""

from __future__ import annotations

import copy
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, read_write


class SweepComposer:
    """Stands in for ``load_sweep_config`` of a Hydra config loader.

    Args:
        loader: whose method is replaced; groups and files are its own.
    """

    def __init__(self, loader: ConfigLoader) -> None:
        assert isinstance(loader, ConfigLoaderImpl)  # Hydra's only one
        self._loader = loader
        self._compose = loader.load_sweep_config
        self._parser = OverridesParser.create(config_loader=loader)
        self._templates: dict[Any, DictConfig] = {}
        self._masters: list[DictConfig] = []

    def install(self) -> None:
        """Let the loader's sweeper and launchers use this."""
        self._loader.load_sweep_config = self.load_sweep_config  # type: ignore[method-assign]  # of this loader only

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """The job's configuration, equal to what Hydra would compose."""
        parsed = self._parser.parse_overrides(list(sweep_overrides))
        if not all(self._is_plain(override) or self._is_choice(override) for override in parsed):
            return self._compose(master_config, list(sweep_overrides))
        choices = tuple(str(o.input_line) for o in parsed if self._is_choice(o))
        if not any(master is master_config for master in self._masters):
            self._masters.append(master_config)  # kept, so that its id stays its own
        key = (id(master_config), choices, tuple(o.get_key_element() for o in parsed))
        template = self._templates.get(key)
        if template is None:
            template = self._templates[key] = self._compose(master_config, list(sweep_overrides))
        config = copy.deepcopy(template)
        ConfigLoaderImpl._apply_overrides_to_config([o for o in parsed if not self._is_choice(o)], config)
        OmegaConf.copy_cache(from_config=master_config, to_config=config)
        own = [o for o in parsed if not o.is_hydra_override()]
        with read_write(config.hydra):
            config.hydra.overrides.task = [o.input_line for o in own]
            names = config.hydra.job.config.override_dirname
            config.hydra.job.override_dirname = get_overrides_dirname(
                overrides=own, kv_sep=names.kv_sep, item_sep=names.item_sep, exclude_keys=names.exclude_keys
            )
        return config

    def _is_choice(self, override: Override) -> bool:
        group = override.key_or_group
        return override.package is not None or (
            not override.is_delete() and "." not in group and self._loader.repository.group_exists(group)
        )

    def _is_plain(self, override: Override) -> bool:
        """A value that replaces what is there: one that is added, deleted or merged depends on what was there before."""
        if override.is_delete() or override.is_add() or override.is_force_add() or override.is_hydra_override():
            return False
        return not isinstance(override.value(), (dict, list)) and not self._is_choice(override)
