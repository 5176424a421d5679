"""Every private thing of others that we touch is listed in one place, and still does what we touch it for."""

from __future__ import annotations

import ast
import inspect
import re
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import kd_lightning.private_interfaces as listed

ROOT = Path(__file__).parents[1]
FILES = [path for folder in ("kd_lightning", "hydra_plugins") for path in (ROOT / folder).rglob("*.py")]
PRIVATE = re.compile(r"_[a-z]\w*$")
HARMLESS = {
    "_replace",
    "_fields",
    "_asdict",  # these three of named tuples, documented: the underscore keeps them from being fields
    "_exit",  # of os, documented: the end of a process without its handlers
}


def own_names(trees: list[ast.Module]) -> set[str]:
    """Names that begin with an underscore and are ours: functions, classes, attributes that are assigned to self."""
    found = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            found.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def touched() -> dict[str, set[str]]:
    """Private names of others -> the files that use them."""
    trees = {path: ast.parse(path.read_text()) for path in FILES}
    own, found = own_names(list(trees.values())), {}
    for path, tree in trees.items():
        names: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and PRIVATE.match(node.attr):
                names |= {node.attr} - own
            elif isinstance(node, ast.ImportFrom) and "._" in f".{node.module}" and node.module != "__future__":
                names |= set() if (node.module or "").startswith("kd_lightning") else {a.name for a in node.names}
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr", "setattr"):
                names |= {
                    a.value for a in node.args if isinstance(a, ast.Constant) and PRIVATE.match(str(a.value))
                } - own
        for name in names - HARMLESS:
            found.setdefault(name, set()).add(str(path.relative_to(ROOT / "kd_lightning")))
    return found


def test_everything_private_that_is_used_is_listed_with_its_file():
    text = inspect.getdoc(listed) or ""
    assert touched()
    for name, files in touched().items():
        assert re.search(rf"\b{name}\b", text), (
            f"{name} (in {', '.join(files)}) is private to others: list it, or do without"
        )
        for file in files:
            assert file in text, f"{name} is used in {file}: say so in kd_lightning/private_interfaces.py"


def test_everything_listed_is_used():
    names = {name.rpartition(".")[2] for name in re.findall(r"``([\w.]+)``", inspect.getdoc(listed) or "")}
    names = {name for name in names if name.startswith("_")}
    assert names <= set(touched()), f"no longer used: {names - set(touched())}"


@pytest.mark.parametrize(
    ("module", "name", "parameters"),
    [
        ("hydra._internal.hydra", "Hydra.create_main_hydra2", {"task_name", "config_search_path"}),
        ("hydra._internal.hydra", "Hydra.compose_config", {"config_name", "overrides", "run_mode", "with_log_configuration"}),
        ("hydra._internal.utils", "create_config_search_path", {"search_path_dir"}),
        ("hydra._internal.utils", "get_args_parser", set()),
        ("hydra._internal.callbacks", "Callbacks.on_run_start", {"config", "kwargs"}),
        ("hydra._internal.config_loader_impl", "ConfigLoaderImpl.load_sweep_config", {"master_config", "sweep_overrides"}),
        ("hydra._internal.config_loader_impl", "ConfigLoaderImpl._apply_overrides_to_config", {"overrides", "cfg"}),
        (
            "hydra._internal.config_loader_impl",
            "get_overrides_dirname",
            {"overrides", "kv_sep", "item_sep", "exclude_keys"},
        ),
    ],
)  # fmt: skip
def test_hydra_still_has(module, name, parameters):
    found = pytest.importorskip(module)
    for part in name.split("."):
        assert hasattr(found, part), f"Hydra has moved {module}.{name}: see kd_lightning/private_interfaces.py"
        found = getattr(found, part)
    missing = parameters - set(inspect.signature(found).parameters)
    assert not missing, f"Hydra's {name} no longer takes {missing}: see kd_lightning/private_interfaces.py"


