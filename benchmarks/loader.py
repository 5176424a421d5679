"""ThreadedLoader beside DataLoader, torchdata.nodes and SPDL, on one machine in one run.

    python benchmarks/loader.py                      # all sections
    python benchmarks/loader.py --section memory     # memory | train | eval | start

Sections: ``memory`` Fashion-MNIST in memory, crop + flip + normalise, batch 128; ``train`` JPEGs of about 500x375 to
random resized crop 224 + flip + normalise, batch 64; ``eval`` the same to resize 256 + centre crop 224; ``start``
seconds to the first batch and memory (worker processes and shared memory included), each candidate in a process of its
own.

Candidates take turns, round by round, so that what else the machine does meets them all; reported are medians over
rounds, the median over rounds of "ours / theirs", and the least processor time per sample over all threads and worker
processes, which a busy machine hardly changes. Limits printed beside them: decoding alone (bytes in memory, no
crop, no batch), gathering alone (one thread, one batch at a time). Everybody runs with OMP_NUM_THREADS=1: as threads
multiply, torch's own would only get in the way.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import loader_peers as peers
import simplejpeg
import torch
from loader_data import Vectorised, fashion_mnist, jpeg_folder

from kd_lightning.data.array_data import ArrayData
from kd_lightning.data.augment import CropFlip
from kd_lightning.data.images.crops import CentreCrop, RandomResizedCrop
from kd_lightning.data.images.image_data import ImageData

JPEG_BATCH, MEMORY_BATCH = 64, 128
Candidate = Callable[[], int]


def threads() -> int:
    """Threads and worker processes of everybody: this process's CPUs, at most 2 (the targets are for two)."""
    return min(2, len(os.sched_getaffinity(0)))


def consume(epoch: peers.Epoch) -> Candidate:
    """Run an epoch to its end; returns the number of samples."""

    def run() -> int:
        return sum(len(batch[1]) for batch in epoch())

    return run


def memory_candidates() -> tuple[dict[str, Candidate], str]:
    """Section ``memory``."""
    images, labels, name = fashion_mnist()
    data = ArrayData(images, labels, scale=255, mean=[0.286], std=[0.353], augment=CropFlip(2, True), seed=0)
    vectorised, t = Vectorised(data), threads()

    def bare() -> int:
        order = torch.randperm(len(data))
        return sum(len(data.gather(part, 0)[1]) for part in order.split(MEMORY_BATCH))

    found = {
        "limit: bare gather, 1 thread": bare,
        "ours": consume(peers.ours(data, MEMORY_BATCH, None)),
        "ours, 2 threads": consume(peers.ours(data, MEMORY_BATCH, 2)),
    }
    for workers in (0, 1, 2):
        epoch = peers.dataloader(vectorised, MEMORY_BATCH, workers, collate_fn=lambda batch: batch)
        found[f"DataLoader {workers} workers, vectorised"] = consume(epoch)
    if peers.has("torchdata"):
        epoch = peers.torchdata_batches(vectorised.__getitems__, len(data), MEMORY_BATCH, t)
        found["torchdata.nodes threads, vectorised"] = consume(epoch)
    if peers.has("spdl.pipeline"):
        epoch = peers.spdl_batches(vectorised.__getitems__, len(data), MEMORY_BATCH, t)
        found["SPDL, vectorised"] = consume(epoch)
    return found, f"{name} in memory: crop, flip, normalise; batch {MEMORY_BATCH}"


