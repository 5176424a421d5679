"""Hyperparameters in TensorBoard's HParams view: one session a run, the seeds of a configuration grouped.

A session is told by one summary at its start (values and group) and one at its end (status). Its metrics are the run's
ordinary scalars, of which the view shows the last value; so no ``hp_metric``, and no made-up points in the curves.

A start is written again when a run continues; TensorBoard keeps the first of the two. An end cannot be taken back
either, so an interrupted run gets none: until it is continued and ends, it counts as running.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from kd_lightning.config.keys import find, is_seed
from kd_lightning.config.replicates import deciding

HParam = bool | int | float | str


def hyperparameters(config: Mapping[str, Any]) -> dict[str, HParam]:
    """The settings that decide a run's result, flat: ``{"method.temperature": 4.0, "student": "MLP", …}``.

    Left out: None (HParams has no such value) and "auto", seeds (runs that differ in them are one configuration), what
    does not decide, and values of a loss term that repeat one of its method. A ``_target_`` gives its node the class
    name as value, a method the names of its terms in use; a list becomes its text.
    """
    flat: dict[str, HParam] = {}
    for key, value in deciding(config).items():
        *above, last = key.split(".")
        if value is None or value == "auto" or value == {} or is_seed(key):
            continue
        if last == "_target_":
            flat[".".join(above)] = str(value).rpartition(".")[2]
        elif not last.startswith("_"):
            flat[key] = value if isinstance(value, (bool, int, float, str)) else str(value)
    method = config.get("method")
    if isinstance(method, Mapping) and isinstance(method.get("weights"), Mapping):
        flat["method"] = (
            "+".join(term for term, weight in method["weights"].items() if weight and term != "task") or "none"
        )
    return {key: value for key, value in sorted(flat.items()) if not _repeats(key, value, flat)}


def of_sweep(hparams: Mapping[str, HParam], swept: Mapping[str, str]) -> dict[str, HParam]:
    """Those in which the runs of a sweep differ, seeds apart, and the method; of a config group the name that was chosen.

    Args:
        hparams: what :func:`hyperparameters` gives.
        swept: the sweep's keys with the run's value of each, as it was written.
    """
    kept: dict[str, HParam] = {"method": hparams.get("method", "none")}
    for key, value in swept.items():
        if is_seed(key):
            continue
        if find(key).group:
            kept[key] = value
        else:
            kept |= {name: held for name, held in hparams.items() if name == key or name.startswith(f"{key}.")}
    return kept


def session_group(name: str, setting: str) -> str:
    """The group that a run shares with its configuration's other seeds.

    Args:
        name: the readable name of the configuration.
        setting: what tells configurations apart that have equal names in two sweeps under one ``--logdir``
            (:func:`kd_lightning.config.replicates.setting_of`).
    """
    return f"{name} {setting[:6]}"


def write_session_start(writer: Any, hparams: Mapping[str, HParam], group: str) -> None:
    """Write the values of a run, once, when it starts.

    Args:
        writer: a ``torch.utils.tensorboard.SummaryWriter``.
        hparams: what :func:`hyperparameters` gives.
        group: what :func:`session_group` gives, equal for runs with equal values.
    """
    # TensorBoard's own hparams.api would do, were it not for its import of TensorFlow.
    from tensorboard.plugins.hparams import plugin_data_pb2
    from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG

    start = plugin_data_pb2.SessionStartInfo(group_name=group, start_time_secs=time.time())
    for name, value in hparams.items():
        kind = "bool" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"
        setattr(start.hparams[name], f"{kind}_value", value)
    _write(writer, SESSION_START_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_start_info=start))


def write_session_end(writer: Any, status: str) -> None:
    """Write how a run ended: "finished" as success, "pruned", "failed" and "diverged" as failure, "interrupted" not at all."""
    from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
    from tensorboard.plugins.hparams.metadata import SESSION_END_INFO_TAG

    if status == "interrupted":
        return
    code = api_pb2.STATUS_SUCCESS if status == "finished" else api_pb2.STATUS_FAILURE
    end = plugin_data_pb2.SessionEndInfo(status=code, end_time_secs=time.time())
    _write(writer, SESSION_END_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_end_info=end))


def _write(writer: Any, tag: str, data: Any) -> None:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams.metadata import NULL_TENSOR, create_summary_metadata

    value = Summary.Value(tag=tag, metadata=create_summary_metadata(data), tensor=NULL_TENSOR)
    writer._get_file_writer().add_summary(Summary(value=[value]), 0)  # nothing public writes a summary of one's own


def _repeats(key: str, value: HParam, flat: Mapping[str, HParam]) -> bool:
    method, terms, rest = key.partition(".terms.")
    return bool(terms) and flat.get(f"{method}.{rest.partition('.')[2]}") == value
