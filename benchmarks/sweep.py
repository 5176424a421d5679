"""What a sweep costs: runs in lockstep against the same runs one after the other, in one process and one run.

    OMP_NUM_THREADS=1 python benchmarks/sweep.py                  # all pairs, 4, 8 and 16 members
    OMP_NUM_THREADS=1 python benchmarks/sweep.py --pairs mlp100 --members 16

For each pair of networks: one run of an ordinary Lightning project (``sweep_peer.py``: torch's DataLoader over torchvision's
transforms, ``self.log`` at every step), N of our runs one after the other (``launcher=local``), N fused, and N fused that read
the teacher's stored outputs. All take the same number of steps at the same batch size and validate as often; the teacher is
trained and the cache written beforehand (its cost is printed), imports are not counted. Only one batch is tested: the
ordinary project tests nothing. Two tables a pair: costs in units
of one ordinary run, and the share that the fused sweeps reach of the bound ``D + T + N S`` (cached: ``D + N S``) from the
costs of a batch measured here: data D, teacher T, student's step S. Every member's result must be equal in all ways of
running it (with the cache: up to its rounding), or the benchmark fails.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sweep_peer
import torch
from hydra import compose, initialize_config_dir
from hydra.core.utils import setup_globals
from sweep_peer import ordinary_run

from kd_lightning.cli._hydra_main import config_directory
from kd_lightning.cli.quiet import quiet
from kd_lightning.config.build import build_datamodule, build_member, build_model
from kd_lightning.config.fingerprint import config_fingerprint
from kd_lightning.runs.spec import RunSpec
from kd_lightning.sweeps.execute import execute, training_teacher
from kd_lightning.sweeps.from_hydra import plain_config
from kd_lightning.teachers.registry import obtain_teacher

COMMON = [
    "data=fashion_mnist", "name=benchmark", "baseline=false", "data.augment=true", "data.views=2", "trainer.max_epochs=2",
    "teacher.train.max_epochs=1", "data.batch_size=128", "pictures.every_n_epochs=0", "data.val_size=512",
    "trainer.accelerator=cpu", "log_every_n_steps=50", "+trainer.limit_test_batches=1",
]  # fmt: skip
RESNET = "kd_lightning.models.resnet_cifar"
PAIRS: dict[str, list[str]] = {
    "mlp100": ["teacher=mlp", "student=mlp", "student.hidden=[100,100]", "data.train_size=19200"],
    "mlp800": ["teacher=mlp", "student=mlp", "student.hidden=[800,800]", "data.train_size=6400"],
    "cnn": [
        "teacher=small_cnn", "teacher.model.channels=[64,128,256]", "teacher.model.hidden=256", "student=small_cnn",
        "student.channels=[8,16]", "student.hidden=32", "data.train_size=2560",
    ],
    "resnet": ["teacher=resnet32x4", "student=resnet8x4", "data.train_size=512", "data.batch_size=64"],
    "mobilenet": ["teacher=resnet32x4", "student=mobilenet_v2", "data.train_size=512", "data.batch_size=64"],
}  # fmt: skip


def clock() -> float:
    """Seconds, of the clock that was chosen."""
    return sweep_peer.clock()


GRID = [(t, w, lr) for lr in (0.05, 0.02) for t in (1.0, 2.0, 4.0, 8.0) for w in (0.1, 0.9)]


def specs(pair: str, members: int, out: Path, cache: str) -> list[RunSpec]:
    """N runs over temperature, weight and learning rate."""
    made = []
    for number, (temperature, weight, rate) in enumerate(GRID[:members]):
        overrides = [
            *COMMON, *PAIRS[pair], f"paths.output_dir={out.parents[1]}", f"teacher.cache={cache}",
            f"method.temperature={temperature}", f"method.weights.kd={weight}", f"optimizer.lr={rate}",
        ]  # fmt: skip
        cfg = compose("train", overrides)
        config = plain_config(cfg)
        made.append(RunSpec(f"run{number:02d}", out / f"run{number:02d}", config, config_fingerprint(config)))
    return made


def timed(wanted: Sequence[RunSpec], fuse: bool) -> tuple[float, list[dict[str, Any]]]:
    """Seconds of training and testing the runs, and their results."""
    start = clock()
    results = execute(wanted, fuse=fuse)
    seconds = clock() - start
    bad = [result for result in results if result["status"] != "finished"]
    if bad:
        raise SystemExit(f"{bad[0]['name']}: {bad[0]['status']}: {bad[0]['error']}")
    return seconds, results


def costs(pair: str, root: Path) -> tuple[float, float, float]:
    """Seconds a batch costs: data, teacher, student's step."""
    config = specs(pair, 1, root / "costs" / "x", "off")[0].config
    datamodule = build_datamodule(config)
    loader = datamodule.train_dataloader()
    batches = list(loader)
    start = clock()
    for _ in loader:
        pass
    data = (clock() - start) / len(batches)
    loader.close()
    teacher, _ = obtain_teacher(config, datamodule, set(), lambda spec: execute([spec])[0])
    start = clock()
    answers = [teacher(batch) for batch in batches]
    shown = (clock() - start) / len(batches)
    member = build_member(config, datamodule, datamodule.example_batch(), answers[0], "member")
    member.configure(epochs=2, steps_per_epoch=len(batches), device=torch.device("cpu"))
    start = clock()
    for batch, answer in zip(batches, answers, strict=True):
        member.training_step(batch, answer, stepping=True, backward=torch.Tensor.backward)
    return data, shown, (clock() - start) / len(batches)