def jpeg_candidates(train: bool) -> tuple[dict[str, Candidate], str]:
    """Sections ``train`` and ``eval``."""
    files, t, b = jpeg_folder(), threads(), JPEG_BATCH
    targets = torch.arange(len(files)) % 10
    crop = RandomResizedCrop(224, seed=0) if train else CentreCrop(224, 256)
    make = lambda **options: ImageData(files, targets, crop, peers.MEAN, peers.STD, **options)  # noqa: E731
    data, transform = make(), peers.torchvision_transform(train)
    blobs = [Path(file).read_bytes() for file in files]

    def decode_each(some: list[bytes]) -> None:
        for blob in some:
            simplejpeg.decode_jpeg(blob)  # not kept: fresh memory for each picture would cost a third more

    def decode(number: int) -> Candidate:
        def run() -> int:
            with ThreadPoolExecutor(number) as pool:
                list(pool.map(decode_each, [blobs[k::number] for k in range(number)]))
            return len(blobs)

        return run

    found = {f"limit: raw decode, {n} thread{'s' * (n > 1)}": decode(n) for n in sorted({1, t})}
    found["ours, float32"] = consume(peers.ours(data, b, t))
    found["ours, uint8 (normalised on the device)"] = consume(peers.ours(make(as_bytes=True), b, t))
    found["ours, float32, scaled decode"] = consume(peers.ours(make(scaled_decode=True), b, t))
    for workers in (0, 1, 2):
        pillow = peers.PillowFolder(files, targets, transform)
        found[f"DataLoader {workers} workers, Pillow"] = consume(peers.dataloader(pillow, b, workers))
    vision, decoded = peers.TorchvisionFolder(files, targets, transform), peers.OurDecode(data)
    found["DataLoader 2 workers, torchvision decode"] = consume(peers.dataloader(vision, b, 2))
    found["DataLoader 2 workers, our decode"] = consume(peers.dataloader(decoded, b, 2))
    if peers.has("torchdata"):
        for name, read in (("torchvision decode", vision.__getitem__), ("our decode", decoded.__getitem__)):
            found[f"torchdata.nodes threads, {name}"] = consume(peers.torchdata_samples(read, len(files), b, t))
    if peers.has("spdl.pipeline"):
        if peers.spdl_decodes():
            reader = peers.spdl_reader(files, targets, train)
            found["SPDL, its own decode"] = consume(peers.spdl_samples(reader, len(files), b, t))
        found["SPDL, our decode"] = consume(peers.spdl_samples(decoded.__getitem__, len(files), b, t))
    what = "random resized crop 224, flip, normalise" if train else "resize 256, centre crop 224, normalise"
    size = sum(map(len, blobs)) / len(blobs) / 1000
    return found, f"{len(files)} JPEGs of about 500x375 ({size:.0f} kB): {what}; batch {b}"


def cpu_seconds() -> float:
    """Processor time so far of this process and of its children, living or dead."""
    total, ticks = time.process_time() + sum(os.times()[2:4]), os.sysconf("SC_CLK_TCK")
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # the process ended while it was looked at
            fields = stat.read_text().rsplit(")", 1)[1].split()
            if int(fields[1]) == os.getpid():
                total += (int(fields[11]) + int(fields[12])) / ticks
    return total


def take_turns(candidates: dict[str, Candidate], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """(samples a second, processor seconds a sample) of each candidate in each round, after one that does not count."""
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    expected = None
    for number in range(rounds + 1):
        for name, run in candidates.items():
            busy, began = cpu_seconds(), time.perf_counter()
            samples = run()
            seconds, busy = time.perf_counter() - began, cpu_seconds() - busy
            expected = expected or samples
            if samples != expected:  # a peer that drops failing samples would look fast
                raise RuntimeError(f"{name} delivered {samples} samples of {expected}")
            if number:
                measured[name].append((samples / seconds, busy / samples))
    return measured


def show_rates(title: str, measured: dict[str, list[tuple[float, float]]]) -> dict[str, dict[str, float]]:
    """Print the table of a section; returns its figures."""
    rates = {name: [rate for rate, _ in rows] for name, rows in measured.items()}
    own = next(name for name in rates if name.startswith("ours"))
    print(f"\n{title}\n  {'':42s}{'samples/s':>11s}{'lowest':>11s}{'highest':>11s}{'ours/this':>11s}{'CPU us':>9s}")
    table = {}
    for name, values in rates.items():
        row = {
            "median": statistics.median(values),
            "low": min(values),
            "high": max(values),
            "ours/this": statistics.median(a / b for a, b in zip(rates[own], values, strict=True)),
            "cpu_us": min(busy for _, busy in measured[name]) * 1e6,
        }
        table[name] = row
        print(
            f"  {name:42s}{row['median']:11,.0f}{row['low']:11,.0f}{row['high']:11,.0f}{row['ours/this']:11.2f}"
            f"{row['cpu_us']:9.{0 if row['cpu_us'] > 99 else 2}f}"
        )
    return table


def start_candidates() -> dict[str, Callable[[], peers.Epoch]]:
    """Section ``start``: made anew in a process of their own, worker processes and all."""
    files, t, b = jpeg_folder(), threads(), JPEG_BATCH
    targets = torch.arange(len(files)) % 10
    data = ImageData(files, targets, RandomResizedCrop(224, seed=0), peers.MEAN, peers.STD)
    decoded = peers.OurDecode(data)
    found = {"ours, float32": lambda: peers.ours(data, b, t)}
    for workers in (0, 1, 2):
        found[f"DataLoader {workers} workers, our decode"] = lambda w=workers: peers.dataloader(decoded, b, w, False)
    if peers.has("torchdata"):
        found["torchdata.nodes threads, our decode"] = lambda: peers.torchdata_samples(
            decoded.__getitem__, len(data), b, t
        )
    if peers.has("spdl.pipeline"):
        found["SPDL, our decode"] = lambda: peers.spdl_samples(decoded.__getitem__, len(data), b, t)
    return found


def memory() -> int:
    """Bytes held by this process and its children, and by all shared memory of the machine: batches that wait in a
    queue between processes are mapped by nobody. A page shared by n processes counts 1/n in each."""
    total = 1024 * int(Path("/proc/meminfo").read_text().split("Shmem:", 1)[1].split()[0])
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError):  # the process ended while it was looked at
            pid, parent = int(status.parent.name), int(status.read_text().rsplit(")", 1)[1].split()[1])
            if os.getpid() in (pid, parent):
                fields = (status.parent / "smaps_rollup").read_text().split()
                held = {name: int(fields[fields.index(name) + 1]) for name in ("Pss:", "Pss_Shmem:")}
                total += 1024 * (held["Pss:"] - held["Pss_Shmem:"])
    return total


