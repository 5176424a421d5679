"""What a sweep costs: runs in lockstep against the same runs one after the other, in one process and one run.

    OMP_NUM_THREADS=1 python benchmarks/sweep.py                  # all pairs, 4, 8 and 16 members
    OMP_NUM_THREADS=1 python benchmarks/sweep.py --pairs mlp100 --members 16

For each pair of networks: one run of an ordinary Lightning project (``sweep_peer.py``: torch's DataLoader over torchvision's
transforms, ``self.log`` at every step), N of our runs one after the other (``launcher=local``), N fused, N fused that read
the teacher's stored outputs, and for convolutional students those with ``channels_last=true`` ("tuned"). All take the same
number of steps at the same batch size and validate as often; the teacher is trained and the cache written beforehand (its
cost is printed), imports are not counted. The ordinary project tests nothing, ours test one batch of 128.

Printed are costs in units of one ordinary run, by the wall clock and by processor time, and what the fused sweeps reach of
the bound ``D + T + N S`` (cached: ``D + N S``) in processor time: the costs of a batch (data D, teacher T, student's step S)
and of the evaluations that every run makes, measured before and after each sweep, as the machine's speed drifts. Every
member's result must be equal in all ways of running it (with the cache: up to its rounding), or the benchmark fails.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.utils import setup_globals
from sweep_costs import Seconds, costs
from sweep_peer import ordinary_run

from kd_lightning.cli._hydra_main import config_directory
from kd_lightning.config.build import build_datamodule, build_model
from kd_lightning.config.fingerprint import config_fingerprint
from kd_lightning.running.execute import execute
from kd_lightning.running.executors.local import LocalExecutor
from kd_lightning.running.shared import with_stored_answers
from kd_lightning.runs.spec import RunSpec
from kd_lightning.sweeps.from_hydra import plain_config
from kd_lightning.teachers.registry import obtain_teacher
from kd_lightning.terminal.quiet import quiet

COMMON = [
    "data=fashion_mnist", "name=benchmark", "baseline=false", "data.augment=true", "data.views=2", "trainer.max_epochs=2",
    "teacher.train.max_epochs=1", "data.batch_size=128", "pictures.every_n_epochs=0", "data.val_size=512",
    "trainer.accelerator=cpu", "log_every_n_steps=50", "+trainer.limit_test_batches=1", "data.eval_batch_size=128",
]  # fmt: skip
RESNET = "kd_lightning.models.resnet_cifar"
PAIRS: dict[str, list[str]] = {
    "mlp100": ["teacher=mlp", "student=mlp", "student.hidden=[100,100]", "data.train_size=19200"],
    "mlp800": ["teacher=mlp", "student=mlp", "student.hidden=[800,800]", "data.train_size=6400"],
    "cnn": [
        "teacher=small_cnn", "teacher.model.channels=[64,128,256]", "teacher.model.hidden=256", "student=small_cnn",
        "student.channels=[8,16]", "student.hidden=32", "data.train_size=5120",
    ],
    "resnet": ["teacher=resnet32x4", "student=resnet8x4", "data.train_size=512", "data.batch_size=64"],
    "mobilenet": ["teacher=resnet32x4", "student=mobilenet_v2_half", "data.train_size=512", "data.batch_size=64"],
}  # fmt: skip


GRID = [(t, w, lr) for lr in (0.05, 0.02) for t in (1.0, 2.0, 4.0, 8.0) for w in (0.1, 0.9)]


def specs(pair: str, members: int, out: Path, cache: str, *more: str) -> list[RunSpec]:
    """N runs over temperature, weight and learning rate."""
    made = []
    for number, (temperature, weight, rate) in enumerate(GRID[:members]):
        overrides = [
            *COMMON, *PAIRS[pair], f"paths.output_dir={out.parents[1]}", f"teacher.cache={cache}",
            f"method.temperature={temperature}", f"method.weights.kd={weight}", f"optimizer.lr={rate}", *more,
        ]  # fmt: skip
        config = plain_config(compose("train", overrides))
        made.append(RunSpec(f"run{number:02d}", out / f"run{number:02d}", config, config_fingerprint(config)))
    return made


def timed(wanted: Sequence[RunSpec], fuse: bool) -> tuple[Seconds, list[dict[str, Any]]]:
    """What training and testing the runs takes, and their results."""
    start = Seconds.now()
    results = execute(wanted, LocalExecutor(fuse=fuse))
    passed = start.passed()
    bad = [result for result in results if result["status"] != "finished"]
    if bad:
        raise SystemExit(f"{bad[0]['name']}: {bad[0]['status']}: {bad[0]['error']}")
    return passed, results


def same(one: list[dict[str, Any]], other: list[dict[str, Any]], tolerance: float = 0.0) -> bool:
    """Whether members' final metrics agree."""
    for a, b in zip(one, other, strict=True):
        for name, value in a["metrics"].items():
            if tolerance and not name.startswith("test/"):  # rounding may choose another epoch
                continue
            if abs(value - b["metrics"][name]) > tolerance * max(1.0, abs(value)):
                return False
    return True


