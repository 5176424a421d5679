"""``kd.sweep``: many runs of :func:`~kd_lightning.api.distill.distill`, side by side in this process."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from kd_lightning.api.accepted import only_known
from kd_lightning.api.distill import Model, chosen
from kd_lightning.api.options import Options
from kd_lightning.api.result import Distilled
from kd_lightning.api.start import start
from kd_lightning.errors import RunsFailed, UserError
from kd_lightning.method import Method
from kd_lightning.runs.result_file import read_result
from kd_lightning.runs.spec import ALONE
from kd_lightning.sweeps.sweep_file import read_sweep_file


@only_known
def sweep(
    teacher: Model | Sequence[nn.Module] | None = "small_cnn_few_labels",
    student: Model = "mlp",
    train: Any = "digits",
    val: Any = None,
    test: Any = None,
    method: str | Sequence[str] | Method | Mapping[str, Any] = "kd",
    *,
    over: Mapping[str, Sequence[Any]],
    seeds: int | Sequence[int] = 1,
    temperature: float | None = None,
    weights: Mapping[str, float] | None = None,
    max_epochs: int | None = None,
    batch_size: int | None = None,
    optimizer: str | Mapping[str, Any] | None = None,
    lr: float | None = None,
    baseline: bool = True,
    sweep_dir: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    verbose: bool = True,
) -> Sweep:
    """Train one student for each combination of values and seeds, as ``kd-train -m`` does.

    ::

        found = kd.sweep(big, lambda: Net(), train_set, over={"temperature": [1, 2, 4], "method": ["kd", "dkd"]}, seeds=3)
        found.frame      # in a notebook ``found`` shows the report
        found.best.student

    Runs that agree in data, teacher and trainer settings are trained in lockstep: a batch is loaded once, the teacher
    answers once. Started again with the same ``sweep_dir``, only what is missing is trained.

    Args:
        over: values by keyword (``temperature``, ``lr``, ``method``, ``student``, …) or configuration key; every
            combination is a run.
        seeds: how many, from 0, or which; each makes the student's initial weights anew, so with more than one the
            student is a function or class that makes it, or a name.
        sweep_dir: where the runs go.
        teacher, student, train, val, test, method, temperature, weights, max_epochs, batch_size, optimizer, lr, baseline,
            settings, verbose: see :func:`~kd_lightning.api.distill.distill`.

    Raises:
        UserError: something that was given cannot be meant; nothing was trained.
        RunsFailed: no run finished. Runs that fail beside others are told, and stand in the frame.
        RunInterrupted: Ctrl-C; what is finished stays, the others' states are kept.
    """
    options = chosen(
        teacher=teacher, student=student, train=train, val=val, test=test, method=method, temperature=temperature,
        weights=weights, max_epochs=max_epochs, batch_size=batch_size, optimizer=optimizer, lr=lr, baseline=baseline,
        settings=settings,
    )  # fmt: skip
    numbers = list(range(seeds)) if isinstance(seeds, int) else [int(seed) for seed in seeds]
    if not numbers:
        raise UserError(f"seeds: give how many (at least 1), or which; got {seeds!r}")
    if len(numbers) > 1:
        for model in [student, *over.get("student", ())]:
            if isinstance(model, nn.Module):
                raise UserError(
                    f"seeds={seeds}: the student is a {type(model).__name__} whose weights are made already, every seed "
                    "would start from the same: give a function that makes it, student=lambda: …"
                )
    for key, values in over.items():
        options.vary(key, values)
    options.vary("seed", numbers)
    if sweep_dir is not None:
        options.set("sweep_dir", Path(sweep_dir))
    found = Sweep(start(options, verbose=verbose), {options.key(key): key for key in [*over, "seed"]}, options)
    if not any(record["status"] == "finished" for record in found.records):
        raise RunsFailed(f"no run finished: {found.records[0]['error']}")
    return found


class Sweep:
    """A sweep's runs, read from its directory.

    Args:
        sweep_dir: its directory.
        varied: how each key that was varied is called in the records.
        options: what was given, kept for as long as this is.

    Attributes:
        sweep_dir: where its files are: those of ``kd-train -m``.
        report: the page that compares its runs.
    """

    def __init__(self, sweep_dir: Path, varied: Mapping[str, str], options: Options) -> None:
        self.sweep_dir, self.report = Path(sweep_dir), Path(sweep_dir) / "report.html"
        self._varied, self._options = dict(varied), options
        self._results = {
            run["name"]: (run, read_result(self.sweep_dir / run["name"] / "result.json", strict=False) or {})
            for run in read_sweep_file(self.sweep_dir)["runs"]
        }

    @property
    def records(self) -> list[dict[str, Any]]:
        """One mapping a run: ``run``, what was varied, ``status``, metrics, ``alone/…`` (the same student without the
        teacher, same seed), ``error``, ``run_dir``."""
        runs = [(run, result) for run, result in self._results.values() if run.get("role") != ALONE]
        if not runs:  # teacher=None: all of them are students alone
            runs = list(self._results.values())
        return [self._record(run, result) for run, result in runs]

    @property
    def frame(self) -> Any:
        """:attr:`records` as a ``pandas.DataFrame`` where pandas is installed, else as they are."""
        try:
            import pandas
        except ImportError:
            return self.records
        return pandas.DataFrame(self.records)

    @property
    def best(self) -> Distilled:
        """The finished run with the best validation metric (over several seeds a lucky one: compare means)."""
        finished = [r for r in self.records if r["status"] == "finished"]
        monitor = self._results[finished[0]["run"]][1]["monitor"]
        sign = 1 if monitor["mode"] == "max" else -1
        chosen_by = f"best/val_{monitor['metric']}"
        if not all(chosen_by in record for record in finished):
            raise UserError("best: runs without validation (protocol=literature) choose none: see records")
        best = max(finished, key=lambda record: sign * record[chosen_by])
        return self.run(best["run"])

    def run(self, name: str) -> Distilled:
        """One of its runs, by the name in its record."""
        if name not in self._results:
            raise UserError(f"{name}: no such run in {self.sweep_dir}; there is {', '.join(self._results)}")
        return Distilled(self.sweep_dir / name, self._options.objects)

    def _record(self, run: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
        values = dict(override.split("=", 1) for override in run["overrides"] if "=" in override)
        alone = {f"alone/{key}": v for key, v in (result.get("baseline") or {}).items() if key.startswith("test/")}
        return {
            "run": run["name"],
            **{name: yaml.safe_load(values[key]) for key, name in self._varied.items() if key in values},
            "status": result.get("status", "missing"),
            **(result.get("metrics") or {}),
            **alone,
            "error": result.get("error"),
            "run_dir": str(self.sweep_dir / run["name"]),
        }

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        return f"{len(self)} runs in {self.sweep_dir}; .frame has their figures, {self.report} compares them"

    def _repr_html_(self) -> str:
        """The report, within the notebook."""
        try:
            page = self.report.read_text(encoding="utf-8")
        except OSError:
            return f"<div>{html.escape(repr(self))}</div>"
        where = f"<div><code>{html.escape(str(self.report))}</code></div>"
        style = "width:100%;height:48rem;border:1px solid #ccc"
        return f'{where}<iframe srcdoc="{html.escape(page)}" style="{style}"></iframe>'
