"""Hydra sweeper ``kd_optuna``: Optuna asks for trials in batches, which train in lockstep.

Hydra loads every sweeper when it starts, without an entry in ``sys.modules``: nothing heavy is imported here, and no
annotation is postponed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class OptunaSweeperConf:
    """Configuration of the search; what each key means: docs/search.md."""

    _target_: str = "hydra_plugins.kd_optuna.optuna_sweeper.OptunaSweeper"
    _recursive_: bool = False  # sampler and pruner stay plain: a run's process makes its own
    study_name: str | None = None
    storage: str | None = None
    objectives: list[str] = field(default_factory=lambda: ["monitor"])
    n_trials: int = 20
    batch: int = 5
    seed: int | None = None
    sampler: Any = "tpe"
    pruner: Any = "none"
    params: dict[str, Any] | None = field(default_factory=dict)


ConfigStore.instance().store(group="hydra/sweeper", name="kd_optuna", node=OptunaSweeperConf, provider="kd_lightning")


class OptunaSweeper(Sweeper):
    """Hands the search to kd-lightning."""

    def __init__(self, **options: Any) -> None:
        """The options are read from the configuration, as plain values."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.config = config

    def sweep(self, arguments: Sequence[str]) -> None:
        from kd_lightning.sweeps.search.search import search

        search(self.hydra_context, self.config, list(arguments))
