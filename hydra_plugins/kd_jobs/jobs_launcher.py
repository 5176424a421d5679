"""Hydra launcher ``kd_jobs``: hands all jobs of a sweep to kd-lightning at once, which gives them to an executor.

Which executor is the configuration's ``launcher``. Hydra loads every launcher when it starts, so nothing heavy is
imported before the jobs are launched. It does so without an entry in ``sys.modules``, where a dataclass cannot look up
postponed annotations: there are none in this file.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class JobsLauncherConf:
    """Configuration of the launcher: it has none, where and how runs run is in ``launcher``."""

    _target_: str = "hydra_plugins.kd_jobs.jobs_launcher.JobsLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="kd_jobs", node=JobsLauncherConf, provider="kd_lightning")


class JobsLauncher(Launcher):
    """Hands over the jobs of a sweep together."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from kd_lightning.sweeps.launch import launch

        return launch(self.hydra_context, self.config, job_overrides, initial_job_idx)