def same(one: list[dict[str, Any]], other: list[dict[str, Any]], tolerance: float = 0.0) -> bool:
    """Whether members' final metrics agree."""
    for a, b in zip(one, other, strict=True):
        for name, value in a["metrics"].items():
            if tolerance and not name.startswith("test/"):  # rounding may choose another epoch
                continue
            if abs(value - b["metrics"][name]) > tolerance * max(1.0, abs(value)):
                return False
    return True


def ordinary(pair: str, root: Path) -> float:
    """Seconds of one run of an ordinary project on the pair's data."""
    config = specs(pair, 1, root / "ordinary" / "x", "off")[0].config
    datamodule = build_datamodule(config)
    values, target = datamodule.train_data()
    train, val = ((values[chosen, 0], target[chosen]) for chosen in datamodule.choose(target))
    return ordinary_run(
        lambda: build_model(config["teacher"]["model"], datamodule, "teacher.model"),
        lambda: build_model(config["student"], datamodule, "student"),
        train,
        val,
        config["data"]["batch_size"],
        config["trainer"]["max_epochs"],
    )


def benchmark(pair: str, members: Sequence[int], root: Path, rounds: int) -> None:
    """Print one pair's tables."""
    data, shown, step = costs(pair, root)
    print(
        f"\n{pair}: a batch costs data {1e3 * data:.2f} ms, teacher {1e3 * shown:.2f} ms, student {1e3 * step:.2f} ms"
    )
    cache = str(root / "cache" / pair)
    warm = specs(pair, 1, root / "warm" / pair, cache)
    start = clock()
    datamodule = build_datamodule(warm[0].config)
    teacher, _ = obtain_teacher(warm[0].config, datamodule, set(), lambda spec: execute([spec])[0])
    training_teacher(warm, teacher, datamodule)
    batches = datamodule.steps_per_epoch * warm[0].config["trainer"]["max_epochs"]
    print(f"  {batches} steps a run; cache written in {clock() - start:.1f} s")
    print("  runs   ordinary    local    fused   cached   of bound: fused  cached")
    for n in members:
        rows = []
        for turn in range(rounds):
            out = root / f"{pair}-{n}-{turn}"
            unit = ordinary(pair, root)
            local, results = timed(specs(pair, n, out / "local", "off"), False)
            fused, together = timed(specs(pair, n, out / "fused", "off"), True)
            cached, replayed = timed(specs(pair, n, out / "cached", cache), True)
            if not same(results, together):
                raise SystemExit(f"{pair}: fused results differ from lone runs")
            if not same(results, replayed, 0.05):
                raise SystemExit(f"{pair}: results with stored teacher outputs differ by more than rounding")
            bounds = batches * (data + shown + n * step), batches * (data + n * step)
            rows.append((local / unit, fused / unit, cached / unit, bounds[0] / fused, bounds[1] / cached))
        local, fused, cached, of_fused, of_cached = (statistics.median(column) for column in zip(*rows, strict=True))
        print(
            f"  {n:4} {n:10.1f} {local:8.2f} {fused:8.2f} {cached:8.2f} {of_fused:17.2f} {of_cached:7.2f}   results equal"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", nargs="*", default=["mlp100", "cnn", "mlp800", "resnet"], choices=list(PAIRS))
    parser.add_argument("--members", nargs="*", type=int, default=[4, 8, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: for a machine that is not idle")
    arguments = parser.parse_args()
    sweep_peer.clock = {"wall": time.perf_counter, "cpu": time.process_time}[arguments.clock]
    quiet()
    logging.getLogger("kd_lightning").setLevel(logging.WARNING)
    setup_globals()
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), {arguments.clock} time, median of {arguments.rounds} rounds"
    )
    with tempfile.TemporaryDirectory() as folder, initialize_config_dir(str(config_directory()), version_base="1.3"):
        for pair in arguments.pairs:
            members = [n for n in arguments.members if pair not in ("resnet", "mobilenet") or n <= 4]
            benchmark(pair, members, Path(folder), arguments.rounds)


if __name__ == "__main__":
    main()