def ordinary(pair: str, root: Path) -> Seconds:
    """What one run of an ordinary project on the pair's data takes."""
    config = specs(pair, 1, root / "ordinary" / "x", "off")[0].config
    datamodule = build_datamodule(config)
    values, target = datamodule.train_data()
    train, val = ((values[chosen, 0], target[chosen]) for chosen in datamodule.choose(target))
    start = Seconds.now()
    ordinary_run(
        lambda: build_model(config["teacher"]["model"], datamodule, "teacher.model"),
        lambda: build_model(config["student"], datamodule, "student"),
        train,
        val,
        config["data"]["batch_size"],
        config["trainer"]["max_epochs"],
    )
    return start.passed()


def benchmark(pair: str, members: Sequence[int], root: Path, rounds: int) -> None:
    """Print one pair's tables."""
    cache = str(root / "cache" / pair)
    tuning = ["channels_last=true", "teacher.channels_last=true"] if not pair.startswith("mlp") else []
    start, steps = Seconds.now(), 0
    for more in ([], tuning) if tuning else ([],):
        warm = specs(pair, 1, root / "warm" / pair, cache, *more)
        datamodule = build_datamodule(warm[0].config)
        teacher, _ = obtain_teacher(warm[0].config, datamodule, set(), lambda spec: execute([spec])[0])
        with_stored_answers(warm, teacher, datamodule)
        steps = datamodule.steps_per_epoch * warm[0].config["trainer"]["max_epochs"]
    print(f"\n{pair}: {steps} steps a run; teacher trained and cache written in {start.passed().wall:.1f} s")
    for n in members:
        rows = [one_round(pair, n, root / f"{pair}-{n}-{turn}", cache, tuning, steps) for turn in range(rounds)]
        ways = list(rows[0][0])
        print(
            f"  {n:2} runs, in one ordinary run" + "".join(f"{way:>10}" for way in ways) + "    of bound: fused  cached"
        )
        for clock in Seconds._fields:
            unit = [getattr(row["ordinary"], clock) / n for row, _ in rows]
            shown = [
                statistics.median(getattr(row[way], clock) / one for (row, _), one in zip(rows, unit, strict=True))
                for way in ways
            ]
            line = f"          {clock:>4} time        " + "".join(f"{value:10.2f}" for value in shown)
            if clock == "cpu":
                line += "".join(
                    f"{statistics.median(of):{w}.2f}"
                    for of, w in zip(zip(*(of for _, of in rows), strict=True), (18, 8), strict=True)
                )
            print(line, flush=True)


def one_round(
    pair: str, n: int, out: Path, cache: str, tuning: Sequence[str], steps: int
) -> tuple[dict[str, Seconds], tuple[float, float]]:
    """Every way of making N runs once, and the shares of the bound. The ordinary way is N times the mean of one run
    before and one after the others."""
    first = ordinary(pair, out)
    taken = {"ordinary": first}
    taken["local"], alone = timed(specs(pair, n, out / "local", "off"), False)
    config = specs(pair, 1, out / "costs", "off")[0].config
    before = costs(config)
    taken["fused"], together = timed(specs(pair, n, out / "fused", "off"), True)
    between = costs(config)
    taken["cached"], replayed = timed(specs(pair, n, out / "cached", cache), True)
    after = costs(config)
    if not same(alone, together):
        raise SystemExit(f"{pair}: fused results differ from lone runs")
    if not same(alone, replayed, 0.05):
        raise SystemExit(f"{pair}: results with stored teacher outputs differ by more than rounding")
    if tuning:
        taken["tuned"], _ = timed(specs(pair, n, out / "tuned", cache, *tuning), True)
    last = ordinary(pair, out)
    taken["ordinary"] = Seconds(*(n * (a + b) / 2 for a, b in zip(first, last, strict=True)))
    bounds = [
        (one.bound(steps, n, cached) + other.bound(steps, n, cached)) / 2
        for one, other, cached in ((before, between, False), (between, after, True))
    ]
    return taken, (bounds[0] / taken["fused"].cpu, bounds[1] / taken["cached"].cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", nargs="*", default=list(PAIRS), choices=list(PAIRS))
    parser.add_argument("--members", nargs="*", type=int, default=[4, 8, 16])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    quiet()
    logging.getLogger("kd_lightning").setLevel(logging.ERROR)  # that a teacher of eight steps is poor is known
    warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")  # the ordinary project's teacher
    setup_globals()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), median of {arguments.rounds} round(s)")
    with tempfile.TemporaryDirectory() as folder, initialize_config_dir(str(config_directory()), version_base="1.3"):
        for pair in arguments.pairs:
            members = [n for n in arguments.members if pair not in ("resnet", "mobilenet") or n <= 4]
            benchmark(pair, members, Path(folder), arguments.rounds)


if __name__ == "__main__":
    main()
