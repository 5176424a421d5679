"""How a sweep's cost per run falls with its size: 100, 1,000 and 10,000 runs on a cluster, from costs measured here.

    OMP_NUM_THREADS=1 python benchmarks/scale.py                    # small_cnn -> cnn on 2,560 Fashion-MNIST-like images
    OMP_NUM_THREADS=1 python benchmarks/scale.py --pairs resnet     # resnet32x4 -> resnet8x4: minutes

Measured, in processor seconds on this machine: the start of a job (a worker with one run of one batch, less that batch), a
batch's data, the teacher and the student's step on it, the evaluations. Computed from these: what a run costs on average when

    basic            each run is a job of its own, as others do it; the teacher is found in the store
    packed           sixteen runs a job, in lockstep: they share the start, the data, the teacher
    packed + cached  and the teacher's answers are written once for the sweep and read by every job

in units of the student's own training (its steps and evaluations, the data it must read), for runs of ``--epochs`` epochs, and
how long the sweep takes on ``--devices`` devices that take jobs from one queue, all of them as fast as this machine. A model,
not a cluster: waiting in a queue and a slow file system are not in it.

Also the start of a job against the bare import of torch and Lightning, and ``kd-report`` on 10,000 runs (``--report``).
"""

from __future__ import annotations

import argparse
import heapq
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hydra import compose, initialize_config_dir
from hydra.core.utils import setup_globals
from sweep import COMMON, PAIRS
from sweep_costs import Costs, costs

from kd_lightning.cli._hydra_main import config_directory
from kd_lightning.config.build import build_datamodule
from kd_lightning.config.fingerprint import config_fingerprint
from kd_lightning.report.pages.page import write_report
from kd_lightning.runs.result_file import write_result
from kd_lightning.runs.spec import RunSpec
from kd_lightning.runs.work_file import TRAIN, Work, write_work
from kd_lightning.sweeps.from_hydra import plain_config
from kd_lightning.teachers.registry import obtain_teacher
from kd_lightning.terminal.quiet import quiet

SIZES = (100, 1_000, 10_000)
PACKED = 16
VIEWS = 2


class Job(NamedTuple):
    """Seconds of a job: once, and for each of its runs."""

    once: float
    each: float

    def seconds(self, runs: int) -> float:
        return self.once + runs * self.each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", nargs="*", default=["cnn"], choices=list(PAIRS))
    parser.add_argument("--epochs", type=int, default=240, help="of a run; 240 is the papers' for CIFAR-100")
    parser.add_argument("--devices", type=int, default=64)
    parser.add_argument("--report", type=int, default=0, metavar="RUNS", help="also time kd-report on so many runs")
    options = parser.parse_args()
    quiet()
    logging.getLogger("kd_lightning").setLevel(logging.ERROR)
    setup_globals()
    with tempfile.TemporaryDirectory() as folder, initialize_config_dir(str(config_directory()), version_base="1.3"):
        for pair in options.pairs:
            table(pair, Path(folder), options.epochs, options.devices)
        if options.report:
            report(Path(folder) / "report", options.report)


def table(pair: str, root: Path, epochs: int, devices: int) -> None:
    """Print one pair's costs per run."""
    overrides = [*COMMON, *PAIRS[pair], f"paths.output_dir={root}", "teacher.cache=off"]
    config = plain_config(compose("train", overrides))
    datamodule = build_datamodule(config)
    obtain_teacher(config, datamodule, set(), train_here)
    found = costs(config)
    bare, start = startup(config, root)
    batches = datamodule.steps_per_epoch
    steps = epochs * batches
    measured = config["trainer"]["max_epochs"]
    # evaluations are measured over the configuration's epochs and one batch of the test: scaled to the run's
    taught, tested = found.taught, found.tested * epochs / measured
    own = steps * (found.data + found.step) + tested
    batch = found.data + found.teacher
    ways = {
        "basic": (1, Job(start + steps * batch + taught, steps * found.step + tested), 0.0),
        "packed": (PACKED, Job(start + steps * batch + taught, steps * found.step + tested), 0.0),
        "packed + cached": (
            PACKED,
            Job(start + steps * found.data + taught, steps * found.step + tested),
            VIEWS * batches * batch,
        ),
    }
    print(f"\n{pair}: {steps} steps a run ({epochs} epochs of {batches}); processor milliseconds: {said(found)}")
    print(f"start of a job {start:.1f} s, {start / bare:.2f} x the bare import of torch and Lightning ({bare:.1f} s)")
    print(f"the student's own training: {own:.1f} s\n\n| runs |" + "".join(f" {way} |" for way in ways))
    print("|---:|" + "---:|" * len(ways))
    for size in SIZES:
        cells = []
        for most, job, before in ways.values():
            jobs = divided(size, most)
            spent = before + sum(job.seconds(runs) for runs in jobs)
            wall = before + makespan([job.seconds(runs) for runs in jobs], devices)
            cells.append(f" {spent / size / own:.3f} ({wall / 3600:.2f} h) |")
        print(f"| {size:,} |" + "".join(cells))
    print(f"\ncost per run in units of the student's own training (hours on {devices} devices)")


