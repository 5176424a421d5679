"""What needs CUDA: ``pytest -m gpu`` on a machine that has it. Skipped elsewhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from processes import SMALL, results, run, weights

from kd_lightning.data.array_data import ArrayData
from kd_lightning.data.augment import CropFlip
from kd_lightning.data.images.image_data import ImageData  # noqa: F401  (its bytes are normalised on the device)
from kd_lightning.data.loader.threaded_loader import ThreadedLoader
from kd_lightning.teachers.frozen import FrozenTeacher

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")]
GPU = (*(word for word in SMALL if not word.startswith("trainer.accelerator")), "trainer.accelerator=gpu")
ROOT = Path(__file__).parents[2]


def finished(cwd: Path, *words: str) -> dict:
    done = run(cwd, *words, timeout=600)
    assert done.code == 0, done.text
    return results(cwd / "sweep")


def test_a_frozen_teacher_on_the_gpu_is_unmoved_after_answers():
    teacher = FrozenTeacher(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))).to("cuda")
    from kd_lightning.batch import Batch

    answer = teacher(Batch(torch.randn(4, 1, 8, 8, device="cuda"), torch.zeros(4, dtype=torch.long, device="cuda")))
    assert answer.logits.is_cuda
    assert not answer.logits.requires_grad
    teacher.verify()


def test_a_group_on_the_gpu_has_the_results_of_its_runs_alone(tmp_path):
    sweep = ("-m", *GPU, "method.temperature=1,4", "baseline=false", "trainer.deterministic=true", "teacher.cache=off")
    fused = finished(tmp_path, *sweep, "sweep_dir=sweep")
    assert len(fused) == 2
    alone = run(tmp_path, *sweep, "launcher=local", "sweep_dir=alone", timeout=600)
    assert alone.code == 0, alone.text
    for name in fused:
        assert weights(tmp_path / "sweep" / name) == weights(tmp_path / "alone" / name)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_students_that_are_computed_as_one_find_what_the_loop_finds(tmp_path, precision):
    sweep = (
        "-m",
        *GPU,
        "seed=range(4)",
        "baseline=false",
        f"trainer.precision={precision}",
        "sweep_dir=sweep",
    )
    loop = finished(tmp_path / "loop", *sweep)
    done = run(tmp_path / "stacked", *sweep, "stacked=true", timeout=600)
    assert done.code == 0, done.text
    assert "4 students are computed as one" in done.text
    together = results(tmp_path / "stacked" / "sweep")
    assert loop.keys() == together.keys()
    for name, result in loop.items():
        assert abs(result["metrics"]["test/acc"] - together[name]["metrics"]["test/acc"]) < 0.05


@pytest.mark.parametrize(
    "settings",
    [["trainer.precision=16-mixed"], ["trainer.precision=bf16-mixed"], ["compile=true"], ["compile=reduce-overhead"]],
)
def test_mixed_precision_and_compile_train(tmp_path, settings):
    done = run(tmp_path, *GPU, *settings, "baseline=false", "run_dir=sweep/one", timeout=600)
    assert done.code == 0, done.text
    state = torch.load(tmp_path / "sweep/one/checkpoints/last.ckpt", weights_only=True)["training"]
    assert (state["scaler"] is not None) == ("16-mixed" in settings[0] and "bf16" not in settings[0])


def test_stored_answers_are_those_of_the_teacher_up_to_their_rounding(tmp_path):
    sweep = ("-m", *GPU, "baseline=false", "seed=0,1", "sweep_dir=sweep")
    live = finished(tmp_path / "live", *sweep, "teacher.cache=off")
    stored = finished(tmp_path / "stored", *sweep, f"teacher.cache={tmp_path / 'cache'}")
    for name in live:
        assert abs(live[name]["metrics"]["test/acc"] - stored[name]["metrics"]["test/acc"]) < 0.03


def test_batches_in_pinned_memory_reach_the_gpu_whole():
    data = ArrayData(torch.randint(0, 256, (64, 3, 8, 8), dtype=torch.uint8), torch.arange(64), scale=255)
    loader = ThreadedLoader(data, 16, pin_memory=True)
    for inputs, target in loader:
        assert inputs.is_pinned()
        assert torch.equal(inputs.to("cuda", non_blocking=True).cpu(), data.gather(target, 0)[0])
    loader.close()


def test_views_that_are_made_on_the_gpu_are_those_made_on_the_cpu():
    pictures = torch.randint(0, 256, (64, 3, 16, 16), dtype=torch.uint8)
    data = ArrayData(pictures, torch.arange(64), scale=255, mean=[0.5] * 3, std=[0.2] * 3, augment=CropFlip(2, True))
    index = torch.randperm(64)
    for view in range(3):
        here, there = data.gather(index, view), data.on(torch.device("cuda")).gather(index, view)
        assert there[0].is_cuda
        torch.testing.assert_close(there[0].cpu(), here[0], rtol=0, atol=1e-6)
        assert torch.equal(there[1].cpu(), here[1])


def test_a_run_with_its_data_on_the_gpu_finds_what_one_without_finds(tmp_path):
    sweep = (
        "-m",
        *GPU,
        "baseline=false",
        "seed=0",
        "data.augment=true",
        "trainer.deterministic=true",
        "sweep_dir=sweep",
    )
    here = finished(tmp_path / "cpu", *sweep)
    there = finished(tmp_path / "gpu", *sweep, "data.device=auto")
    for name in here:
        assert abs(here[name]["metrics"]["test/acc"] - there[name]["metrics"]["test/acc"]) < 0.02


CNN = ("student=small_cnn", "student.channels=[4,8]", "teacher=small_cnn", "teacher.model.channels=[8,16]")


@pytest.mark.parametrize(
    "settings",
    [
        ("optimizer=adamw", "trainer.gradient_clip_val=0.5"),
        ("method=fitnet", *CNN),
        ("trainer.precision=bf16-mixed", *CNN),
        ("trainer.precision=16-mixed", "data.labelled=300"),
    ],
)
def test_replayed_steps_leave_the_weights_of_the_loop(tmp_path, settings):
    words = [word for word in GPU if CNN[0] not in settings or not ("=mlp" in word or "hidden" in word)]
    sweep = ("-m", *words, *settings, "seed=0,1", "baseline=false", "trainer.deterministic=true", "doctor=false")
    loop = finished(tmp_path, *sweep, "sweep_dir=sweep")
    replayed = run(tmp_path, *sweep, "cuda_graphs=true", "sweep_dir=replayed", timeout=600)
    assert replayed.code == 0, replayed.text
    assert "replayed from CUDA graphs" in replayed.text
    assert "in the loop" not in replayed.text
    for name in loop:
        assert weights(tmp_path / "sweep" / name) == weights(tmp_path / "replayed" / name)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices here")
@pytest.mark.parametrize("spread", ["trainer.devices=2", "launcher.devices=all"])
def test_several_devices_train_one_run_or_several(tmp_path, spread):
    found = finished(tmp_path, "-m", *GPU, "seed=0,1", "baseline=false", spread, "sweep_dir=sweep")
    assert {result["status"] for result in found.values()} == {"finished"}


def test_the_benchmark_runs(tmp_path):
    table = tmp_path / "gpu.md"
    subprocess.run([sys.executable, ROOT / "benchmarks/gpu.py", "--tiny", "--output", table], check=True, timeout=600)
    assert torch.cuda.get_device_name() in table.read_text()
