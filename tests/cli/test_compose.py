"""Jobs composed on copies equal those that Hydra composes from the files."""

from __future__ import annotations

import pytest
from hydra import version
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from kd_lightning.cli._compose import SweepComposer
from kd_lightning.cli._hydra_main import _create
from kd_lightning.cli._jobs import _compose


@pytest.fixture
def loader_and_master():
    version.setbase("1.3")
    GlobalHydra.instance().clear()
    hydra = _create("train", get_args_parser().parse_args([]))
    yield hydra.config_loader, _compose(hydra, "train", ["hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
    GlobalHydra.instance().clear()


JOBS = [
    *[[f"method={m}", f"method.temperature={t}", f"seed={s}"] for m in ("kd", "dkd") for t in (1, 2.5) for s in (0, 1)],
    ["+trainer.profiler=simple", "seed=3"],
    ["+trainer.profiler=advanced", "seed=4"],
    ["student.hidden=[3,4]"],
    ["student.hidden=[5,4]", "seed=2"],
    ["~student.dropout", "seed=2"],
    ["data=fashion_mnist", "data.batch_size=32"],
    ["data.batch_size=32", "data=fashion_mnist"],
    ["data.batch_size=64", "data=digits"],
]


def test_jobs_equal_those_that_hydra_composes(loader_and_master):
    loader, master = loader_and_master
    expected = [loader.load_sweep_config(master, job) for job in JOBS]
    composer = SweepComposer(loader)
    for job, config in zip(JOBS, expected, strict=True):
        ours = composer.load_sweep_config(master, job)
        assert OmegaConf.to_container(ours) == OmegaConf.to_container(config), job


def test_a_job_does_not_see_what_was_done_to_another(loader_and_master):
    loader, master = loader_and_master
    composer = SweepComposer(loader)
    first = composer.load_sweep_config(master, ["seed=1"])
    OmegaConf.update(first, "method.temperature", 77)
    assert composer.load_sweep_config(master, ["seed=2"]).method.temperature != 77


def test_the_default_sweep_moves_both_weights_so_that_their_sum_stays_one(loader_and_master):
    GlobalHydra.instance().clear()
    hydra = _create("train", get_args_parser().parse_args([]))
    master = _compose(hydra, "train", ["sweep=temperature_balance"], RunMode.MULTIRUN)
    for share, rest in ((0.1, 0.9), (0.5, 0.5), (0.9, 0.1)):
        job = hydra.config_loader.load_sweep_config(master, [f"method.weights.kd={share}", "sweep=temperature_balance"])
        assert OmegaConf.to_container(job.method.weights, resolve=True) == {"task": rest, "kd": share}
