"""Writes sweep directories in the format that ``kd-train`` leaves, with plausible figures, for the report's tests.

The figures come from a fixed formula plus seeded noise: accuracy rises with temperature, imitates the teacher more at a
higher kd weight, and a seed's luck is shared by the student alone and the distilled student (hence the pairs).
"""

from __future__ import annotations

import itertools
import json
import math
import random
from pathlib import Path

TEACHER = {
    "name": "mlp-1200x2",
    "fingerprint": "7" * 40,
    "parameters": 151_306,
    "bytes": 605_224,
    "latency_ms": 0.92,
    "test/acc": 0.9295,
    "val/acc": 0.93,
    "run_dir": "outputs/teachers/mlp-777777777777",
}
STUDENT = {"parameters": 1930, "bytes": 7720, "latency_ms": 0.11}


def make_sweep(
    folder: Path,
    grid: dict[str, list] | None = None,
    seeds: int = 3,
    alone: bool = True,
    teacher: dict | None = TEACHER,
    baseline: dict | None = None,
    steps: int = 270,
    every: int = 15,
    metric: str = "acc",
    mode: str = "max",
    task: str = "classification",
    data: str = "digits",
    failed: tuple[str, ...] = (),
    missing: tuple[str, ...] = (),
    running: tuple[str, ...] = (),
    extra: tuple[str, ...] = (),
) -> Path:
    """Write a sweep over ``grid`` (override key -> values) x seeds; names in ``failed``, … get that fate."""
    if grid is None:
        grid = {"method.temperature": [1, 2, 4, 8], "method.weights.kd": [0.1, 0.5, 0.9]}
    folder.mkdir(parents=True, exist_ok=True)
    keys = list(grid)
    planned = []
    for values in itertools.product(*grid.values()):
        for seed in range(seeds):
            chosen = dict(zip(keys, values, strict=True))
            name = "_".join([*(_part(key, value) for key, value in chosen.items()), f"s{seed}"])
            planned.append((name, chosen, seed, "distilled"))
    if alone:
        planned += [(f"student_alone_s{seed}", {"method": "alone"}, seed, "alone") for seed in range(seeds)]
    runs = []
    for name, chosen, seed, role in planned:
        overrides = [*extra, *(f"{key}={value}" for key, value in chosen.items()), f"seed={seed}"]
        runs.append({"name": name, "overrides": overrides, "fingerprint": fingerprint(overrides), "role": role})
        if name in missing:
            continue
        fate = "failed" if name in failed else "running" if name in running else "finished"
        write_run(
            folder / name,
            chosen,
            seed,
            role,
            overrides,
            fate,
            teacher,
            baseline,
            steps,
            every,
            metric,
            mode,
            task,
            data,
        )
    sweep = {
        "format": 1,
        "command": "kd-train -m "
        + " ".join([*extra, *(f"{k}={','.join(map(str, v))}" for k, v in grid.items())])
        + f" seed=range(0,{seeds}) sweep_dir={folder}",
        "started": "2026-11-23T19:00:00",
        "swept": [*keys, "seed"],
        "runs": runs,
    }
    (folder / "sweep.json").write_text(json.dumps(sweep))
    return folder


def fingerprint(overrides: list[str]) -> str:
    return f"{abs(hash_text('|'.join(overrides))):040x}"[:40]


def hash_text(text: str) -> int:
    value = 17
    for character in text:
        value = (value * 31 + ord(character)) % (1 << 61)
    return value


def _part(key: str, value) -> str:
    tail = key.rsplit(".", 1)[-1]
    if tail == "temperature":
        return f"T{value:04.1f}"
    return f"{tail}{value:.2f}" if isinstance(value, float) else f"{tail}{value}" if "." in key else str(value)


