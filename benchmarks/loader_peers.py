"""The loaders that benchmarks/loader.py compares: each a function that runs one epoch and yields its batches.

Peers run as their documentation shows (their own or torchvision's decoding), and once more with the reading function
of this project, so that a difference in decoders cannot be taken for a difference in loaders. A peer that is not
installed is left out and named.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import simplejpeg
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, default_collate
from torchvision.datasets.folder import default_loader
from torchvision.io import ImageReadMode, decode_image, read_file
from torchvision.transforms import RandomResizedCrop, v2

from kd_lightning.data.images.decode import read_image
from kd_lightning.data.images.image_data import ImageData, normalise
from kd_lightning.data.loader.threaded_loader import ThreadedLoader

Epoch = Callable[[], Iterator[Any]]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def missing() -> list[str]:
    """The peers that are not installed."""
    names = [name for name in ("torchdata", "spdl.io", "spdl.pipeline") if not has(name)]
    if "spdl.io" not in names and not spdl_decodes():
        names.append("the decoder of spdl.io (it finds no shared libraries of FFmpeg 4-9)")
    return names


def has(name: str) -> bool:
    """Whether a module is installed."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def spdl_decodes() -> bool:
    """Whether SPDL's own decoder can be loaded."""
    if not has("spdl.io"):
        return False
    import spdl.io

    try:
        spdl.io.demux_image(simplejpeg.encode_jpeg(np.zeros((16, 16, 3), np.uint8)))
    except RuntimeError:
        return False
    return True


def ours(dataset: Dataset, batch_size: int, threads: int | None, **options: Any) -> Epoch:
    """ThreadedLoader, as the data modules use it, on data that say ``thread_safe = True`` (ours do)."""
    loader = ThreadedLoader(dataset, batch_size, shuffle=True, num_threads=threads, as_batch=True, **options)
    return lambda: iter(loader)


def dataloader(dataset: Dataset, batch_size: int, workers: int, persistent: bool = True, **options: Any) -> Epoch:
    """torch's DataLoader; its worker processes stay alive between epochs."""
    loader = DataLoader(
        dataset, batch_size, shuffle=True, num_workers=workers, persistent_workers=persistent and workers > 0, **options
    )
    return lambda: iter(loader)


def torchdata_samples(read: Callable[[int], Any], length: int, batch_size: int, threads: int) -> Epoch:
    """torchdata.nodes with threads: a sample is a task, batches are collated behind it."""
    from torchdata.nodes import Batcher, Loader, Mapper, ParallelMapper, Prefetcher, SamplerWrapper

    node = SamplerWrapper(RandomSampler(range(length)))
    node = ParallelMapper(node, read, num_workers=threads, method="thread")
    node = Prefetcher(Mapper(Batcher(node, batch_size, drop_last=False), default_collate), 2)
    loader = Loader(node)
    return lambda: iter(loader)


def torchdata_batches(read: Callable[[Sequence[int]], Any], length: int, batch_size: int, threads: int) -> Epoch:
    """torchdata.nodes with threads: a batch is a task."""
    from torchdata.nodes import Loader, ParallelMapper, Prefetcher, SamplerWrapper

    node = SamplerWrapper(BatchSampler(RandomSampler(range(length)), batch_size, drop_last=False))
    loader = Loader(Prefetcher(ParallelMapper(node, read, num_workers=threads, method="thread"), 2))
    return lambda: iter(loader)


def spdl_samples(read: Callable[[int], Any], length: int, batch_size: int, threads: int) -> Epoch:
    """SPDL's pipeline: a sample is a task, batches are collated behind it."""
    return _spdl(lambda: torch.randperm(length).tolist(), read, threads, batch_size)


def spdl_batches(read: Callable[[Sequence[int]], Any], length: int, batch_size: int, threads: int) -> Epoch:
    """SPDL's pipeline: a batch is a task."""
    return _spdl(lambda: BatchSampler(RandomSampler(range(length)), batch_size, drop_last=False), read, threads, None)


def _spdl(source: Callable[[], Any], read: Callable[[Any], Any], threads: int, batch_size: int | None) -> Epoch:
    from spdl.pipeline import PipelineBuilder

    def epoch() -> Iterator[Any]:
        builder = PipelineBuilder().add_source(source()).pipe(read, concurrency=threads, output_order="input")
        if batch_size is not None:
            builder = builder.aggregate(batch_size, drop_last=False).pipe(default_collate)
        pipeline = builder.add_sink(3).build(num_threads=threads)
        with pipeline.auto_stop():
            yield from pipeline.get_iterator(timeout=60)

    return epoch


class PillowFolder(Dataset):
    """What torchvision's ImageFolder does: Pillow, then transforms."""

    def __init__(self, files: Sequence[str], targets: torch.Tensor, transform: v2.Transform) -> None:
        self.files, self.targets, self.transform = files, targets.tolist(), transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(default_loader(self.files[index])), self.targets[index]


class TorchvisionFolder(PillowFolder):
    """torchvision's own decoder, transforms on tensors."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        pixels = decode_image(read_file(self.files[index]), mode=ImageReadMode.RGB)
        return self.transform(pixels), self.targets[index]


class OurDecode(Dataset):
    """A sample read by this project's functions, for other loaders: ordinary random numbers, a tensor of its own."""

    def __init__(self, data: ImageData) -> None:
        self.data, self.targets = data, data.targets.tolist()
        example = data.crop.draw(torch.tensor([0]), 0)[0]
        self.draws = None if example is None else len(example)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        draw = self.draws and torch.rand(self.draws).tolist()
        pixels, full = read_image(self.data.files[index], rows=partial(self.data.crop.rows, draw=draw))
        cut = self.data.crop.cut(pixels, full, draw)
        return normalise(cut[0], self.data.mean, self.data.std), self.targets[index]


def torchvision_transform(train: bool) -> v2.Transform:
    """Random resized crop 224 and flip, or resize 256 and centre crop 224; then normalise."""
    views = [v2.RandomResizedCrop(224), v2.RandomHorizontalFlip()] if train else [v2.Resize(256), v2.CenterCrop(224)]
    return v2.Compose([v2.ToImage(), *views, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])


def spdl_reader(files: Sequence[str], targets: torch.Tensor, train: bool) -> Callable[[int], Any]:
    """SPDL's own image reading: decode, crop, resize and flip in one filter graph; normalised as a tensor."""
    import spdl.io

    labels, mean, std = targets.tolist(), torch.tensor(MEAN).view(3, 1, 1) * 255, torch.tensor(STD).view(3, 1, 1) * 255

    def read(index: int) -> tuple[torch.Tensor, int]:
        packets = spdl.io.demux_image(files[index])
        if train:
            picture = torch.empty(()).expand(1, packets.height, packets.width)
            top, left, height, width = RandomResizedCrop.get_params(picture, [0.08, 1.0], [3 / 4, 4 / 3])
            filters = f"crop={width}:{height}:{left}:{top},scale=224:224:flags=bilinear"
            filters += ",hflip" if torch.rand(()) < 0.5 else ""
        else:
            filters = "scale=256:256:force_original_aspect_ratio=increase:flags=bilinear,crop=224:224"
        frames = spdl.io.decode_packets(packets, filter_desc=f"{filters},format=pix_fmts=rgb24")
        pixels = spdl.io.to_torch(spdl.io.convert_frames(frames)).permute(2, 0, 1)
        return (pixels.float() - mean) / std, labels[index]

    return read
