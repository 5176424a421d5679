"""HParams as TensorBoard itself understands them: event files read back, and a real server asked."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from kd_lightning.config.build import instantiate
from kd_lightning.config.replicates import setting_of
from kd_lightning.runs.hparams import hyperparameters, of_sweep, session_group
from kd_lightning.runs.loggers import build_loggers, log_end, log_start, remove_event_files

CONFIG = {
    "seed": 0,
    "name": "digits",
    "run_dir": "/somewhere",
    "paths": {"output_dir": "outputs"},
    "logger": {"tensorboard": {"flush_secs": 10}},
    "compile": False,
    "early_stopping": {"patience": None, "min_delta": 0.0},
    "data": {"_target_": "kd_lightning.data.digits.Digits", "batch_size": 64, "seed": 3, "num_threads": 2},
    "student": {"_target_": "kd_lightning.models.mlp.MLP", "widths": [32, 32], "num_classes": "auto"},
    "method": {
        "_target_": "kd_lightning.method.Method",
        "temperature": 4.0,
        "weights": {"task": 0.1, "kd": 0.9},
        "terms": {"kd": {"_target_": "kd_lightning.losses.soft_target.SoftTargetLoss", "temperature": 4.0}},
    },
}


def config(temperature: float, seed: int) -> dict:
    changed = json.loads(json.dumps(CONFIG))
    changed["seed"] = seed
    changed["method"]["temperature"] = temperature
    changed["method"]["terms"]["kd"]["temperature"] = temperature
    return changed


def make_run(directory, temperature: float, seed: int, status: str = "finished"):
    name = f"T{temperature:04.1f}_s{seed}"
    loggers = build_loggers(directory / name, {}, instantiate)
    log_start(loggers, f"T{temperature:04.1f}", config(temperature, seed), setting_of(config(temperature, seed)))
    for step in (10, 20, 30):
        for logger in loggers:
            logger.log_metrics({"train/loss": 1 / step, "val/acc": step / 100}, step)
    final = {"best/val_acc": 0.3, "test/acc": 0.2 + temperature / 100 + seed / 1000} if status == "finished" else {}
    log_end(loggers, status, final, 30, "| model | accuracy |\n|---|---|\n| teacher | 95 % |")


def test_hyperparameters_are_the_settings_that_decide_the_result():
    assert hyperparameters(CONFIG) == {
        "compile": False,
        "data": "Digits",
        "data.batch_size": 64,
        "early_stopping.min_delta": 0.0,
        "method": "kd",
        "method.temperature": 4.0,
        "method.terms.kd": "SoftTargetLoss",
        "method.weights.kd": 0.9,
        "method.weights.task": 0.1,
        "student": "MLP",
        "student.widths": "[32, 32]",
    }


def test_a_method_without_a_term_in_use_is_none():
    changed = config(4.0, 0)
    changed["method"]["weights"] = {"task": 1.0, "kd": 0.0}
    assert hyperparameters(changed)["method"] == "none"


def test_a_term_whose_temperature_is_not_the_methods_keeps_it():
    changed = config(4.0, 0)
    changed["method"]["terms"]["kd"]["temperature"] = 2.0
    assert hyperparameters(changed)["method.terms.kd.temperature"] == 2.0


def test_a_setting_of_the_teachers_cache_that_decides_is_one():
    changed = {**CONFIG, "teacher": {"cache": "auto", "cache_limit_gb": 2.0, "cache_top_k": 5, "train": {"seed": 1}}}
    found = {key: value for key, value in hyperparameters(changed).items() if key.startswith("teacher")}
    assert found == {"teacher.cache_top_k": 5}


def test_seeds_share_a_group_and_configurations_do_not():
    groups = {(t, s): session_group("x", setting_of(config(t, s))) for t in (1.0, 4.0) for s in (0, 1)}
    assert groups[1.0, 0] == groups[1.0, 1] != groups[4.0, 0] == groups[4.0, 1]
    assert groups[1.0, 0].startswith("x ")


def test_the_table_of_a_sweep_has_the_keys_in_which_its_runs_differ():
    everything = hyperparameters(config(4.0, 0))
    assert of_sweep(everything, {"method.temperature": "4", "seed": "0"}) == {"method": "kd", "method.temperature": 4.0}
    assert of_sweep(everything, {"student": "mlp", "seed": "0"}) == {"method": "kd", "student": "mlp"}
    assert of_sweep(everything, {"seed": "0"}) == {"method": "kd"}


def test_event_files_hold_start_and_end_texts_and_untouched_curves(tmp_path):
    make_run(tmp_path, 4.0, 0)
    events = EventAccumulator(str(tmp_path / "T04.0_s0")).Reload()
    assert set(events.Tags()["scalars"]) == {"train/loss", "val/acc", "best/val_acc", "test/acc"}
    assert [event.step for event in events.Scalars("val/acc")] == [10, 20, 30]
    assert [event.step for event in events.Scalars("test/acc")] == [30]
    content = events.PluginTagToContent("hparams")
    start = metadata.parse_session_start_info_plugin_data(content[metadata.SESSION_START_INFO_TAG])
    assert start.hparams["method.temperature"].number_value == 4.0
    assert start.hparams["student"].string_value == "MLP"
    assert start.group_name.startswith("T04.0 ")
    assert metadata.SESSION_END_INFO_TAG in content
    texts = events.PluginTagToContent("text")
    assert set(texts) == {"config/text_summary", "result/text_summary"}
    assert b"temperature: 4.0" in events.Tensors("config/text_summary")[0].tensor_proto.string_val[0]


def test_an_interrupted_run_has_no_end_and_continues_without_double_points(tmp_path):
    make_run(tmp_path, 4.0, 0, status="interrupted")
    run = tmp_path / "T04.0_s0"
    loggers = build_loggers(run, {}, instantiate, resume_step=20)
    log_start(loggers, "T04.0", config(4.0, 0), setting_of(config(4.0, 0)))
    loggers[0].log_metrics({"val/acc": 0.7}, 30)
    log_end(loggers, "finished", {"test/acc": 0.5}, 30)
    events = EventAccumulator(str(run)).Reload()
    assert [(e.step, round(e.value, 3)) for e in events.Scalars("val/acc")] == [(10, 0.1), (20, 0.2), (30, 0.7)]
    end = events.PluginTagToContent("hparams")[metadata.SESSION_END_INFO_TAG]
    assert metadata.parse_session_end_info_plugin_data(end).status == 1


def test_what_a_failed_attempt_left_can_be_removed(tmp_path):
    make_run(tmp_path, 4.0, 0, status="failed")
    remove_event_files(tmp_path / "T04.0_s0")
    assert os.listdir(tmp_path / "T04.0_s0") == []


TENSORBOARD = """
import sys
from tensorboard import default, program
server = program.TensorBoard(plugins=default.get_static_plugins())  # its own views, no installed tabs
server.configure(argv=sys.argv)
sys.exit(server.main())
"""


class Server:
    """A real TensorBoard on the loopback interface."""

    def __init__(self, logdir):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        options = ["--logdir", str(logdir), "--host", "127.0.0.1", "--port", str(port)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", TENSORBOARD, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def ask(self, route: str, body: dict | None = None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/{route}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read())

    def wait_until(self, ready, seconds: float = 90):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"TensorBoard ended with exit code {self.process.returncode}"
            try:
                if ready():
                    return
            except (urllib.error.URLError, ConnectionError):
                pass  # not listening yet
            time.sleep(0.3)
        raise TimeoutError(f"TensorBoard was not ready within {seconds} s")

    def stop(self):
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture
def serve():
    servers = []

    def start(logdir):
        servers.append(Server(logdir))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


STATUSES = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]


def test_tensorboard_shows_a_row_for_each_configuration_with_its_seeds_and_final_metrics(tmp_path, serve):
    for temperature in (1.0, 4.0):
        for seed in (0, 1):
            make_run(tmp_path, temperature, seed)
    make_run(tmp_path, 8.0, 0, status="diverged")
    server = serve(tmp_path)
    server.wait_until(lambda: len(server.ask("data/runs")) == 5)
    experiment = server.ask("data/plugin/hparams/experiment", {"experimentName": ""})
    infos = {info["name"]: info for info in experiment["hparamInfos"]}
    assert [name for name, info in infos.items() if info.get("differs")] == ["method.temperature"]
    tags = {info["name"]["tag"] for info in experiment["metricInfos"]}
    assert {"best/val_acc", "test/acc"} <= tags
    assert "hp_metric" not in tags
    query = {
        "experimentName": "",
        "allowedStatuses": STATUSES,
        "colParams": [{"hparam": "method.temperature", "order": "ORDER_ASC"}],
        "startIndex": 0,
        "sliceSize": 100,
    }
    groups = server.ask("data/plugin/hparams/session_groups", query)["sessionGroups"]
    assert [group["hparams"]["method.temperature"] for group in groups] == [1.0, 4.0, 8.0]
    assert [len(group["sessions"]) for group in groups] == [2, 2, 1]
    assert [group["sessions"][0]["status"] for group in groups] == ["STATUS_SUCCESS"] * 2 + ["STATUS_FAILURE"]
    found = {metric["name"]["tag"]: metric["value"] for metric in groups[1]["metricValues"]}
    assert found["test/acc"] == pytest.approx(0.2405, abs=1e-6)  # the mean over seeds
