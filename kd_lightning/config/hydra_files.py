"""What Hydra would save of a job (``.hydra/*.yaml``), as texts: they are written when the run begins, and by who holds it."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf


def hydra_files(task_config: DictConfig, job_config: Any) -> dict[str, str]:
    """Relative path -> text.

    Args:
        task_config: the job's configuration without Hydra's own part.
        job_config: with it; ``hydra.output_subdir`` names the folder, null leaves the files out.
    """
    hydra = job_config.hydra
    if hydra.output_subdir is None:
        return {}
    own = OmegaConf.masked_copy(job_config, "hydra")
    contents = {"config": task_config, "hydra": own, "overrides": hydra.overrides.task}
    return {f"{hydra.output_subdir}/{name}.yaml": OmegaConf.to_yaml(content) for name, content in contents.items()}
