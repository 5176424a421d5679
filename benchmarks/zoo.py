"""Put a finished run's student into the zoo, and write docs/zoo.md of all that are there.

    kd-train experiment=digits run_dir=digits_mlp && python benchmarks/zoo.py digits_mlp experiment=digits
    python benchmarks/zoo.py                        # the page alone

What is of one machine (directories, host name) is left out; weights above 200 kB are refused.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from kd_lightning.metrics.declared import Declared
from kd_lightning.metrics.show import NONE, better_by, with_unit
from kd_lightning.running.open_run import open_run
from kd_lightning.runs.zoo import FOLDER, WEIGHTS, zoo_names
from kd_lightning.terminal.table import size

PAGE = Path(__file__).parents[1] / "docs" / "zoo.md"
MOST_BYTES = 200_000
_OF_A_MACHINE = {"run_dir", "hostname", "paths", "cache_dir", "cache", "launcher", "root", "existing"}


def add(run_dir: Path, overrides: list[str]) -> None:
    """Copy what a finished run is known by, and its student's weights."""
    from safetensors.torch import save_model

    run = open_run(run_dir)
    result = _shared(json.loads((run_dir / "result.json").read_text()))
    folder = FOLDER / run_dir.resolve().name
    folder.mkdir(parents=True, exist_ok=True)
    save_model(run.student, str(folder / WEIGHTS), metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)
    if (folder / WEIGHTS).stat().st_size > MOST_BYTES:
        (folder / WEIGHTS).unlink()
        raise SystemExit(f"{run_dir}: the weights are more than {size(MOST_BYTES)}")
    (folder / "result.json").write_text(
        json.dumps({**result, "name": folder.name, "overrides": overrides}, indent=1) + "\n"
    )


def _shared(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shared(item) for key, item in value.items() if key not in _OF_A_MACHINE}
    return [_shared(item) for item in value] if isinstance(value, list) else value


def page() -> str:
    """docs/zoo.md."""
    lines = [
        "# The zoo",
        "",
        "Small students that come with the package: `zoo:NAME` stands wherever a finished run's directory does. They are here",
        "to try `kd-predict` and `open_run` on, and to see what a run leaves; nobody should deploy them.",
        "",
        '=== "Command line"',
        "",
        "    ```",
        "    kd-predict zoo:digits_mlp digit.png",
        "    kd-predict zoo:fashion_mnist_cnn shoe.png",
        "    ```",
        "",
        '=== "Python"',
        "",
        "    ```python",
        "    import kd_lightning as kd",
        "",
        '    run = kd.open_run("zoo:digits_mlp")',
        "    probabilities = run.predict(run.example_inputs(3))",
        "    ```",
        "",
        "| name | made by | test | teacher | alone | distilled against alone | parameters | weights | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in zoo_names():
        result = json.loads((FOLDER / name / "result.json").read_text())
        metric = Declared.of_result(result).monitored
        key = f"test/{metric.name}"
        own = result["metrics"][key]
        teacher, alone = ((result.get(part) or {}).get(key) for part in ("teacher", "baseline"))
        gain = NONE if alone is None else better_by(metric, metric.sign * (own - alone), own)
        cells = [
            f"`{name}`",
            f"`kd-train {' '.join(result['overrides'])}`",
            f"{metric.heading} {with_unit(metric, own)}",
            with_unit(metric, teacher),
            with_unit(metric, alone),
            gain,
            f"{result['student']['parameters']:,}",
            size((FOLDER / name / WEIGHTS).stat().st_size),
            f"{result['cost']['seconds']:.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "One seed each; seconds are those of the student's training, beside the student alone, on two cores of an AMD EPYC",
        "without a GPU and not idle. Each folder of `kd_lightning/zoo/` has the run's whole `result.json`: configuration, metrics,",
        "versions. Written by `python benchmarks/zoo.py`, as its first lines say. Spread over seeds: [Results](results.md).",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        add(Path(sys.argv[1]), sys.argv[2:])
    PAGE.write_text(page())
