"""``kd-train``: train or reuse the teacher, distil the student, test both; with ``-m`` a sweep.

::

    compose ─► RunSpec ─► what is there already ─► train ─► result ─► tell
                 (a sweep: one RunSpec a job, see kd_lightning.sweeps.launch; the rest is the same)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from kd_lightning.cli._hydra_main import run_hydra
from kd_lightning.cli._streams import steady

if TYPE_CHECKING:
    from kd_lightning.runs.result_file import Result
    from kd_lightning.runs.spec import RunSpec


@steady
def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    # before torch is loaded: OpenMP threads that spin while they wait take the processors from the loader's threads
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return run_hydra(train, "train", argv, check=check_job)


def check_job(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Stop before any data is touched if the configuration cannot be meant."""
    from kd_lightning.config.check import check

    check(cfg, list(overrides))


def train(cfg: DictConfig) -> float | None:
    """One job: compute the run (and the student alone), show the table, return the best validation metric."""
    from kd_lightning.terminal.quiet import quiet

    quiet()
    from pathlib import Path

    from kd_lightning.terminal.present import say_run

    spec, result = computed(cfg)
    say_run(result, spec.run_dir, Path(cfg.paths.output_dir))
    return result["metrics"].get("best/val_" + result["monitor"]["metric"])


def computed(cfg: DictConfig) -> tuple[RunSpec, Result]:
    """The run of one job and its result, computed where it is not there yet.

    Raises:
        NothingRun: the start was only to say what it would do.
        RunInterrupted, RunsFailed: it did not finish.
    """
    from dataclasses import replace

    from hydra.core.hydra_config import HydraConfig

    from kd_lightning.config.build import build_executor
    from kd_lightning.config.hydra_files import hydra_files
    from kd_lightning.errors import NothingRun, RunInterrupted, RunsFailed
    from kd_lightning.running.baselines import with_baselines
    from kd_lightning.running.execute import execute
    from kd_lightning.runs.directory import NOTES
    from kd_lightning.runs.notes import keep_note
    from kd_lightning.sweeps.from_hydra import spec_from_hydra
    from kd_lightning.terminal.present import shown

    spec = spec_from_hydra(cfg)
    note = {} if cfg.note is None else {NOTES: str(cfg.note)}
    spec = replace(spec, files={**hydra_files(cfg, HydraConfig.instance().cfg), **note})
    executor = build_executor(cfg.launcher, spec.run_dir)
    if cfg.dry_run:
        from kd_lightning.running.plan import say_plan

        say_plan(with_baselines([spec]), executor.fuse)
        raise NothingRun
    *_, result = execute(with_baselines([spec]), executor)
    if cfg.note is not None and spec.run_dir.is_dir():  # a run that was finished before did not begin again
        keep_note(spec.run_dir, str(cfg.note))
    if result["status"] == "interrupted":
        raise RunInterrupted(f"interrupted; continue with the same command and run_dir={shown(spec.run_dir)}")
    if result["status"] != "finished":
        raise RunsFailed(f"{result['name']} {result['status']}: {result['error']}")
    return spec, result


if __name__ == "__main__":
    raise SystemExit(main())
