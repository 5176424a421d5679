"""The data that benchmarks/loader.py reads: synthetic photographs on disk, Fashion-MNIST in memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

import simplejpeg
import torch
import torch.nn.functional as F

from kd_lightning.data.array_data import ArrayData
from kd_lightning.data.idx import read_split

FASHION = Path("/usr/share/datasets/fashion-mnist")
IMAGES = 768


def jpeg_folder() -> list[str]:
    """Synthetic photographs (noise of all scales, some 60 kB), written once into the temporary directory."""
    folder = Path(tempfile.gettempdir()) / f"kd-loader-benchmark-{IMAGES}c"
    files = [str(folder / f"{i:05d}.jpg") for i in range(IMAGES)]
    if not (folder / "complete").exists():
        folder.mkdir(exist_ok=True)
        generator = torch.Generator().manual_seed(0)
        for i, file in enumerate(files):
            height, width = ((375, 500), (500, 375), (333, 500))[i % 3]
            image = torch.full((1, 3, height, width), 128.0)
            for scale, strength in ((4, 60), (16, 40), (64, 25), (375, 9)):
                noise = torch.randn(1, 3, scale, scale, generator=generator)
                image += strength * F.interpolate(noise, (height, width), mode="bicubic")
            pixels = image.clamp(0, 255).byte()[0].permute(1, 2, 0).contiguous().numpy()
            Path(file).write_bytes(simplejpeg.encode_jpeg(pixels, quality=90, colorsubsampling="420"))
        (folder / "complete").touch()
    return files


def fashion_mnist() -> tuple[torch.Tensor, torch.Tensor, str]:
    """60,000 images (N, 1, 28, 28) uint8, classes, and what they are."""
    if FASHION.is_dir():
        images, labels = read_split(FASHION, "train")
        return images.reshape(-1, 1, 28, 28), labels.long(), "Fashion-MNIST"
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (60000, 1, 28, 28), dtype=torch.uint8, generator=generator)
    return images, torch.arange(60000) % 10, "random bytes of Fashion-MNIST's shape"


class Vectorised:
    """The in-memory data set by torch's own convention for whole batches."""

    def __init__(self, data: ArrayData) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitems__(self, indices: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        return self.data.gather(torch.tensor(indices), 0)
