"""Seconds that ``kd-sweep status`` takes on a sweep of many runs: python benchmarks/status.py [--runs 10000]

A real run is made and its files are copied: of ten runs, eight are finished, one trains and one waits. The command is
timed as a whole, from its start; what is printed is the median of three, and what the first took, when the files had just been written.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

QUICK = (
    "trainer.max_epochs=20",
    "teacher=mlp",
    "teacher.train.max_epochs=2",
    "baseline=false",
    "pictures.every_n_epochs=0",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=10_000)
    count = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as place:
        command = [
            sys.executable,
            "-m",
            "kd_lightning.cli.train",
            "-m",
            *QUICK,
            "seed=0",
            "hydra.sweep.subdir=s0",
            "sweep_dir=sweep",
        ]
        subprocess.run(command, cwd=place, check=True, stdout=subprocess.DEVNULL)
        sweep = Path(place, "sweep")
        copy_runs(sweep, count)
        times = []
        for _ in range(3):
            start = time.perf_counter()
            said = subprocess.run(
                [sys.executable, "-m", "kd_lightning.cli.sweep", "status", str(sweep)], capture_output=True, text=True
            )
            times.append(time.perf_counter() - start)
        print(said.stdout.splitlines()[-2 if said.returncode else -1])
        print(
            f"{count} runs: median {statistics.median(times):.2f} s, first {times[0]:.2f} s, {os.cpu_count()} processors"
        )


def copy_runs(sweep: Path, count: int) -> None:
    """Fill a sweep with copies of its run ``s0``."""
    content = json.loads((sweep / "sweep.json").read_text())
    (template,) = content["runs"]
    result = json.loads((sweep / "s0/result.json").read_text())
    texts = {
        name: (sweep / "s0" / name).read_text() for name in ("metrics.jsonl", "kd-train.log", ".hydra/config.yaml")
    }
    content["runs"] = []
    for number in range(count):
        name, fingerprint = f"run_{number:05d}", f"{number:064d}"
        content["runs"].append({**template, "name": name, "fingerprint": fingerprint})
        if number % 10 == 9:
            continue
        run = sweep / name
        (run / ".hydra").mkdir(parents=True)
        for file, text in texts.items():
            (run / file).write_text(text if number % 10 < 8 else text[: 2 * len(text) // 3])
        (run / ".hydra/config.yaml").write_text(texts[".hydra/config.yaml"])
        if number % 10 < 8:
            (run / "result.json").write_text(json.dumps({**result, "name": name, "fingerprint": fingerprint}, indent=2))
    (sweep / "sweep.json").write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
