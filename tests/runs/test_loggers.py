from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kd_lightning.config.build import instantiate
from kd_lightning.errors import UserError
from kd_lightning.runs.hparams import hyperparameters
from kd_lightning.runs.loggers import build_loggers, log_end, log_start

CONF = Path(__file__).parents[2] / "conf" / "logger"


def node(name: str) -> dict:
    return yaml.safe_load((CONF / f"{name}.yaml").read_text())


def test_tensorboard_is_always_there_and_writes_into_the_run_directory_itself(tmp_path):
    (logger,) = build_loggers(tmp_path / "run", None, instantiate)
    logger.log_metrics({"val/acc": 0.5}, 7)
    logger.flush()
    assert [path.name.split(".")[0] for path in (tmp_path / "run").iterdir()] == ["events"]
    assert EventAccumulator(str(tmp_path / "run")).Reload().Scalars("val/acc")[0].step == 7
    log_end([logger], "finished", {}, 7)


def test_csv_is_written_beside_it_and_kept_when_the_run_continues(tmp_path):
    for attempt in (1, 2):
        loggers = build_loggers(tmp_path, node("csv"), instantiate, resume_step=None if attempt == 1 else 1)
        log_start(loggers, "s0", {"method": {"temperature": 4.0}}, "abc")
        for logger in loggers:
            logger.log_metrics({"val/acc": attempt / 4}, attempt)
        log_end(loggers, "finished", {"test/acc": 0.9}, attempt)
    files = sorted(tmp_path.glob("csv/version_*/metrics.csv"))
    assert len(files) == 2
    with open(files[0], newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["val/acc"] == "0.25"
    assert rows[-1]["test/acc"] == "0.9"


def test_hparams_yaml_holds_the_hyperparameters_and_is_not_written_again(tmp_path):
    config = {"seed": 3, "method": {"temperature": 4.0, "name": "Größe"}, "optimizer": {"lr": 0.05, "nesterov": True}}
    loggers = build_loggers(tmp_path, None, instantiate)
    log_start(loggers, "s3", config, "abc")
    log_end(loggers, "finished", {"test/acc": 0.9}, 1)
    written = (tmp_path / "hparams.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(written) == hyperparameters(config)

    (tmp_path / "hparams.yaml").write_text("kept: true\n")
    loggers = build_loggers(tmp_path, None, instantiate, resume_step=1)
    log_start(loggers, "s3", config, "abc")
    log_end(loggers, "finished", {}, 1)
    assert (tmp_path / "hparams.yaml").read_text() == "kept: true\n"


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_extra_is_one_line_that_says_what_to_install(name, tmp_path):
    if importlib.util.find_spec(name) is not None:
        pytest.skip(f"{name} is installed")
    with pytest.raises(UserError, match=rf'logger={name} needs {name}.*pip install "kd-lightning\[{name}\]"') as error:
        build_loggers(tmp_path, node(name), instantiate)
    assert "\n" not in str(error.value)


def test_wandb_keeps_the_runs_of_one_process_apart(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    nodes = node("wandb")
    nodes["wandb"].update(project="p", offline=True)
    groups = [build_loggers(tmp_path / name, nodes, instantiate) for name in ("a_s0", "a_s1")]
    assert [loggers[1].experiment.name for loggers in groups] == ["a_s0", "a_s1"]
    for i, loggers in enumerate(groups):
        log_start(loggers, f"a_s{i}", {"method": {"temperature": 4.0}}, "abc")
        loggers[1].log_metrics({"val/acc": i / 4}, 1)
    assert [loggers[1].experiment.summary["val/acc"] for loggers in groups] == [0.0, 0.25]
    for loggers in groups:
        log_end(loggers, "finished", {"test/acc": 0.5}, 2)
    assert wandb.run is None
    assert all(list((tmp_path / name / "wandb").glob("offline-run-*/*.wandb")) for name in ("a_s0", "a_s1"))


def test_mlflow_stores_parameters_and_final_metrics(tmp_path):
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    nodes = node("mlflow")
    nodes["mlflow"].update(experiment_name="e", tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    loggers = build_loggers(tmp_path / "a_s0", nodes, instantiate)
    log_start(loggers, "a_s0", {"method": {"temperature": 4.0}}, "abc")
    log_end(loggers, "finished", {"test/acc": 0.5}, 2)
    client = loggers[1].experiment
    (run,) = client.search_runs([client.get_experiment_by_name("e").experiment_id])
    assert (run.info.run_name, run.info.status) == ("a_s0", "FINISHED")
    assert run.data.params == {"method.temperature": "4.0"}
    assert run.data.metrics == {"test/acc": 0.5}


def test_an_unknown_tensorboard_option_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"logger\.tensorboard: unknown option"):
        build_loggers(tmp_path, {"tensorboard": {"flush_seconds": 3}}, instantiate)


def test_final_metrics_without_a_value_are_left_out(tmp_path):
    loggers = build_loggers(tmp_path, None, instantiate)
    log_end(loggers, "failed", {"best/val_acc": None, "test/acc": 0.5}, 3)
    assert EventAccumulator(str(tmp_path)).Reload().Tags()["scalars"] == ["test/acc"]


def test_a_picture_is_stored_as_it_was_drawn(tmp_path):
    (logger,) = build_loggers(tmp_path, None, instantiate)
    picture = np.zeros((4, 6, 3), dtype=np.uint8)
    logger.experiment.add_image("val/samples", picture, 1, dataformats="HWC")
    log_end([logger], "finished", {}, 1)
    image = EventAccumulator(str(tmp_path)).Reload().Images("val/samples")[0]
    assert (image.height, image.width) == (4, 6)


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_option_holds_one_logger_under_its_own_name(path):
    content = node(path.stem)
    assert list(content) == (["defaults"] if path.stem == "default" else [path.stem])
