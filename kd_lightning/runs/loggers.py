"""Where a run's metrics go beside ``metrics.jsonl``: TensorBoard always, others by configuration (``logger=wandb``)."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from kd_lightning.errors import UserError
from kd_lightning.runs.hparams import hyperparameters, of_sweep, session_group, write_session_end, write_session_start

EXTRAS = ("wandb", "mlflow")
"""Packages that a logger needs, which are also names of our extras."""


class RunTensorBoardLogger(TensorBoardLogger):
    """Lightning's TensorBoard logger with its event files in the run directory itself.

    Args:
        run_dir: of the run.
        resume_step: the step that the run continues from: TensorBoard drops what an earlier attempt wrote after it.
        flush_secs: seconds until a scalar is on the disk at the latest.
    """

    def __init__(self, run_dir: str | os.PathLike, resume_step: int | None = None, flush_secs: int = 10) -> None:
        purge: dict[str, Any] = {} if resume_step is None else {"purge_step": resume_step + 1}
        super().__init__(
            os.fspath(run_dir), name="", version="", default_hp_metric=False, flush_secs=flush_secs, **purge
        )

    def log_hyperparams(self, params: Any, metrics: Any = None, step: int | None = None) -> None:
        """Keep them for ``hparams.yaml``. Lightning's own summary would show runs by hash and add points to curves."""
        self.hparams.update(params)

    def save(self) -> None:
        """Bring everything to the disk, ``hparams.yaml`` too, which Lightning would write ten times slower."""
        path = Path(self.log_dir) / self.NAME_HPARAMS_FILE
        if path.parent.is_dir() and not path.exists():
            path.write_text(as_yaml(dict(self.hparams)), encoding="utf-8")
        super().save()

    def log_text(self, tag: str, markdown: str, step: int = 0) -> None:
        """Show Markdown under TensorBoard's Text."""
        self.experiment.add_text(tag, markdown, step)

    def flush(self) -> None:
        """Bring everything to the disk; call it where a checkpoint is written, so that both know the same steps."""
        if self._experiment is not None:
            self._experiment.flush()


def build_loggers(
    run_dir: str | os.PathLike,
    nodes: Mapping[str, Mapping[str, Any] | None] | None,
    instantiate: Callable[..., Any],
    resume_step: int | None = None,
) -> list[Logger]:
    """A run's loggers: TensorBoard, then those of the configuration.

    Args:
        run_dir: of the run.
        nodes: the config group ``logger``: a ``_target_`` by name; ``tensorboard`` holds options of ours instead. Where
            ``save_dir``, ``name`` or ``run_name`` is null, it becomes the run's directory or name.
        instantiate: makes an object from a node, called as ``instantiate(node, "logger.<name>")``.
        resume_step: the step that the run continues from, None for a new run.

    Raises:
        UserError: a logger's package is not installed, or an option is not known.
    """
    nodes = dict(nodes or {})
    options = dict(nodes.pop("tensorboard", None) or {})
    try:
        loggers: list[Logger] = [RunTensorBoardLogger(run_dir, resume_step, **options)]
    except TypeError as error:
        raise UserError(f"logger.tensorboard: unknown option in {options}; flush_secs is the one there is") from error
    for name, node in nodes.items():
        if not node:
            continue
        _require(name, str(node.get("_target_", "")))
        loggers.append(instantiate(_filled(node, run_dir), f"logger.{name}"))
    return loggers


def wandb_logger(project: str, name: str, save_dir: str, group: str | None = None, offline: bool = False) -> Logger:
    """Lightning's W&B logger with a W&B run of its own: members of a group train in one process at once."""
    import wandb  # an extra

    Path(save_dir).mkdir(parents=True, exist_ok=True)
    mode = "offline" if offline else None
    run = wandb.init(project=project, name=name, group=group, dir=save_dir, mode=mode, reinit="create_new")
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return WandbLogger(experiment=run, save_dir=save_dir, offline=offline)


def log_start(
    loggers: Sequence[Logger],
    name: str,
    config: Mapping[str, Any],
    setting: str,
    swept: Mapping[str, str] | None = None,
) -> None:
    """Tell all loggers what runs: hyperparameters, and the composed configuration as text where text can be shown.

    Args:
        loggers: of the run.
        name: of the run's configuration.
        config: resolved, of plain values.
        setting: equal for runs that differ in seeds only, which are one group in HParams.
        swept: of a run of a sweep, the keys that it varies with the run's values: TensorBoard's table has these only.
    """
    hparams = hyperparameters(config)
    columns = of_sweep(hparams, swept) if swept else hparams
    for logger in loggers:
        logger.log_hyperparams(hparams)
        if isinstance(logger, RunTensorBoardLogger):
            write_session_start(logger.experiment, columns, session_group(name, setting))
            logger.log_text("config", "".join(f"    {line}\n" for line in as_yaml(config).splitlines()))
            logger.flush()


def log_end(
    loggers: Sequence[Logger], status: str, metrics: Mapping[str, float], step: int, table: str | None = None
) -> None:
    """Tell all loggers how the run ended, and close them.

    Args:
        loggers: of the run.
        status: that of ``result.json``.
        metrics: final ones by full name (``best/val_acc``, ``test/acc`` …); None and texts are left out.
        step: optimizer steps done.
        table: the result table in Markdown.
    """
    numbers = {name: float(value) for name, value in metrics.items() if isinstance(value, (int, float))}
    for logger in loggers:
        if numbers:
            logger.log_metrics(numbers, step)
        if isinstance(logger, RunTensorBoardLogger):
            if table:
                logger.log_text("result", table, step)
            write_session_end(logger.experiment, status)
        logger.finalize("success" if status == "finished" else "failed")
        if isinstance(logger, WandbLogger):  # Lightning leaves it open until the process ends, which trains other runs
            logger.experiment.finish(exit_code=0 if status == "finished" else 1)


def remove_event_files(run_dir: str | os.PathLike) -> None:
    """Remove what an attempt that is started over left for TensorBoard, which would show both as one."""
    for path in Path(run_dir).glob("events.out.tfevents.*"):
        path.unlink()


def _filled(node: Mapping[str, Any], run_dir: str | os.PathLike) -> dict[str, Any]:
    """The node with the run's own name and directory where it asks for them by null."""
    own = {"save_dir": os.fspath(run_dir), "name": Path(run_dir).name, "run_name": Path(run_dir).name}
    return {key: own.get(key) if value is None else value for key, value in node.items()}


def _require(name: str, target: str) -> None:
    for package in EXTRAS:
        if (package == name or package in target.lower()) and importlib.util.find_spec(package) is None:
            raise UserError(f'logger={name} needs {package}, which is missing: pip install "kd-lightning[{package}]"')


def as_yaml(value: Mapping[str, Any]) -> str:
    """Plain YAML in the order given, by libyaml where it is there: each run of a sweep writes its configuration."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return yaml.dump(_plain(value), Dumper=dumper, sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    """Containers and values that YAML knows; anything else as its text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
