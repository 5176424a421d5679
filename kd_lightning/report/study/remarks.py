"""What a reader must know beside the figures: runs without a result, commands to repeat, and how far to trust."""

from __future__ import annotations

import contextlib
import re
import shlex

from kd_lightning.config.keys import find, is_seed
from kd_lightning.metrics import show
from kd_lightning.metrics.verdicts import behind
from kd_lightning.report.study.factors import Factor, format_value, value_of
from kd_lightning.report.study.grid import plan
from kd_lightning.report.study.reading import Run
from kd_lightning.report.study.resolution import too_few_samples
from kd_lightning.report.study.statistics import t_quantile
from kd_lightning.report.study.study import Study

STATUS_ORDER = ("diverged", "failed", "interrupted", "stopped", "unreadable", "outdated", "running", "missing")


def problems(study: Study) -> list[dict[str, str]]:
    """Runs without a result that counts: what failed first, what hasn't started last."""
    found = [run for run in study.runs if not run.has_ended]
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
    # a search would choose values anew; the file of a grid may set more than it sweeps
    grid = runs[0].choices.get("hydra/sweeper", "basic") == "basic"
    keys = {override: override.partition("=")[0].lstrip("+~") for override in runs[0].overrides}
    overrides = [o for o, key in keys.items() if not find(key).of_start or (key == "sweep" and grid)]
    other_seeds = [o for o in overrides if is_seed(o.partition("=")[0]) and o.partition("=")[0] != "seed"]
    start = " ".join(["kd-train", *(shlex.quote(word) for word in config_words(study))])
    if len(runs) > 1 and not other_seeds:
        overrides = [o for o in overrides if o.partition("=")[0] != "seed"]
        overrides.append("seed=" + ",".join(str(run.seed) for run in runs))
        start += " -m"
    elif any(override.startswith("sweep=") for override in overrides):
        start += " -m"
    return " ".join([start, *(shlex.quote(override) for override in overrides)])


_CONFIG_OPTIONS = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn")
_CONFIG_SOURCE = re.compile(r"^ *- path: (.+)\n +schema: file\n +provider: command-line$", re.MULTILINE)


def config_words(study: Study) -> list[str]:
    """The words of the command that name a user's own configuration files; without them nothing else is found."""
    for command in study.commands:
        words, kept = shlex.split(command), []
        for place, word in enumerate(words):
            if word in _CONFIG_OPTIONS:
                kept += words[place : place + 2]
            elif word.partition("=")[0] in _CONFIG_OPTIONS:
                kept.append(word)
        return kept
    runs = study.chosen.runs.values() if study.chosen else ()
    for run in runs:  # a single run: Hydra notes where its configuration came from
        with contextlib.suppress(OSError):
            text = (run.path / ".hydra" / "hydra.yaml").read_text(encoding="utf-8", errors="replace")
            if found := _CONFIG_SOURCE.search(text):
                return ["--config-dir", found[1]]
    return []


def warnings(study: Study) -> list[str]:
    """What must not be overlooked: what the terminal warns of, and what makes figures say something else."""
    said = [
        f"The teacher {teacher['name']} is {teacher['useless']}."
        for teacher in study.teachers()
        if teacher.get("useless")
    ]
    said += [f"Teacher {t.get('name', '')}: {t['normalised']}." for t in study.teachers() if t.get("normalised")]
    alone = [value for cell in study.alone for value in cell.values(study.val_metric).values()]
    for teacher in study.teachers():
        value = teacher.get(f"val/{study.metric}")
        if not isinstance(value, (int, float)):
            continue
        words = behind(study.declared.monitored, value, alone, estimator="estimator" in teacher)
        if words and not teacher.get("useless"):
            said.append(f"The teacher {teacher.get('name', '')} is {words}.")
    said += _of_training(study)
    gain = study.gain(study.chosen, study.test_metric) if study.chosen else None
    read = study.reads(study.test_metric)
    if gain is not None and gain.mean < 0:
        summary = study.chosen.spread(study.test_metric) if study.chosen else None
        size = summary.mean if summary else None
        said.append(
            f"The chosen configuration is {show.better_by(read, gain.mean, size)} than the student alone on test."
        )
    if study.cells and max(len(cell.runs) for cell in study.cells) == 1:
        said.append(
            "One seed each: no spread and no interval can be given, and a difference may be luck (sweep=seeds)."
        )
    said += filter(None, [too_few_samples(study)])
    totals = _weight_totals(study)
    if len(totals) > 1:
        said.append(
            f"The sum of the loss weights varies from {totals[0]:g} to {totals[-1]:g} over these configurations: the size of "
            "a step changes along with the share of each loss."
        )
        if any(factor.key == "method.weights.kd" for factor in study.factors):
            said[-1] += " sweep=temperature_balance keeps the sum."
    return said


def _of_training(study: Study) -> list[str]:
    """What the doctor said of runs; warnings that differ in their numbers only are told once, by the first."""
    alike: dict[str, list[tuple[str, str]]] = {}
    for run in study.runs:
        for text in run.warnings:
            alike.setdefault(re.sub(r"[\d.]+(e[-+]\d+)?", "#", text), []).append((run.name, text))
    return [
        f"{found[0][0]}{f' and {len(found) - 1} more' if len(found) > 1 else ''}: {found[0][1]}."
        for found in alike.values()
    ]


def _weight_totals(study: Study) -> list[float]:
    """The distinct sums of loss weights among configurations with the same terms; nothing where terms differ."""
    terms, totals = set(), set()
    for cell in study.cells:
        for run in cell.runs.values():
            weights = {k: v for k, v in run.config.items() if k.startswith("method.weights.")}
            if not all(isinstance(value, (int, float)) for value in weights.values()):
                return []  # a schedule
            terms.add(frozenset(weights))
            totals.add(round(sum(weights.values()), 6))
    return sorted(totals) if len(terms) == 1 else []


def notes(study: Study) -> list[str]:
    """What a reader must know to read the figures rightly."""
    said = []
    count = len(study.cells)
    n = max((len(cell.runs) for cell in study.cells), default=0)
    if study.chosen is not None:
        said.append(f"Chosen by the mean {study.title_of(study.val_metric)}; test figures took no part in the choice.")
    for cell in [*study.alone, *study.cells]:
        if values := list(cell.values(f"{show.ON_TEST}{study.metric}").values()):
            said.append(f"{cell.label or 'distilled'}: {show.best_on_test(study.declared.monitored, values)}.")
    gains = [gain for cell in study.cells if (gain := study.gain(cell, study.test_metric))]
    if any(gain.low is not None for gain in gains):
        said.append("Intervals are 95 %: Student's t on the differences to the student alone, paired by seed.")
        if count > 1:
            said.append(
                f"\u25cf marks a difference that holds at 5 % among all {count} configurations (Holm's correction); the"
                " intervals are each configuration's own, not corrected."
            )
    if 1 < n <= 5:
        said.append(
            f"n = {n} seeds is small: an interval reaches {t_quantile(0.975, n - 1):.1f} standard errors to each side, and"
            " differences that are there may well stay unmarked."
        )
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
    pruned = [run for run in study.runs if run.status == "pruned"]
    if pruned:
        said.append(
            f"The search stopped {len(pruned)} run{'s' if len(pruned) > 1 else ''} early (pruned): no figure here is of "
            "them, as they were not trained to the end."
        )
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
