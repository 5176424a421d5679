"""From a resolved configuration to objects: the only place that instantiates."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import hydra
import pytorch_lightning as pl
from hydra.errors import InstantiationException
from omegaconf import OmegaConf
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from kd_lightning.batch import Batch
from kd_lightning.config.annotations import parameters_of
from kd_lightning.config.processes import one_process, processes_of
from kd_lightning.config.targets import import_target
from kd_lightning.errors import UserError
from kd_lightning.joints import DataModule, Executor, Task
from kd_lightning.member import Member
from kd_lightning.metrics.metric import STUDENT
from kd_lightning.outputs import ModelOutput
from kd_lightning.rng import RngStream
from kd_lightning.runs.spec import without_validation
from kd_lightning.runs.weights import load_weights_file
from kd_lightning.task_parts import completed
from kd_lightning.tasks.base import check_task
from kd_lightning.terms import needs_teacher

SIZES = ("num_classes", "in_channels", "in_features", "image_size", "vocab_size")
"""What a model's configuration may leave to the data, by the word "auto" or by not giving it."""
MEMBER_KEYS = ("precision", "gradient_clip_val", "accumulate_grad_batches")
"""Keys of ``trainer`` that are each student's own: Lightning's would act on the group as a whole."""


def instantiate(node: Mapping[str, Any], where: str, **given: Any) -> Any:
    """``hydra.utils.instantiate`` with plain containers and one-line errors that name the configuration key."""
    try:
        return hydra.utils.instantiate(OmegaConf.create(dict(node)), _convert_="all", **given)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from error
        text = " ".join(str(cause or error).split())
        raise UserError(f"{where}: {node.get('_target_')} could not be made: {text[:300]}") from error


def build_executor(node: Mapping[str, Any], directory: Path) -> Executor:
    """The executor that ``launcher`` names; where its signature has a ``directory``, it is the sweep's, or the run's."""
    parameters, _ = parameters_of(import_target(str(node["_target_"]))) or ({}, True)
    given = {"directory": str(directory)} if "directory" in parameters else {}
    executor: Executor = instantiate(node, "launcher", **given)
    return executor


def without_auto(method: Mapping[str, Any]) -> dict[str, Any]:
    """The method's node with some number where a term leaves one to the data, so that it can be made before data."""
    terms = method.get("terms") or {}
    small = {
        k: {**term, "train_samples": 2} if term.get("train_samples") == "auto" else term for k, term in terms.items()
    }
    return {**method, "terms": small}


def build_datamodule(config: Mapping[str, Any]) -> Any:
    """The data module, its splits ready."""
    datamodule = instantiate(config["data"], "data")
    if not isinstance(datamodule, DataModule):
        needed = (*DataModule.__annotations__, "sizes", "example_batch", "data_fingerprint")
        missing = ", ".join(name for name in needed if not hasattr(datamodule, name))
        raise UserError(
            f"data: {config['data'].get('_target_')} has no {missing}: derive it from "
            "kd_lightning.data.module.DistillationDataModule, or give its data sets to data=dataset"
        )
    datamodule.prepare_data()
    datamodule.setup("fit")
    return datamodule


def build_task(config: Mapping[str, Any], data: DataModule | None = None) -> Task:
    """The task, known to be whole, and fitted to ``data`` where these are given; where these have no labelled validation
    samples (without validation: test samples) the metric that needs none is monitored. A checkpoint of a student alone is not chosen by what compares it
    with a teacher."""
    task: Task = instantiate(config["task"], "task")
    check_task(task)
    task = completed(task)
    if data is not None:
        task.fit(data)
    of = {metric.name: metric.of for metric in task.metrics}
    without = getattr(task, "monitor_without_labels", None)
    measured = "test" if without_validation(config) else "val"
    known = bool(config.get("teacher")) or without is None or of[without] == STUDENT
    if data is not None and without is not None and known and not data.labelled_in(measured):
        task.monitor = without
    if task.choosers and not _learns_from_teacher(config.get("method") or {}):
        task.choosers = [name for name in task.choosers if of[name] == STUDENT]
    return task


