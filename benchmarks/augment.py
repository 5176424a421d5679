"""What each augmentation of pictures in memory costs, as a ratio to crop and flip.

    OMP_NUM_THREADS=1 python benchmarks/augment.py

Batches of 128 random pictures of 1 x 28 x 28 and 3 x 32 x 32 bytes, gathered and normalised as in training. The kinds take
turns, so that a machine that slows down slows all of them; printed are medians of CPU microseconds a picture and their ratio.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from kd_lightning.data.array_data import ArrayData
from kd_lightning.data.augment import CropFlip
from kd_lightning.data.mixing import Mixing
from kd_lightning.data.policy import Policy

KINDS: dict[str, dict] = {
    "crop and flip": {},
    "+ mixup": {"mixing": Mixing(mixup=0.2)},
    "+ cutmix": {"mixing": Mixing(cutmix=1.0)},
    "+ mixup or cutmix": {"mixing": Mixing(mixup=0.2, cutmix=1.0)},
    "+ erasing, 0.25": {"policy": Policy(erasing=0.25)},
    "+ trivial": {"policy": Policy(trivial=True)},
    "+ randaugment, 2": {"policy": Policy(randaugment=2)},
    "+ all, trivial": {"policy": Policy(trivial=True, erasing=0.25), "mixing": Mixing(mixup=0.2, cutmix=1.0)},
}
SHAPES = [(1, 28, 28), (3, 32, 32)]


def main() -> None:
    """Print one table a shape."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=40, help="how often each kind has its turn")
    parser.add_argument("--batches", type=int, default=10, help="batches a turn")
    options = parser.parse_args()
    for shape in SHAPES:
        pixels = torch.randint(0, 256, (20_000, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        given = {"scale": 255.0, "mean": [0.5] * shape[0], "std": [0.25] * shape[0], "augment": CropFlip(4, True)}
        kinds = {
            name: ArrayData(pixels, torch.zeros(len(pixels)).long(), **given, **kind) for name, kind in KINDS.items()
        }
        order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(1)).split(128)
        seconds: dict[str, list[float]] = {name: [] for name in kinds}
        for turn in range(options.turns):
            for name, data in kinds.items():
                started = time.process_time()
                for number in range(options.batches):
                    data.gather(order[(turn * options.batches + number) % (len(order) - 1)], turn)
                seconds[name].append((time.process_time() - started) / (128 * options.batches))
        medians = {name: statistics.median(times) * 1e6 for name, times in seconds.items()}
        print(f"{' x '.join(map(str, shape))}, torch {torch.__version__}, {torch.get_num_threads()} thread(s)")
        for name, median in medians.items():
            print(f"  {name:20} {median:6.2f} us  {median / medians['crop and flip']:6.2f}")


if __name__ == "__main__":
    main()