def said(found: Costs) -> str:
    return f"data {1000 * found.data:.2f}, teacher {1000 * found.teacher:.2f}, student {1000 * found.step:.2f} a batch"


def divided(runs: int, most: int) -> list[int]:
    """Runs of each job, as equal as possible."""
    count = -(-runs // most)
    return [runs * (part + 1) // count - runs * part // count for part in range(count)]


def makespan(jobs: Sequence[float], devices: int) -> float:
    """Seconds until the last job has ended, each starting on the device that is free first."""
    free = [0.0] * devices
    for seconds in sorted(jobs, reverse=True):
        heapq.heappush(free, heapq.heappop(free) + seconds)
    return max(free)


def train_here(spec: RunSpec) -> dict:
    from kd_lightning.running.execute import execute

    return execute([spec])[0]


def startup(config: dict, root: Path) -> tuple[float, float]:
    """Processor seconds of importing torch and Lightning, and of a worker that trains and tests one batch."""
    quick = {**config, "trainer": {**config["trainer"], "fast_dev_run": 1}}
    best: list[list[float]] = [[], []]
    for turn in range(3):
        run_dir = root / f"start-{turn}"
        spec = RunSpec("start", run_dir, quick, config_fingerprint(quick))
        write_work(root / "work.json", Work(TRAIN, (spec,), Path.cwd()))
        for place, command in enumerate(
            (["-c", "import torch, pytorch_lightning"], ["-m", "kd_lightning.running.worker", str(root / "work.json")])
        ):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL, env=os.environ)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            best[place].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(best[0]), min(best[1])


def report(folder: Path, runs: int) -> None:
    """Time ``kd-report`` on a sweep that is made up: 500 configurations, ``runs`` / 500 seeds."""
    make_sweep(folder, runs)
    start, cpu = time.perf_counter(), time.process_time()
    page = write_report(folder)
    wall, spent = time.perf_counter() - start, time.process_time() - cpu
    print(
        f"\nkd-report on {runs:,} runs: {wall:.1f} s ({spent:.1f} s of processor time), {page.stat().st_size / 1e6:.1f} MB"
    )


def make_sweep(folder: Path, runs: int) -> None:
    """A sweep's directory as ``kd-train`` leaves it: results, metrics of 18 epochs, configurations."""
    planned = []
    for number in range(runs):
        cell, seed = number % 500, number // 500
        values = {
            "method.temperature": 1.0 + cell % 10,
            "method.weights.kd": round(0.1 + 0.1 * (cell // 10 % 10), 1),
            "optimizer.lr": [0.01, 0.02, 0.05, 0.1, 0.2][cell // 100],
        }
        overrides = [*(f"{key}={value}" for key, value in values.items()), f"seed={seed}"]
        name = f"T{values['method.temperature']:04.1f}_kd{values['method.weights.kd']:.2f}_c{cell}_s{seed}"
        config = {
            "seed": seed,
            "data": {"_target_": "kd_lightning.data.digits.Digits", "seed": 0, "batch_size": 64},
            "method": {"temperature": values["method.temperature"], "weights": {"task": 0.1, "kd": values["method.weights.kd"]}},
            "optimizer": {"lr": values["optimizer.lr"]},
        }  # fmt: skip
        accuracy = 0.8 + 0.01 * (cell % 10) - 0.0007 * (cell % 7) + 0.003 * ((number * 7919) % 11 - 5) / 5
        run_dir = folder / name
        (run_dir / ".hydra").mkdir(parents=True)
        (run_dir / ".hydra" / "overrides.yaml").write_text("".join(f"- {text}\n" for text in overrides))
        with (run_dir / "metrics.jsonl").open("w") as file:
            for epoch in range(18):
                reached = accuracy * (1 - 0.8 ** (epoch + 1))
                file.write(
                    json.dumps({"step": 15 * (epoch + 1), "epoch": epoch, "train/loss": 2.3 - 2 * reached}) + "\n"
                )
                file.write(json.dumps({"step": 15 * (epoch + 1), "epoch": epoch, "val/acc": reached}) + "\n")
        fingerprint = f"{number:064x}"
        metrics = {"best/val_acc": accuracy, "test/acc": accuracy - 0.01, "best/epoch": 17, "best/step": 270}
        write_result(run_dir / "result.json", {
            "status": "finished", "name": name, "role": "distilled", "fingerprint": fingerprint, "seed": seed,
            "setting": f"{cell:064x}", "overrides": overrides, "task": "classification", "teacher": None, "baseline": None,
            "monitor": {"metric": "acc", "mode": "max"}, "metrics": metrics, "error": None, "config": config,
            "student": {"parameters": 1930, "bytes": 7720, "latency_ms": 0.1}, "finished": "2026-01-01T00:00:00+00:00",
            "cost": {"seconds": 4.0, "steps": 270, "epochs": 18, "fused": 16},
        })  # fmt: skip
        planned.append({"name": name, "overrides": overrides, "fingerprint": fingerprint, "role": "distilled"})
    sweep = {
        "format": 1,
        "command": "kd-train -m",
        "swept": ["method.temperature", "method.weights.kd", "optimizer.lr"],
    }
    (folder / "sweep.json").write_text(json.dumps({**sweep, "runs": planned}))


if __name__ == "__main__":
    main()
