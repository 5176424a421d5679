"""Whether a run that trains is worth its remaining epochs: its trial is told of each validation, and asked.

Everything that it needs is plain text in the run's spec, so that it works wherever the run is computed.
"""

from __future__ import annotations

from functools import lru_cache

import optuna
from optuna.storages import BaseStorage
from optuna.trial import Trial

from kd_lightning.sweeps.search.study import pruner_of, storage_of


class TrialJudge:
    """The trial of one run.

    Args:
        storage: of the study, as an absolute path or a URL.
        study: its name.
        trial: the trial's number in it.
        pruner: as ``hydra.sweeper.pruner``.
        max_epochs: of the run.
    """

    def __init__(self, storage: str, study: str, trial: int, pruner: object, max_epochs: int | None = None) -> None:
        loaded = optuna.load_study(study_name=study, storage=_opened(storage), pruner=pruner_of(pruner, max_epochs))
        self._trial = Trial(loaded, loaded.get_trials(deepcopy=False)[trial]._trial_id)
        self._told = set(loaded.get_trials(deepcopy=False)[trial].intermediate_values)

    def report(self, epoch: int, value: float) -> None:
        """Tell the study what the run has reached after ``epoch`` epochs; what it knows already stays."""
        if epoch not in self._told:
            self._told.add(epoch)
            self._trial.report(value, epoch)

    def stop(self) -> bool:
        """Whether others that went as far make this one not worth going on."""
        return self._trial.should_prune()


@lru_cache(maxsize=8)
def _opened(storage: str) -> BaseStorage:
    """One connection a process: a journal is read once, not once a run."""
    return storage_of(storage)