def measure_start(name: str) -> None:
    """In a child process: seconds to the first batch (three epochs), and the most memory above that of the start."""
    make = start_candidates()[name]
    before, most, seconds = memory(), 0, []
    for _ in range(3):
        began = time.perf_counter()
        epoch = make()()
        for number, _ in enumerate(epoch):
            if number == 0:
                seconds.append(time.perf_counter() - began)
            elif number in (3, 6, 9):
                time.sleep(1)  # as a training step that is slower than the loader: all that is read ahead is there
                most = max(most, memory())
        del epoch, _
    print(json.dumps({"seconds": statistics.median(seconds), "megabytes": (most - before) / 1e6}))


def show_start(rounds: int) -> dict[str, dict[str, float]]:
    """Section ``start``."""
    names, rows = list(start_candidates()), {}
    for _ in range(rounds):
        for name in names:
            command = [sys.executable, __file__, "--child", name]
            child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            rows.setdefault(name, []).append(json.loads(child.stdout.splitlines()[-1]))
    print(
        f"\nTo the first batch of {JPEG_BATCH} JPEGs; memory on top of a process without loader, behind a slow consumer"
    )
    print(f"  {'':46s}{'seconds':>11s}{'MB':>11s}{'time: ours / this':>19s}")
    table = {}
    for name in names:
        table[name] = {key: statistics.median(row[key] for row in rows[name]) for key in ("seconds", "megabytes")}
        ratio = statistics.median(a["seconds"] / b["seconds"] for a, b in zip(rows[names[0]], rows[name], strict=True))
        print(f"  {name:46s}{table[name]['seconds']:11.3f}{table[name]['megabytes']:11.0f}{ratio:19.2f}")
    return table


def main() -> None:
    """Run the sections asked for, print their tables, optionally write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--section", choices=["memory", "train", "eval", "start"], action="append")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        measure_start(arguments.child)
        return
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, load {load}; "
        f"Python {platform.python_version()}, torch {torch.__version__}; {arguments.rounds} rounds; {threads()} threads"
    )
    if peers.missing():
        print(f"not installed, left out: {', '.join(peers.missing())} (pip install torchdata spdl spdl-io)")
    figures = {}
    for section in arguments.section or ["memory", "train", "eval", "start"]:
        if section == "start":
            figures[section] = show_start(max(1, arguments.rounds // 2))
            continue
        candidates, title = memory_candidates() if section == "memory" else jpeg_candidates(section == "train")
        figures[section] = show_rates(title, take_turns(candidates, arguments.rounds))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
