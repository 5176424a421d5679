"""kd-evaluate gives the figures of result.json again, digit by digit, from what the run's directory holds."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from processes import SMALL, run

from kd_lightning.running.evaluate import say_evaluation

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cwd(tmp_path_factory) -> Path:
    """A directory with a single run (``single``, with ``single/student_alone``) and a sweep (``sweep``)."""
    cwd = tmp_path_factory.mktemp("evaluate")
    for words in ((*SMALL, "run_dir=single"), ("-m", *SMALL, "method=kd,sp", "seed=0,1", "sweep_dir=sweep")):
        ended = run(cwd, *words)
        assert ended.code == 0, ended.text
    return cwd


@pytest.mark.parametrize(
    "name", ["single", "single/student_alone", "sweep/kd_s1", "sweep/sp_s0", "sweep/student_alone_s0"]
)
@pytest.mark.parametrize("from_elsewhere", [False, True])
def test_a_finished_run_is_reproduced_exactly(cwd, tmp_path, name, from_elsewhere):
    ended = run(tmp_path if from_elsewhere else cwd, str(cwd / name) if from_elsewhere else name, program="evaluate")
    assert ended.code == 0, ended.text
    metrics = json.loads((cwd / name / "result.json").read_text())["metrics"]
    assert ended.text.strip().splitlines()[-1] == "equal to result.json"
    assert f"{metrics['test/acc']:.6f}" in ended.text
    assert "test/agreement" in ended.text


def test_the_teacher_itself_can_be_evaluated(cwd):
    teacher = next((cwd / "outputs" / "teachers").glob("*/result.json")).parent
    ended = run(cwd, str(teacher), program="evaluate")
    assert ended.code == 0, ended.text


def test_another_batch_size_may_be_given(cwd):
    ended = run(cwd, "single", "data.eval_batch_size=64", program="evaluate")
    assert ended.code in (0, 1)
    assert "test/acc" in ended.text


def copied(cwd: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(cwd / "single", tmp_path / "copy"))


def one_line(cwd: Path, run_dir: Path | str, *words: str) -> str:
    ended = run(cwd, str(run_dir), *words, program="evaluate")
    assert ended.code == 2, ended.text
    assert len(ended.text.strip().splitlines()) == 1, ended.text
    assert ended.text.startswith("error: ")
    return ended.text


def test_what_cannot_be_evaluated_is_told_in_one_line(cwd, tmp_path):
    assert "holds no result.json" in one_line(cwd, "nowhere")
    copy = copied(cwd, tmp_path)
    best = copy / "checkpoints" / "best.ckpt"
    whole = best.read_bytes()
    best.write_bytes(whole[: len(whole) // 2])
    assert "best.ckpt" in one_line(cwd, copy)
    best.unlink()
    assert "best.ckpt" in one_line(cwd, copy)
    torch.save({"state_dict": torch.nn.Linear(2, 2).state_dict()}, best)
    assert "another architecture" in one_line(cwd, copy)
    best.write_bytes(whole)
    result = json.loads((copy / "result.json").read_text())
    (copy / "result.json").write_text(json.dumps({**result, "status": "diverged"}))
    assert "diverged" in one_line(cwd, copy)
    (copy / "result.json").write_text("{")
    assert "result.json" in one_line(cwd, copy)


def test_an_unknown_key_is_told_in_one_line(cwd):
    assert "eval_batchsize" in one_line(cwd, "single", "data.eval_batchsize=64")


def test_a_run_of_one_batch_is_measured_on_that_batch(cwd):
    trained = run(cwd, *SMALL, "debug=fast", "run_dir=fast", "baseline=false")
    assert trained.code == 0, trained.text
    ended = run(cwd, "fast", program="evaluate")
    assert ended.code == 0, ended.text
    assert ended.text.strip().splitlines()[-1] == "equal to result.json"


def test_figures_that_need_labels_are_equal_where_there_are_none(capsys):
    measured, stored = {"test/acc": math.nan, "test/agreement": 0.5}, {"test/acc": None, "test/agreement": 0.5}
    assert say_evaluation(measured, stored) == 0
    assert say_evaluation(measured, {"test/agreement": 0.5}) == 1
    assert say_evaluation(measured, {**stored, "test/acc": 0.9}) == 1
    assert "test/acc        nan   result.json says 0.9" in capsys.readouterr().out


def test_a_changed_weight_is_noticed(cwd, tmp_path):
    copy = copied(cwd, tmp_path)
    best = copy / "checkpoints" / "best.ckpt"
    content = torch.load(best, weights_only=True)
    content["state_dict"] = {name: value.neg() for name, value in content["state_dict"].items()}
    torch.save(content, best)
    ended = run(cwd, str(copy), program="evaluate")
    assert ended.code == 1, ended.text
    assert ended.text.strip().splitlines()[-1] == "differs from result.json"


def test_checkpoints_hold_student_and_adapters_and_never_the_teacher(cwd, tmp_path):
    words = ("student=small_cnn", "student.channels=[4,8]", "student.hidden=16", "teacher=small_cnn")
    small = [o for o in SMALL if not o.startswith(("student", "teacher.model", "teacher="))]
    ended = run(tmp_path, *small, *words, "method=fitnet", "run_dir=hint")
    assert ended.code == 0, ended.text
    student = run(cwd, "single", program="evaluate")
    assert student.code == 0
    for run_dir in (tmp_path / "hint", cwd / "single", cwd / "single" / "student_alone", cwd / "sweep" / "sp_s0"):
        parameters = json.loads((run_dir / "result.json").read_text())["student"]["parameters"]
        for name in ("best", "last"):
            state = torch.load(run_dir / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]
            prefixes = {key.split(".")[0] for key in state}
            assert prefixes == ({"student", "method"} if run_dir.name == "hint" else {"student"})
            trained = [v for k, v in state.items() if k.startswith("student.") and "running" not in k]
            assert sum(v.numel() for v in trained if v.dtype.is_floating_point) == parameters
    assert run(tmp_path, "hint", program="evaluate").code == 0


def test_errors_of_targets_in_small_units_are_shown_by_their_figures(capsys):
    say_evaluation({"test/rmse": 1.8437e-7, "test/r2": 0.25, "test/mae": 0.0}, {})
    shown = [line.split()[1] for line in capsys.readouterr().out.splitlines()[:3]]
    assert shown == ["1.8437e-07", "0.250000", "0.000000"]
