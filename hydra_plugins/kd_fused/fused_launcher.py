"""Hydra launcher ``kd_fused``: hands all jobs of a sweep to kd-lightning at once, which trains them in lockstep.

Hydra loads every launcher when it starts, so nothing heavy is imported before the jobs are launched. It does so without
an entry in ``sys.modules``, where a dataclass cannot look up postponed annotations: there are none in this file.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class FusedLauncherConf:
    """Configuration of the launcher: it has none, what it does is in ``max_fused``."""

    _target_: str = "hydra_plugins.kd_fused.fused_launcher.FusedLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="kd_fused", node=FusedLauncherConf, provider="kd_lightning")


class FusedLauncher(Launcher):
    """Trains the jobs of a sweep in one process."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from kd_lightning.sweeps.launch import launch_fused

        return launch_fused(self.hydra_context, self.config, job_overrides, initial_job_idx)
