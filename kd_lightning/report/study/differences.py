"""In which keys the configurations of a study differ: what two rows of the leaderboard do not have in common."""

from __future__ import annotations

from kd_lightning.config.keys import decides, is_seed
from kd_lightning.report.study.factors import MISSING, format_value
from kd_lightning.report.study.study import Study


def differences(study: Study) -> dict[str, dict[str, str]]:
    """For each configuration's id its values, as text, of the keys that are not the same in all of them.

    Seeds, places and what else does not decide a result is left out; a key that a configuration lacks is shown so.
    """
    configs = {cell.id: next(iter(cell.runs.values())).config for cell in [*study.alone, *study.cells] if cell.runs}
    keys = sorted({key for config in configs.values() for key in config if decides(key, config) and not is_seed(key)})
    found: dict[str, dict[str, str]] = {name: {} for name in configs}
    for key in keys:
        texts = {name: format_value(config[key]) if key in config else MISSING for name, config in configs.items()}
        if len(set(texts.values())) > 1:
            for name, text in texts.items():
                found[name][key] = text
    return found