def _learns_from_teacher(method: Mapping[str, Any]) -> bool:
    """Whether some term of a method's node with a weight needs a teacher."""
    terms, weights = method.get("terms") or {}, method.get("weights") or {}
    targets = [hydra.utils.get_object(term["_target_"]) for name, term in terms.items() if weights.get(name)]
    return any(needs_teacher(target) for target in targets)


def build_model(node: Mapping[str, Any], config: Mapping[str, Any], datamodule: DataModule, where: str) -> nn.Module:
    """A model from its node; sizes that it leaves open come from the data, as the configuration's task has them."""
    return build_sized_model(node, build_task(config, datamodule).sizes(datamodule.sizes()), where)


def build_sized_model(node: Mapping[str, Any], sizes: Mapping[str, int], where: str) -> nn.Module:
    """A model from its node; sizes that are "auto", or required and not given, are looked up by name in ``sizes``."""
    node = fill_auto(node, sizes, where)
    model = instantiate(node, where)
    if not isinstance(model, nn.Module):
        raise UserError(f"{where}: {node.get('_target_')} gave a {type(model).__name__}, expected an nn.Module")
    return model


def as_trained(student: nn.Module, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> nn.Module:
    """The student as the method of its run made it, of the shapes of its weights; it is not filled with them."""
    wrap = (config.get("method") or {}).get("wrap")
    if wrap is None or student.state_dict().keys() == weights.keys():
        return student
    made: nn.Module = instantiate(wrap, "method.wrap")(student, weights=weights)
    return made


def fill_auto(node: Mapping[str, Any], sizes: Mapping[str, int], where: str) -> dict[str, Any]:
    """The node with the data's sizes in place of "auto"."""
    node = dict(node)
    for key, value in node.items():
        if value == "auto" and key not in SIZES:
            raise UserError(f"{node.get('_target_')}: {key}=auto is not known; auto goes with {', '.join(SIZES)}")
    wanted = {key for key, value in node.items() if value == "auto"}
    try:
        accepted: Mapping[str, inspect.Parameter] = inspect.signature(
            hydra.utils.get_object(node["_target_"])
        ).parameters
    except Exception:  # a builtin has no signature and takes what it is given; what cannot be imported is told below
        accepted = {}
    wanted |= {
        key for key in SIZES if key in accepted and key not in node and accepted[key].default is inspect.Parameter.empty
    }
    for key in sorted(wanted):
        if key not in sizes:
            known = ", ".join(f"{name}={size}" for name, size in sizes.items()) or "none"
            if key == "num_classes":
                raise UserError(
                    f"{where}.{key}: no label tells how many classes there are: give a number, or set data.num_classes"
                )
            raise UserError(f"{where}.{key}: the data does not say it (it says {known}): give a number")
        node[key] = sizes[key]
    return node


def with_train_samples(method: Mapping[str, Any], datamodule: Any) -> dict[str, Any]:
    """The method's node with the number of training samples where a term's ``train_samples`` is "auto"."""
    node = copy.deepcopy(dict(method))
    for term in (node.get("terms") or {}).values():
        if term.get("train_samples") == "auto":
            term["train_samples"] = len(datamodule.train_views_dataset)
    return node


GROUPING = ("layers", "layer_decay", "decay_vectors")
"""Keys beside an optimizer's arguments: see :class:`kd_lightning.parameter_groups.Grouping`."""


def build_optimizer(node: Mapping[str, Any], where: str = "optimizer") -> Any:
    """A partial that takes parameters; which of them have settings of their own is the member's."""
    own = {key: value for key, value in node.items() if key not in GROUPING}
    return instantiate({"_partial_": True, **own}, where)


def build_scheduler(node: Mapping[str, Any] | None, where: str = "scheduler") -> tuple[Any, str | None]:
    """A partial that takes an optimizer, and the interval at which it steps (None: the scheduler's own)."""
    if not node:
        return None, None
    node = copy.deepcopy(dict(node))
    interval = node.pop("interval", None)
    return instantiate({"_partial_": True, **node}, where), interval


def build_member(
    config: Mapping[str, Any],
    datamodule: Any,
    example: Batch,
    teacher_output: ModelOutput | None,
    name: str,
    teacher_module: nn.Module | None = None,
) -> Member:
    """A student with its method and optimization, its random numbers drawn from ``config["seed"]`` alone.

    Args:
        config: of the run.
        datamodule: gives the sizes that the configuration leaves open.
        example: a small batch; adapters take their shapes from the models' features on it.
        teacher_output: the teacher's answer to ``example``, with its features by layer name; None without a teacher.
        name: of the run.
        teacher_module: the teacher's network, for terms that look at its layers; None where it is none.
    """
    trainer = config["trainer"]
    precision = str(trainer.get("precision") or "32-true")
    task = build_task(config, datamodule)
    scheduler, interval = build_scheduler(config["scheduler"])
    with RngStream(int(config["seed"])):
        student = build_sized_model(config["student"], task.sizes(datamodule.sizes()), "student")
        if config.get("init_from"):
            load_weights_file(student, config["init_from"], "init_from", new_head=True)
        method = instantiate(with_train_samples(config["method"], datamodule), "method")
        if getattr(method, "wrap", None) is not None:
            student = method.wrap(student, teacher=teacher_module, example=example.inputs)
        member = Member(
            student,
            method,
            task,
            optimizer=build_optimizer(config["optimizer"]),
            layers=config["optimizer"].get("layers"),
            layer_decay=config["optimizer"].get("layer_decay"),
            decay_vectors=config["optimizer"].get("decay_vectors") is not False,
            scheduler=scheduler,
            scheduler_interval=interval,
            seed=int(config["seed"]) + 0x5EED,  # dropout continues no stream that initialisation has used
            gradient_clip_val=trainer.get("gradient_clip_val"),
            accumulate_grad_batches=int(trainer.get("accumulate_grad_batches") or 1),
            precision=precision,
            channels_last=bool(config["channels_last"]),
            compile_student=config["compile"],
            name=name,
        )
        mixing = getattr(datamodule, "mixing", None)
        if mixing is not None:
            member.refuse_mixed(mixing.keys)
        output = member.prepare(example, teacher_output)
        method.bind(student, teacher_module)
    task.check_output(output, datamodule, "student")
    return member


def data_parallel() -> dict[str, Any]:
    """Arguments of a Trainer that is one of several, each in a process that says in its environment which it is.

    The loss sees the whole batch in each of them (:mod:`kd_lightning.exchange`), so its buffers are equal; the student's
    are made so when it is measured or saved. A parameter that a step leaves out (a scheduled term's, a head's) is none
    that was forgotten.
    """
    # newer versions of torch have another name for it
    known = inspect.signature(DistributedDataParallel).parameters
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    strategy = DDPStrategy(find_unused_parameters=True, **cast("dict[str, Any]", {buffers: False}))
    return {"strategy": strategy, "plugins": [LightningEnvironment()], "use_distributed_sampler": False}


def build_trainer(config: Mapping[str, Any], **given: Any) -> pl.Trainer:
    """Lightning's Trainer as the configuration has it.

    Args:
        config: of a run; of its ``trainer``, what is each member's own is left out.
        given: what the configuration may replace: ``logger``, ``callbacks``, ``enable_progress_bar`` …

    Raises:
        UserError: Lightning refuses an argument, or a device is not there.
    """
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    own = {k: v for k, v in config["trainer"].items() if k not in MEMBER_KEYS}
    own = {**own, **data_parallel()} if processes_of(own) > 1 else one_process(own)
    try:
        return pl.Trainer(**{**quiet, **given, **own})
    except (MisconfigurationException, ImportError, RuntimeError, ValueError, TypeError) as error:
        text = " ".join(str(error).split())
        raise UserError(f"trainer: {text[:300]}") from error
