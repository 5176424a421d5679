"""How long each of the shipped CIFAR-100 and ImageNet experiments takes on a device: one command, a Markdown table.

    python benchmarks/cifar_pairs.py                        # the first GPU
    python benchmarks/cifar_pairs.py --device cpu --tiny    # proves that everything here runs; the figures mean nothing

A distillation step (``method=kd``) of the Distiller under a Trainer, the teacher asked live: networks, method and batch as
``conf/experiment`` has them, random pictures that lie on the device, float32 as torch has it by default. One student, and
four in lockstep (a step of all); in the loop, and on a GPU replayed (``cuda_graphs=true``). Hours are those of all epochs
over all training pictures (50,000, or 1,281,167 of ImageNet) at that pace: what loading and validation cost comes on top.
Two seconds each after a warm-up; what fails says so in its place.
"""

from __future__ import annotations

import argparse
import functools
import logging
import platform
import warnings
from pathlib import Path
from typing import Any

import torch
from gpu import SGD, Clock, failure, rate
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from kd_lightning.batch import Batch
from kd_lightning.distiller import Distiller
from kd_lightning.member import Member
from kd_lightning.recorder import Recorder
from kd_lightning.tasks.classification import ClassificationTask
from kd_lightning.teachers.frozen import FrozenTeacher

CONF = Path(__file__).resolve().parents[1] / "conf"
CIFAR, IMAGENET = (CONF / "experiment").glob("cifar100_*.yaml"), "imagenet_resnet34_resnet18"
EXPERIMENTS = [*sorted(path.stem for path in CIFAR), IMAGENET]
WAYS = [(how, students) for how in ("loop", "replayed") for students in (1, 4)]


def milliseconds(config: Any, how: str, students: int, device: torch.device, tiny: bool) -> float:
    """Of a step of so many students in lockstep."""
    imagenet = "imagenet" in config.name
    sizes = {"num_classes": 1000} if imagenet else {"num_classes": 100, "in_channels": 3}
    batch, side = (4, 32) if tiny else (int(config.data.batch_size), 224 if imagenet else 32)
    teacher = instantiate({**config.teacher.model, **sizes, **({"weights": None} if imagenet else {})})
    members = [
        Member(
            instantiate({**config.student, **sizes}), instantiate(config.method), ClassificationTask(), optimizer=SGD,
            name=f"student {number}",
        )
        for number in range(students)
    ]  # fmt: skip
    pictures = [torch.randn(batch, 3, side, side, device=device) for _ in range(4)]
    batches = [Batch(inputs, torch.randint(0, sizes["num_classes"], (batch,), device=device)) for inputs in pictures]
    wait = functools.partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
    clock = Clock(wait, 0.0, 1, 1) if tiny else Clock(wait, 2.0, 10, 2)
    recorders = [Recorder() for _ in members]
    graphs = how == "replayed" and device.type == "cuda"
    module = Distiller(FrozenTeacher(teacher), members, recorders, 50, cuda_graphs=graphs)
    return 1000 / rate(module, batches, clock)


def row(name: str, device: torch.device, tiny: bool) -> str:
    """A line of the table."""
    overrides = [f"experiment={name}", "method=kd"]
    config = compose("train", [*overrides, "data.root=."] if "imagenet" in name else overrides)
    pictures = 1_281_167 if "imagenet" in name else 50_000
    steps = pictures / config.data.batch_size * config.trainer.max_epochs
    cells = []
    for how, students in WAYS:
        try:
            took = milliseconds(config, how, students, device, tiny)
            cells.append(f"{took:.2f} ms, {took * steps / 3_600_000:.1f} h")
        except Exception as error:
            cells.append(failure(error))
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return f"| {name} | {config.data.batch_size} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, cpu")
    parser.add_argument("--tiny", action="store_true", help="four small pictures, a step each")
    parser.add_argument("--output", type=Path, help="write the Markdown table into this file as well")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device here: --device cpu --tiny shows that the benchmark runs")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU"
    lines = [
        f"{card}, torch {torch.__version__}{', tiny sizes' * options.tiny}",
        "",
        f"| experiment | batch | {' | '.join(f'{how}, students: {n}' for how, n in WAYS)} |",
        f"|---|---:|{'---:|' * len(WAYS)}",
    ]
    print("\n".join(lines), flush=True)
    with initialize_config_dir(str(CONF), version_base=None):
        for name in EXPERIMENTS:
            try:
                lines.append(row(name, device, options.tiny))
            except Exception as error:
                lines.append(f"| {name} | | {failure(error)} |{' |' * (len(WAYS) - 1)}")
            print(lines[-1], flush=True)
    if options.output:
        options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