def test_a_hydra_job_keeps_its_own_exception():
    from hydra.core.utils import JobReturn, JobStatus

    error = ValueError("x")
    job = JobReturn(status=JobStatus.FAILED)
    job.return_value = error
    assert job._return_value is error, "Hydra's JobReturn keeps the job's exception elsewhere: see cli/_jobs.py"


def test_lightning_counts_the_batches_that_stepped():
    import pytorch_lightning as pl

    trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", enable_progress_bar=False)
    count = getattr(trainer.fit_loop.epoch_loop, "_batches_that_stepped", None)
    assert count == 0, "Lightning counts logged steps elsewhere: see callbacks/fast_forward.py"


def test_lightnings_tensorboard_logger_has_no_writer_before_it_is_used(tmp_path):
    from pytorch_lightning.loggers import TensorBoardLogger

    logger = TensorBoardLogger(tmp_path)
    assert logger._experiment is None, "Lightning keeps the logger's writer elsewhere: see runs/loggers.py"
    assert logger.experiment is logger._experiment


def test_a_summary_writer_gives_its_file_writer(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        assert hasattr(writer._get_file_writer(), "add_summary"), (
            "torch's SummaryWriter has changed: see runs/hparams.py"
        )


def test_a_compiled_module_is_called_as_it_was_written_where_the_compiled_call_is_taken_away():
    model, called = nn.Linear(2, 2), []
    model.compile(backend=lambda graph, inputs: called.append(1) or graph.forward)
    assert model._compiled_call_impl is not None, "torch keeps the compiled call elsewhere: see member.py"
    model._compiled_call_impl = None
    model(torch.ones(1, 2))
    assert not called


def test_a_module_keeps_its_hooks_where_they_are_counted():
    model = nn.Linear(2, 2)
    model.register_forward_hook(lambda *_: None)
    model.register_forward_pre_hook(lambda *_: None)
    model.register_full_backward_hook(lambda *_: None)
    model.register_full_backward_pre_hook(lambda *_: None)
    kept = (model._forward_hooks, model._forward_pre_hooks, model._backward_hooks, model._backward_pre_hooks)
    assert [len(hooks) for hooks in kept] == [1, 1, 1, 1], "torch keeps hooks elsewhere: see stackable.py"


def test_many_tensors_are_copied_at_once():
    into, given = [torch.zeros(2), torch.zeros(())], [torch.ones(2), torch.ones(())]
    torch._foreach_copy_(into, given)
    assert all(map(torch.equal, into, given)), "torch copies many tensors otherwise: see stacked.py"


def test_a_tensors_version_counts_what_is_done_to_it_in_place():
    value = torch.ones(2)
    before = value._version
    value.add_(1)
    assert value._version > before, "torch counts in-place operations elsewhere: see taps.py"


def test_the_module_that_was_compiled_is_found_within_the_compiled_one():
    model = nn.Linear(2, 2)
    assert torch.compile(model)._orig_mod is model, "torch.compile keeps the module elsewhere: see taps.py"


def test_a_metric_of_torchmetrics_tells_how_its_states_add_up():
    metric = pytest.importorskip("torchmetrics").MeanMetric()
    assert getattr(metric, "_reductions", None), (
        "torchmetrics keeps its reductions elsewhere: see metrics/collection.py"
    )


def test_numpys_older_generator_has_the_bits_of_the_newer_one():
    older = np.random.RandomState(0)
    assert hasattr(older, "_bit_generator"), "numpy keeps the bits elsewhere: see data/loader/sampler_state.py"
    assert isinstance(older._bit_generator.state, dict)


def test_python_calls_the_loader_before_it_waits_for_threads():
    register = getattr(threading, "_register_atexit", None)
    assert callable(register), "Python's threading no longer has _register_atexit: exit with full loaders is slower"


def test_optunas_trials_are_found_again_by_their_numbers():
    optuna = pytest.importorskip("optuna")
    study = optuna.create_study()
    study.ask()
    (frozen,) = study.get_trials(deepcopy=False)
    assert optuna.trial.Trial(study, frozen._trial_id).number == 0
