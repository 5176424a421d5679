"""conf/data: every file names the settings of its module, with values that the module takes."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from hydra.utils import get_class
from omegaconf import OmegaConf

from kd_lightning.data.module import DistillationDataModule

CONF = Path(__file__).parents[2] / "conf" / "data"
FILES = sorted(CONF.glob("*.yaml"))
LOADING = {
    "batch_size", "eval_batch_size", "seed", "split_seed", "val_size", "train_size", "labelled",
    "num_threads", "prefetch", "timeout", "reread", "drop_last",
}  # fmt: skip


def loaded(file: Path):
    """A file with those that it is derived from."""
    config = OmegaConf.load(file)
    derived_from = config.pop("defaults", [])
    return OmegaConf.merge(*(loaded(CONF / f"{name}.yaml") for name in derived_from), config)


def settings_of(target: type) -> dict[str, inspect.Parameter]:
    found: dict[str, inspect.Parameter] = {}
    for kind in target.__mro__:
        if not issubclass(kind, DistillationDataModule):
            break
        if "__init__" in vars(kind):
            found = {**inspect.signature(kind.__init__).parameters, **found}
    return {
        name: parameter
        for name, parameter in found.items()
        if name != "self" and parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }


def test_there_are_configurations():
    assert {"digits", "fashion_mnist", "mnist", "cifar10", "cifar100", "image_folder", "dataset"} <= {
        file.stem for file in FILES
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_configuration_names_its_modules_settings_and_no_others(file):
    config = loaded(file)
    target = get_class(config._target_)
    if not issubclass(target, DistillationDataModule):
        pytest.skip("another kind of data module")
    named, settings = set(config) - {"_target_"}, settings_of(target)
    assert named <= set(settings)
    # What a module decides for those that it is derived from (a text has no mean) need not stand there.
    own = {key for key in settings if key in inspect.signature(target.__init__).parameters}
    assert own | LOADING <= named


@pytest.mark.parametrize("name", ["digits", "fashion_mnist", "mnist", "cifar10", "cifar100", "image_folder"])
def test_a_module_is_made_of_its_configuration_without_touching_data(name, tmp_path):
    config = OmegaConf.load(CONF / f"{name}.yaml")
    paths = {"data_dir": str(tmp_path / "data"), "cache_dir": str(tmp_path / "cache")}
    resolved = OmegaConf.to_container(OmegaConf.merge({"paths": paths}, {"data": config}), resolve=True)["data"]
    module = get_class(resolved.pop("_target_"))(**resolved)
    assert len(module.view_fingerprint()) == 32
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_configuration_begins_by_saying_what_the_data_is(file):
    assert file.read_text().startswith("# ")
