"""What a reader must know beside the figures: runs without a result, commands to repeat, and how far to trust."""

from __future__ import annotations

import shlex

from kd_lightning.config.keys import find, is_seed
from kd_lightning.report.study.factors import Factor, format_value, value_of
from kd_lightning.report.study.grid import plan
from kd_lightning.report.study.reading import Run
from kd_lightning.report.study.study import Study

STATUS_ORDER = ("diverged", "failed", "interrupted", "stopped", "unreadable", "outdated", "running", "missing")


def problems(study: Study) -> list[dict[str, str]]:
    """Runs without a result that counts: what failed first, what hasn't started last."""
    found = [run for run in study.runs if not run.is_finished]
    found.sort(key=lambda run: (STATUS_ORDER.index(run.status) if run.status in STATUS_ORDER else 0, run.name))
    return [{"name": run.name, "status": run.status, "detail": _detail(run)} for run in found]


def _detail(run: Run) -> str:
    last = max((steps[-1] for steps, _ in run.curves.values()), default=None)
    at = "" if last is None else f"last step {last:g}"
    words = {"missing": "not started", "stopped": "no result and no change for ten minutes: it was killed or it hangs"}
    return "; ".join(part for part in (run.error or words.get(run.status, ""), at) if part)


def rerun_command(study: Study) -> str:
    """The command that starts the sweep again: finished runs are skipped, the others continue or run again."""
    if not study.commands:
        return ""
    command = study.commands[0]
    return command if "sweep_dir=" in command else f"{command} sweep_dir={shlex.quote(str(study.folders[0]))}"


def best_command(study: Study) -> str:
    """The command that trains the chosen configuration again, with the same seeds."""
    if study.chosen is None:
        return ""
    runs = sorted(study.chosen.runs.values(), key=lambda run: str(run.seed))
    overrides = [o for o in runs[0].overrides if not find(o.partition("=")[0].lstrip("+~")).of_start]
    other_seeds = [o for o in overrides if is_seed(o.partition("=")[0]) and o.partition("=")[0] != "seed"]
    start = "kd-train"
    if len(runs) > 1 and not other_seeds:
        overrides = [o for o in overrides if o.partition("=")[0] != "seed"]
        overrides.append("seed=" + ",".join(str(run.seed) for run in runs))
        start = "kd-train -m"
    return " ".join([start, *(shlex.quote(override) for override in overrides)])


def notes(study: Study) -> list[str]:
    """What a reader must know to read the figures rightly."""
    said = []
    count = len(study.cells)
    n = max((len(cell.runs) for cell in study.cells), default=0)
    if study.chosen is not None:
        said.append(f"Chosen by the mean of {study.val_metric}; test figures took no part in the choice.")
    gains = [gain for cell in study.cells if (gain := study.gain(cell, study.test_metric))]
    if any(gain.low is not None for gain in gains):
        said.append("Intervals are 95 %: Student's t on the differences to the student alone, paired by seed.")
        if count > 1:
            said[-1] += (
                f" {count} configurations are compared and the intervals are uncorrected for that:"
                f" about {0.05 * count:.1f} of them would exclude zero by chance alone."
            )
    if n == 1:
        said.append("One seed each: no spread and no interval can be given, and a difference may be luck.")
    elif 1 < n <= 5:
        said.append(f"n = {n} seeds is small: a difference no larger than the grey band is within the spread of seeds.")
    short = sum(len(cell.runs) < n for cell in study.cells)
    if short:
        said.append(
            f"{short} configuration{'s have' if short > 1 else ' has'} fewer than {n} seeds: not in the choice."
        )
    if any(gain.pairing == "one reference" and gain.low is not None for gain in gains):
        said.append("The student alone is a single run: its own spread is not in the intervals.")
    if any(gain.pairing == "none" for gain in gains):
        said.append("Some configurations share no seed with the student alone: their difference has no interval.")
    said += [_setting_note(study, factor) for factor in study.factors if _is_confounded(study, factor)]
    if study.duplicates:
        said.append(
            f"{study.duplicates} repeated run{'s' if study.duplicates > 1 else ''} of a seed: the newest counts."
        )
    left_out = getattr(plan(study), "left_out", 0)
    if left_out:
        said.append(f"{left_out} more panels of the heatmap are not drawn; the leaderboard has every configuration.")
    return said


def _alone_values(study: Study, factor: Factor) -> set:
    return {value_of(run, factor.key) for cell in study.alone for run in cell.runs.values()}


def _is_confounded(study: Study, factor: Factor) -> bool:
    """Whether a swept key that is not of the method differs between students distilled and the one student alone."""
    return factor.key.split(".")[0] != "method" and bool(study.alone) and len(_alone_values(study, factor)) == 1


def _setting_note(study: Study, factor: Factor) -> str:
    name, value = factor.short, format_value(next(iter(_alone_values(study, factor))))
    return f"The student alone was trained at {name} = {value} only: gains elsewhere mix in the effect of {name}."
