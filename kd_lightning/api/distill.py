"""``kd.distill``: one run, from objects or names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from kd_lightning.api.accepted import only_known
from kd_lightning.api.datasets import choose_data
from kd_lightning.api.options import Options
from kd_lightning.api.result import Distilled
from kd_lightning.api.start import start
from kd_lightning.cli.train import computed
from kd_lightning.errors import UserError
from kd_lightning.method import Method

Model = nn.Module | Callable[..., nn.Module] | str | Mapping[str, Any]
"""A module; a class, function or ``functools.partial`` that makes one; a name of ``conf/``; a mapping with ``_target_``."""


@only_known
def distill(
    teacher: Model | Sequence[nn.Module] | None = "small_cnn_few_labels",
    student: Model = "mlp",
    train: Any = "digits",
    val: Any = None,
    test: Any = None,
    method: str | Sequence[str] | Method | Mapping[str, Any] = "kd",
    *,
    temperature: float | None = None,
    weights: Mapping[str, float] | None = None,
    max_epochs: int | None = None,
    batch_size: int | None = None,
    optimizer: str | Mapping[str, Any] | None = None,
    lr: float | None = None,
    seed: int | None = None,
    baseline: bool = True,
    run_dir: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    verbose: bool = True,
) -> Distilled:
    """Distil a student from a frozen teacher, as ``kd-train`` does, and return the finished run.

    ::

        result = kd.distill(teacher=big, student=small, train=train_set, val=val_set, method="dkd", temperature=4)
        print(result.table)
        probabilities = result.predict(images)

    Args:
        teacher: a trained module, which is taken as it is and copied; a name as in ``kd-train teacher=NAME``, which is
            trained here, once; a list of modules: the mean of their logits; None: none, plain training.
        student: a module, copied, that starts from the weights it has; a class or function that makes one, under the
            run's seed; a class at the top of a module of yours gets the sizes that it asks for (``num_classes``,
            ``in_features``, …) from the data.
        train: a map-style ``Dataset``; a ``DataLoader``, whose data set, batch size and collate function are taken; a
            pair of arrays ``(inputs, targets)``; a ``LightningDataModule``; a name as in ``kd-train data=NAME``.
        val: as ``train``; None: a tenth of it is split off.
        test: likewise; None: a fifth of ``train`` is split off before anything else, always the same samples.
        method: a name as in ``kd-train method=NAME``, or several in a list; a :class:`~kd_lightning.method.Method`, whose terms are copied; or a
            mapping of ``weights`` and ``terms`` as in its file.
        temperature: softening T > 0; None: the method's own.
        weights: of some loss terms, and of ``task``, the loss against the labels; the others keep the method's.
        max_epochs: of the student; None: 50.
        batch_size: training samples a step; None: the loader's, else 64.
        optimizer: a name as in ``kd-train optimizer=NAME``.
        lr: its learning rate.
        seed: of the student's initial weights and dropout; None: 0; the order of the data is ``settings={"data.seed": …}``.
        baseline: train the same student without the teacher too.
        run_dir: where the files go; one that holds this very run is continued, or read where it is finished.
        settings: any other key of the configuration: ``{"trainer.precision": "bf16-mixed", "task": "regression"}``; one that
            an argument gives already is refused where it says something else.
        verbose: show progress and lines.

    Raises:
        UserError: something that was given cannot be meant, in one line; nothing was trained.
        RunsFailed: the run failed or diverged.
        RunInterrupted: Ctrl-C; its state is kept.
    """
    options = chosen(
        teacher=teacher, student=student, train=train, val=val, test=test, method=method, temperature=temperature,
        weights=weights, max_epochs=max_epochs, batch_size=batch_size, optimizer=optimizer, lr=lr, baseline=baseline,
        settings=settings,
    )  # fmt: skip
    if seed is not None:
        options.set("seed", seed)
    if run_dir is not None:
        options.set("run_dir", Path(run_dir))
    return Distilled(start(options, computed, verbose=verbose), options.objects)


def chosen(
    *,
    teacher: Any,
    student: Any,
    train: Any,
    val: Any,
    test: Any,
    method: Any,
    optimizer: Any,
    baseline: bool,
    settings: Mapping[str, Any] | None,
    **short: Any,
) -> Options:
    """The overrides that the arguments of a call stand for."""
    options = Options()
    choose_data(options, train, val, test)
    options.choose("teacher", "none" if teacher is None else teacher)
    options.choose("student", student)
    options.choose("method", "none" if teacher is None and method == "kd" else method)
    if optimizer is not None:
        options.choose("optimizer", optimizer)
    weights = short.pop("weights")
    if weights is not None and not isinstance(weights, Mapping):
        raise UserError(f"weights: give each loss term's, as in weights={{'task': 0.1, 'kd': 0.9}}; got {weights!r}")
    for name, weight in (weights or {}).items():  # one by one: a term that is not there is named
        options.set(f"method.weights.{name}", weight)
    for key, value in short.items():
        if value is not None:
            options.set(key, value)
    if not baseline:
        options.set("baseline", False)
    for key, value in (settings or {}).items():
        options.set(key, value)
    return options
