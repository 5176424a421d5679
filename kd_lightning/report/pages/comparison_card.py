"""The comparison of methods as a card of the report: who is ahead of whom, what is a tie, and what each costs."""

from __future__ import annotations

from typing import Any

from kd_lightning.metrics import show
from kd_lightning.report.charts.comparison import comparison_spec
from kd_lightning.report.study.comparison import ALONE, Comparison, Entry, compare, compared_key
from kd_lightning.report.study.study import Study

MANY_SEEDS = 3
"""With fewer than so many, the spread itself is hardly known."""


def comparison_cards(study: Study) -> list[dict[str, Any]]:
    """The card, by the monitored metric on test; none where there is nothing to compare."""
    metric = study.test_metric if study.test_metric in study.metrics else study.val_metric
    compared = compare(study, metric)
    key = compared_key(study)
    if compared is None or key is None:
        return []
    return [
        {
            "title": f"{key.label.capitalize()}s compared" if not key.label.endswith("s") else "Compared",
            "text": comparison_text(compared),
            "table": table(study, metric, compared),
            "figure": comparison_spec(study, metric, compared),
        }
    ]


def table(study: Study, metric: str, compared: Comparison) -> list[list[str]]:
    """Rows of texts, the head first; cost in steps of the student alone, or else of the cheapest entry."""
    read = study.reads(metric)
    alone = next((place for place, entry in enumerate(compared.entries) if entry.name == ALONE), None)
    times = [entry.step_ms for entry in compared.entries if entry.step_ms]
    unit = compared.entries[alone].step_ms if alone is not None else None
    unit = unit or min(times, default=None)
    tried = any(entry.tried > 1 for entry in compared.entries)
    measured_in = f" [{show.unit(read).strip()}]" if show.unit(read) else ""
    head = ["rank", "", f"{study.title_of(metric)}{measured_in}", "n"]
    head += ["better than alone by"] if alone is not None else []
    head += ["cost of a step"] if unit else []
    rows = [head + (["settings tried"] if tried else [])]
    for place, entry in enumerate(compared.entries):
        row = [str(entry.rank), entry.name, _figure(study, metric, entry), str(entry.summary.n)]
        if alone is not None:
            row.append(_over(study, metric, compared, place, alone))
        if unit:
            row.append(f"{entry.step_ms / unit:.2f} \u00d7" if entry.step_ms else show.NONE)
        rows.append(row + ([str(entry.tried)] if tried else []))
    return rows


def _figure(study: Study, metric: str, entry: Entry) -> str:
    read, summary = study.reads(metric), entry.summary
    text = show.show(read, summary.mean, more=1)
    return text if summary.std is None else f"{text} ± {show.show(read, summary.std, summary.mean, 1)}"


def _over(study: Study, metric: str, compared: Comparison, place: int, alone: int) -> str:
    if place == alone:
        return show.NONE
    gain = compared.gains.get((min(place, alone), max(place, alone)))
    if gain is None:
        return show.NONE
    gain = gain if place < alone else gain.times(-1)
    read, size = study.reads(metric), compared.entries[place].summary.mean
    words = [show.signed(read, gain.mean, size)]
    if gain.low is not None and gain.high is not None:
        words.append(f"[{show.signed(read, gain.low, size)}, {show.signed(read, gain.high, size)}]")
    return " ".join([*words, *(["\u25cf"] if gain.sure else [])])


def comparison_text(compared: Comparison, explain: bool = True) -> str:
    """How to read the table (``explain``), what it leaves out, and how sure the first place is."""
    first, second = compared.entries[:2]
    pairs = len(compared.gains)
    among = f"among all {pairs} comparisons" if pairs > 1 else "in the one comparison"
    how_to_read = (
        f"Equal ranks (and bars beside a picture) are ties: none of their differences is sure at 5 % {among} "
        "(paired by seed, Holm's correction). \u25cf: it is. Intervals are 95 %, each one's own."
    )
    said = [how_to_read] if explain else []
    if min(entry.summary.n for entry in compared.entries) < MANY_SEEDS:
        said.append("With so few seeds a difference is sure only by luck: take no ranking from them.")
    if compared.settings > 1:
        said.append(
            f"Each figure is the mean over {compared.settings} settings of the other keys: these, not new ones."
        )
    if compared.left_out:
        said.append(f"Left out, as they lack some of these: {', '.join(compared.left_out)}.")
    top = compared.gains.get((0, 1))
    if top is not None and top.sure:
        said.append(f"{first.name} is ahead of {second.name}.")
    elif compared.seeds_needed is not None:
        said.append(
            f"To tell {first.name} from {second.name} takes about {compared.seeds_needed} seeds, if their difference and "
            "its spread are as they look now (80 % chance, one comparison at 5 %)."
        )
    elif top is not None and top.p is None:
        said.append(
            f"{first.name} and {second.name} differ by the same for every seed: more seeds are needed to judge that."
        )
    elif top is not None:
        said.append(
            f"{first.name} and {second.name} look alike: no number of seeds worth training would tell them apart."
        )
    return " ".join(said)
