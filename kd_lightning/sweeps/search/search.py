"""A search: ask Optuna for a batch of trials, have their runs computed, tell it what came out, until enough are there.

::

    sweep overrides ─► space ─► ask n ─► runs in lockstep ─► result.json ─► tell ─► ask n …
                                            │    ▲
                                each epoch's validation ─► the trial's judge: go on, or stop (status "pruned")

Several searches may share a study: each has its own sweep directory, which it holds. So trials of a directory that nobody
holds have no process any more; the next start of the sweep takes its own up again, where their runs stopped.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from kd_lightning.config.build import build_task
from kd_lightning.errors import NothingRun, RunsFailed, UserError
from kd_lightning.metrics.declared import Declared
from kd_lightning.runs.directory import LOCK
from kd_lightning.runs.result_file import Result
from kd_lightning.runs.spec import without_validation
from kd_lightning.sweeps.launch import Batch, compute, finish, start_logging

try:
    import optuna
    from optuna.trial import FrozenTrial, Trial, TrialState

    from kd_lightning.sweeps.search.space import Space, space_of
    from kd_lightning.sweeps.search.study import JOURNAL, Objective, objectives_of, pruner_of, sampler_of, storage_of
except ModuleNotFoundError as error:
    if error.name != "optuna":
        raise
    raise UserError('sweep=optuna needs Optuna 4 or newer: pip install "kd-lightning[optuna]"') from error

log = logging.getLogger(__name__)

SWEEP_DIR = "sweep_dir"
"""Attribute of a trial: the directory whose holder computes it."""


def search(context: HydraContext, config: DictConfig, arguments: Sequence[str]) -> None:
    """Search until the study has ``n_trials`` trials.

    Args:
        context: of Hydra.
        config: of the sweep; what is searched and how is ``hydra.sweeper``, see ``conf/sweep/optuna.yaml``.
        arguments: overrides of the command line.

    Raises:
        UserError: what is configured makes no search.
        RunInterrupted: a signal asked to stop; the same command goes on.
        RunsFailed: no trial came to its end.
    """
    start_logging(config)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if without_validation(config):
        raise UserError(
            "hydra.sweeper: a search chooses by validation, and protocol=literature has none: leave one out"
        )
    options: Any = OmegaConf.to_container(config.hydra.sweeper, resolve=True)
    space = space_of(context.config_loader, options["params"] or {}, arguments)
    trials = Trials(config, options, space)
    batches = []
    job = 0
    while asked := trials.ask():
        jobs = [line for trial in asked for line in space.jobs(trial.params)]
        judges = [trials.judge(trial) for trial in asked for _ in space.seeds]
        try:
            batch = compute(context, config, jobs, job, judges, trials.objectives_as_plain())
        except NothingRun:
            log.info("the first of %d trials", trials.n_trials)
            raise
        job += len(jobs)
        trials.tell(asked, [result for _, _, result in batch.runs])
        batches.append(batch)
        log.info("%s", trials.standing())
    trials.say_best()
    if batches:
        finish(trials.sweep_dir, _together(batches))
    if not trials.best():
        raise RunsFailed("no trial came to its end")


class Trials:
    """The trials of one study, as this process sees them.

    Args:
        config: of the sweep.
        options: of the sweeper, see ``conf/sweep/optuna.yaml``.
        space: what may be chosen.
    """

    def __init__(self, config: DictConfig, options: Mapping[str, Any], space: Space) -> None:
        self.n_trials, self._batch = int(options["n_trials"]), max(1, int(options["batch"]))
        self.sweep_dir = Path(str(config.hydra.sweep.dir)).resolve()
        self._space, self._pruner = space, options["pruner"]
        self._max_epochs = config.trainer.get("max_epochs")
        self.objectives = objectives_of(list(options["objectives"]), _monitor_is_maximized(config))
        if options["pruner"] not in (None, "none"):
            refuse_pruning(self.objectives, space)
        pruner = pruner_of(options["pruner"], self._max_epochs)
        given = options["storage"]
        self._storage = (
            str(given) if given and "://" in str(given) else str(Path(given or self.sweep_dir / JOURNAL).resolve())
        )
        name = str(options["study_name"] or self.sweep_dir.name)
        directions: list[Any] = ["maximize" if objective.maximize else "minimize" for objective in self.objectives]
        storage = optuna.storages.InMemoryStorage() if config.dry_run else storage_of(self._storage)
        self._study = optuna.create_study(
            study_name=name, storage=storage, directions=directions, load_if_exists=True, pruner=pruner
        )
        known = [direction.name.lower() for direction in self._study.directions]
        if known != directions:
            raise UserError(
                f"hydra.sweeper.study_name={name}: its trials {' and '.join(known)}, objectives now ask to "
                f"{' and '.join(directions)}: give another name"
            )
        seed = options["seed"]  # after a pause another sequence, or it would ask for the first trials again
        self._study.sampler = sampler_of(options["sampler"], None if seed is None else seed + len(self._study.trials))
        self._told: set[int] = set()  # numbers of trials that ended in this process

    def ask(self) -> list[Trial]:
        """The next trials: first those that an earlier start left unfinished; none if the study has enough."""
        found = self._study.get_trials(deepcopy=False)
        left_behind = [trial for trial in found if self._is_mine(trial) and self._still_fits(trial)]
        counted = [trial for trial in found if trial not in left_behind and self._counts(trial)]
        wanted = min(self._batch, self.n_trials - len(counted))
        asked = [Trial(self._study, trial._trial_id) for trial in left_behind[: max(0, wanted)]]
        if asked:
            log.info("%d trials go on where they stopped", len(asked))
        try:
            while len(asked) < wanted:
                asked.append(self._study.ask(self._space.choices))
                asked[-1].set_user_attr(SWEEP_DIR, str(self.sweep_dir))
        except ValueError as error:  # Optuna's, where a choice has other values than in earlier trials
            raise UserError(
                f"hydra.sweeper.study_name={self._study.study_name}: {' '.join(str(error).split())} The study has trials "
                "of another space: give another name"
            ) from error
        return asked

    def judge(self, trial: Trial) -> dict[str, Any] | None:
        """What stops the trial's run early, as part of its spec; None: nothing does."""
        if self._pruner in (None, "none"):
            return None
        return {
            "_target_": "kd_lightning.sweeps.search.judge.TrialJudge",
            "storage": self._storage,
            "study": self._study.study_name,
            "trial": trial.number,
            "pruner": self._pruner,
            "max_epochs": self._max_epochs,
        }

    def tell(self, asked: Sequence[Trial], results: Sequence[Result]) -> None:
        """What became of the trials' runs, in order, one for each seed."""
        repeats = len(self._space.seeds)
        for place, trial in enumerate(asked):
            mine = results[place * repeats : (place + 1) * repeats]
            trial.set_user_attr("run", [result["name"] for result in mine])
            statuses = {result["status"] for result in mine}
            self._told.add(trial.number)
            if statuses == {"finished"}:
                self._study.tell(trial, [_mean(objective, mine) for objective in self.objectives])
            elif statuses <= {"pruned", "diverged", "finished"} and len(self.objectives) == 1:
                self._study.tell(trial, state=TrialState.PRUNED)  # a sampler shall keep away from what diverges, too
            else:
                self._study.tell(trial, state=TrialState.FAIL)

    def best(self) -> list[FrozenTrial]:
        """The best trial, or all that no other surpasses in every objective."""
        return self._study.best_trials

    def standing(self) -> str:
        """One line after a batch."""
        states = [trial.state for trial in self._study.get_trials(deepcopy=False)]
        ended = sum(state.is_finished() for state in states)
        pruned = sum(state == TrialState.PRUNED for state in states)
        best = self.best()
        said = f"{ended} of {max(self.n_trials, ended)} trials" + (
            f", {pruned} of them stopped early" if pruned else ""
        )
        if len(self.objectives) == 1 and best:
            return f"{said}; best {_values(best[0])} with {_params(best[0])}"
        return said

    def say_best(self) -> None:
        """What the search has found."""
        if len(self.objectives) > 1:
            names = ", ".join(objective.path for objective in self.objectives)
            log.info("Pareto front (%s), which nothing surpasses in all of them:", names)
            for trial in sorted(self.best(), key=lambda trial: trial.values):
                log.info("  %s with %s", _values(trial), _params(trial))
        log.info("study %s in %s (optuna-dashboard shows it)", self._study.study_name, self._storage)

    def objectives_as_plain(self) -> list[dict[str, Any]]:
        """As ``sweep.json`` keeps them."""
        return [{"path": objective.path, "maximize": objective.maximize} for objective in self.objectives]

    def _is_mine(self, trial: FrozenTrial) -> bool:
        """Whether it runs in this sweep's directory: this process holds it, so nobody else computes the trial."""
        return trial.state == TrialState.RUNNING and trial.user_attrs.get(SWEEP_DIR) == str(self.sweep_dir)

    def _still_fits(self, trial: FrozenTrial) -> bool:
        return set(trial.params) == set(self._space.choices)

    def _counts(self, trial: FrozenTrial) -> bool:
        """Whether a trial is one of ``n_trials``: it ended, or somebody computes it. Failed ones are made up for later."""
        if trial.state == TrialState.RUNNING:
            return not self._is_mine(trial) and _is_held(Path(str(trial.user_attrs.get(SWEEP_DIR, ""))))
        return trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or trial.number in self._told