def figures(chosen: dict, seed: int, role: str, metric: str) -> dict[str, float]:
    """best/val and test figures of one run."""
    rng = random.Random(f"{sorted(chosen.items())}-{seed}-{role}")
    luck = random.Random(f"luck-{seed}").gauss(0, 0.008)
    temperature = float(chosen.get("method.temperature", 4))
    weight = float(chosen.get("method.weights.kd", 0.7))
    lift = 0.0 if role == "alone" else 0.012 * math.log2(max(temperature, 0.5)) + 0.004 * weight
    lift += {"dkd": 0.006, "hint": -0.004}.get(str(chosen.get("method")), 0.0)
    lift += 0.3 * float(chosen.get("optimizer.lr", 0.05)) - 0.015
    acc = 0.792 + luck + lift + rng.gauss(0, 0.006)
    agreement = acc + 0.012 + 0.5 * lift + rng.gauss(0, 0.003)
    if metric == "rmse":
        return {
            "test/rmse": 2.4 - 3 * lift - luck,
            "best/val_rmse": 2.35 - 3 * lift - luck,
            "test/agreement": agreement,
        }
    return {
        "best/val_acc": acc - 0.014 + rng.gauss(0, 0.003),
        "test/acc": acc,
        "test/loss_task": 3.8 * (1 - acc) + rng.gauss(0, 0.02),
        "test/agreement": agreement,
        "test/kl_teacher": 3.0 * (1 - agreement) + rng.gauss(0, 0.01),
        "test/ece": 0.05 + 0.02 * rng.random(),
    }


def write_run(
    path, chosen, seed, role, overrides, fate, teacher, baseline, steps, every, metric, mode, task, data
) -> None:
    (path / ".hydra").mkdir(parents=True, exist_ok=True)
    (path / "checkpoints").mkdir(exist_ok=True)
    values = figures(chosen, seed, role, metric)
    method = str(chosen.get("method", "kd"))
    config = {
        "seed": seed,
        "run_dir": str(path),
        "method": {
            "name": method,
            "temperature": chosen.get("method.temperature", 4.0),
            "weights": {"task": 1.0 if role == "alone" else 0.1, "kd": chosen.get("method.weights.kd", 0.9)},
            "terms": {"kd": {"temperature": chosen.get("method.temperature", 4.0)}},
        },
        "data": {"_target_": "kd_lightning.data.digits.Digits", "name": data, "seed": seed, "batch_size": 64},
        "student": {"hidden": [chosen.get("student.width", 16)]},
        "optimizer": {"lr": chosen.get("optimizer.lr", 0.05)},
        "trainer": {"max_epochs": 18},
        "paths": {"output_dir": str(path)},
    }
    (path / ".hydra" / "overrides.yaml").write_text("".join(f"- {override}\n" for override in overrides))
    (path / ".hydra" / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    last = steps if fate == "finished" else steps // 3
    best, loss = values[f"best/val_{metric}"], 0.6
    rng = random.Random(f"curve-{path.name}")
    with open(path / "metrics.jsonl", "w", encoding="utf-8") as file:
        for step in range(every, last + 1, every):
            done = 1 - math.exp(-4 * step / steps)
            row = {"step": step, "epoch": step // every, "train/loss": 2.3 * (1 - done) + loss, "lr/student": 0.05}
            row["train/loss_task"] = 2.0 * (1 - done) + 0.4 + rng.gauss(0, 0.01)
            file.write(json.dumps(row) + "\n")
            start = 0.2 if mode == "max" else 9.0
            row = {
                "step": step,
                "epoch": step // every,
                f"val/{metric}": start + (best - start) * done + rng.gauss(0, 0.01),
            }
            row["val/agreement"] = 0.2 + 0.62 * done
            file.write(json.dumps(row) + "\n")
        if fate == "running":
            file.write('{"step": 999, "val/a')  # the line that is being written
    if fate == "running":
        return
    finished = fate == "finished"
    result = {
        "format": 1,
        "status": fate,
        "name": path.name,
        "role": role,
        "fingerprint": fingerprint(overrides),
        "seed": seed,
        "overrides": overrides,
        "task": task,
        "monitor": {"metric": metric, "mode": mode},
        "metrics": {**values, "best/epoch": 12, "best/step": steps} if finished else {},
        "teacher": teacher if role == "distilled" else None,
        "baseline": baseline,
        "student": STUDENT,
        "cost": {"seconds": 4.2, "steps": last, "epochs": 18, "fused": 12},
        "config": config,
        "error": None if finished else "RuntimeError: the loss became nan at step 90",
        "versions": {"torch": "2.14.1"},
        "commit": {"hash": "0" * 40, "dirty": False},
        "host": {"name": "localhost"},
        "started": "2026-11-23T19:00:00",
        "finished": f"2026-11-23T19:{seed:02d}:30",
    }
    (path / "result.json").write_text(json.dumps(result))
