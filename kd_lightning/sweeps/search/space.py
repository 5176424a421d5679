"""What a search may choose: sweep overrides of the command line and the file as Optuna's distributions.

::

    method.temperature=range(1.0,12.0,step=0.5)       steps: 1.0, 1.5 … 11.5
    optimizer.lr=tag(log,interval(0.001,0.5))         any value between, to four digits
    student=mlp,small_cnn                             a choice
    seed=0,1,2                                        no choice: every trial is trained with each of them
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep, Transformer
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from kd_lightning.config.keys import is_seed
from kd_lightning.errors import UserError

DIGITS = 4
"""Of a value between two ends: what is more changes no run, and would fill the names of runs."""


@dataclass
class Space:
    """A search space.

    Attributes:
        fixed: overrides of every run.
        choices: distributions by key.
        seeds: overrides of each repetition of a trial; one empty list where no seed is swept.
    """

    fixed: list[str] = field(default_factory=list)
    choices: dict[str, BaseDistribution] = field(default_factory=dict)
    seeds: list[list[str]] = field(default_factory=lambda: [[]])

    def jobs(self, params: dict[str, Any]) -> list[list[str]]:
        """The overrides of a trial's runs."""
        chosen = [f"{key}={_written(value)}" for key, value in params.items()]
        return [[*self.fixed, *chosen, *seeds] for seeds in self.seeds]


def space_of(loader: ConfigLoader, params: dict[str, Any], arguments: Sequence[str]) -> Space:
    """The space that the file's ``params`` and the command line span; of a key given twice the latter counts.

    Raises:
        UserError: nothing is left to choose, or a sweep has no value.
    """
    lines = [f"{key}={value}" for key, value in params.items()] + list(arguments)
    latest = {o.get_key_element(): o for o in OverridesParser.create(loader).parse_overrides(lines)}
    space = Space()
    for key, override in latest.items():
        if not override.is_sweep_override():
            space.fixed.append(str(override.input_line))
        elif is_seed(key.lstrip("+~")) and override.is_discrete_sweep():
            values = [f"{key}={value}" for value in override.sweep_string_iterator()]
            space.seeds = [[*others, value] for others in space.seeds for value in values]
        else:
            space.choices[key] = _distribution(override)
    if not space.choices:
        raise UserError(
            "hydra.sweeper.params: nothing to choose: give a key several values, as in "
            "'method.temperature=range(1.0,12.0,step=0.5)' or 'optimizer.lr=tag(log,interval(0.001,0.5))'"
        )
    return space


def _distribution(override: Override) -> BaseDistribution:
    value = override.value()
    try:
        if isinstance(value, ChoiceSweep):
            return CategoricalDistribution([str(v) for v in override.sweep_iterator(transformer=Transformer.encode)])
        if isinstance(value, RangeSweep):
            return _steps(value)
        assert isinstance(value, IntervalSweep)
        low, high, log = _end(value.start), _end(value.end), "log" in value.tags
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log=log)
        return FloatDistribution(low, high, log=log)
    except (ValueError, AssertionError) as error:
        raise UserError(f"command line: {override.input_line}: {' '.join(str(error).split())}") from error


def _steps(value: RangeSweep) -> BaseDistribution:
    """As everywhere, the range's stop is no value of it."""
    start, stop, step = _end(value.start), _end(value.stop), _end(value.step)
    if isinstance(start, int) and isinstance(stop, int) and isinstance(step, int):
        return IntDistribution(start, start + (stop - start - 1) // step * step, step=step)
    steps = math.ceil((stop - start) / step - 1e-9) - 1
    return FloatDistribution(start, start + steps * step, step=step)


def _end(value: Any) -> int | float:
    if not isinstance(value, (int, float)):
        raise ValueError("the ends of an interval or a range must be numbers")
    return value


def _written(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)


class Rounding(BaseSampler):
    """Another sampler's values to :data:`DIGITS` digits, so that study, command line and name of a run say the same."""

    def __init__(self, sampler: BaseSampler) -> None:
        self._sampler = sampler

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        found = self._sampler.sample_relative(study, trial, search_space)
        return {key: rounded(value, search_space[key]) for key, value in found.items()}

    def sample_independent(self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
        return rounded(self._sampler.sample_independent(study, trial, name, distribution), distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._sampler.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: Any, values: Sequence[float] | None) -> None:
        self._sampler.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        self._sampler.reseed_rng()


def rounded(value: Any, distribution: BaseDistribution) -> Any:
    """A value between two ends to four significant digits, still between them; any other as it is."""
    if not isinstance(distribution, FloatDistribution) or distribution.step is not None:
        return value
    return min(max(float(f"{value:.{DIGITS}g}"), distribution.low), distribution.high)
