"""``kd-train``: train or reuse the teacher, distil the student, test both; with ``-m`` a sweep."""

from __future__ import annotations

import os
from collections.abc import Sequence

from omegaconf import DictConfig

from kd_lightning.cli._hydra_main import run_hydra


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    # before torch is loaded: OpenMP threads that spin while they wait take the processors from the loader's threads
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return run_hydra(train, "train", argv, check=check_job)


def check_job(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Stop before any data is touched if the configuration cannot be meant, or its directory holds another run."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from kd_lightning.config.check import check

    check(cfg, list(overrides))
    if HydraConfig.get().mode == RunMode.RUN and os.path.exists(cfg.run_dir):
        from kd_lightning.running.outcome import refuse_other_run
        from kd_lightning.sweeps.from_hydra import spec_from_hydra

        refuse_other_run(spec_from_hydra(cfg, cfg.run_dir))


def train(cfg: DictConfig) -> float | None:
    """One job: compute the run (and the student alone), show the table, return the best validation metric."""
    from kd_lightning.terminal.quiet import quiet

    quiet()
    from pathlib import Path

    from kd_lightning.errors import RunInterrupted, RunsFailed
    from kd_lightning.running.execute import execute, with_baselines
    from kd_lightning.sweeps.from_hydra import spec_from_hydra
    from kd_lightning.terminal.present import display, say_run, shown

    spec = spec_from_hydra(cfg)
    specs = with_baselines([spec])
    results = execute(specs, display=display, log_file="kd-train.log")
    result = results[-1]
    if result["status"] == "interrupted":
        raise RunInterrupted(f"interrupted; continue with the same command and run_dir={shown(spec.run_dir)}")
    if result["status"] != "finished":
        raise RunsFailed(f"{result['name']} {result['status']}: {result['error']}")
    say_run(result, spec.run_dir, Path(cfg.paths.output_dir))
    return result["metrics"].get("best/val_" + result["monitor"]["metric"])


if __name__ == "__main__":
    raise SystemExit(main())