def refuse_pruning(objectives: Sequence[Objective], space: Space) -> None:
    """Stop where no single curve says how good a trial is.

    Raises:
        UserError: with the way out.
    """
    if len(objectives) > 1:
        raise UserError("hydra.sweeper.pruner: Optuna stops no trial early that has several objectives: pruner=none")
    if objectives[0].path != "monitor":
        raise UserError(
            f"hydra.sweeper.pruner: is told of the monitored metric, not of {objectives[0].path}: pruner=none"
        )
    if len(space.seeds) > 1:
        raise UserError("hydra.sweeper.pruner: a trial of several seeds has several curves: pruner=none, or one seed")


def _is_held(sweep_dir: Path) -> bool:
    """Whether some process holds a sweep's directory."""
    if not (sweep_dir / LOCK).is_file():
        return False
    try:
        with FileLock(sweep_dir / LOCK, timeout=0):
            return False
    except (Timeout, OSError):
        return True


def _monitor_is_maximized(config: DictConfig) -> bool:
    task = build_task({"task": OmegaConf.to_container(config.task, resolve=True)})
    return Declared(task.metrics, task.monitor).monitored.mode == "max"


def _mean(objective: Objective, results: Sequence[Result]) -> float:
    return statistics.fmean(objective.value(result) for result in results)


def _values(trial: FrozenTrial) -> str:
    return ", ".join(f"{value:.6g}" for value in trial.values)


def _params(trial: FrozenTrial) -> str:
    return ", ".join(f"{key}={value}" for key, value in trial.params.items())


def _together(batches: Sequence[Batch]) -> Batch:
    """All batches as one, each run once, as it stands now."""
    specs = {
        spec.run_dir: (spec, result)
        for batch in batches
        for spec, result in zip(batch.specs, batch.results, strict=True)
    }
    return Batch(
        [run for batch in batches for run in batch.runs],
        [spec for spec, _ in specs.values()],
        [result for _, result in specs.values()],
    )
