"""Kinds of teachers from configuration to result: shipped ones, one of a user's own, teachers within teachers."""

from __future__ import annotations

import importlib
import json
import os
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from teacher_runs import RECIPE, TINY, plain, refused, teacher_yaml, train

from kd_lightning.cli.evaluate import main as evaluate
from kd_lightning.cli.train import main
from kd_lightning.models.mlp import MLP
from kd_lightning.runs.hparams import hyperparameters

NET = "{_target_: kd_lightning.models.mlp.MLP, hidden: [8]}"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


TABLE = """
    import torch
    from kd_lightning.outputs import ModelOutput

    class Answers:
        provides = frozenset({"logits"})
        labels_new_inputs = True

        def __init__(self, table, name):
            self.table, self.name = table, name

        def __call__(self, batch):
            return ModelOutput(self.table[batch.index.cpu() % len(self.table)].to(batch.index.device))

        def to(self, device):
            return self

        def verify(self):
            pass

        def cache_parts(self):
            return {"table": self.table.tolist()}

        def describe(self):
            return {"name": self.name, "parameters": None, "bytes": None}

    class Table:
        provides = Answers.provides
        labels_new_inputs = True

        def __init__(self, file: str, sharpness: float = 1.0):
            self.file, self.sharpness = file, sharpness

        def make(self, context):
            return Answers(torch.load(self.file).clamp_min(1e-9).log() * self.sharpness, context.name)
"""


@pytest.fixture
def table(folder):
    (folder / "tables.py").write_text(textwrap.dedent(TABLE))
    torch.save(torch.rand(7, 10).softmax(1), folder / "table.pt")
    teacher_yaml(folder, "table", "_target_: tables.Table\nname: looked_up\nfile: table.pt\n")
    return folder


def test_a_kind_of_ones_own_is_a_python_file_and_a_yaml(table):
    result = train("teacher=table")
    assert result["teacher"]["name"] == "looked_up"
    assert "test/acc" in result["teacher"]
    assert {"test/agreement", "test/kl_teacher"} <= set(result["metrics"])


def test_its_arguments_are_checked_by_its_signature(table, capfd):
    error = refused(capfd, "teacher=table", "+teacher.sharpnes=2")
    assert "teacher.sharpnes: tables.Table has no such argument; did you mean 'sharpness'?" in error
    assert "a number" in refused(capfd, "teacher=table", "+teacher.sharpness=much")
    assert not Path("run").exists()


def test_its_file_decides_the_result_by_its_content_and_its_name_does_not(table):
    first = train("teacher=table")["fingerprint"]
    Path("copy.pt").write_bytes(Path("table.pt").read_bytes())
    assert train("teacher=table", "teacher.file=copy.pt", "teacher.name=x")["fingerprint"] == first
    torch.save(torch.rand(7, 10), "table.pt")
    assert main(["--config-dir", "mine", *TINY, "teacher=table"]) == 2  # the directory holds another run


def test_a_method_that_reads_what_the_teacher_does_not_provide_is_one_line_before_data_are_read(table, capfd):
    hints = ("method=fitnet", "method.taps.teacher.hint=0", "method.taps.student.hint=hidden.0")
    error = refused(capfd, "teacher=table", *hints)
    assert "looked_up provides logits, the method reads its features" in error
    assert not Path("run").exists()


def test_no_teacher_at_all_is_told_before_data_are_read(folder, capfd):
    teacher_yaml(folder, "nobody", "defaults: [none]\n")
    assert "use method=none, or choose a teacher" in refused(capfd, "teacher=nobody")


@pytest.mark.parametrize("combine", ["logits", "probabilities", "draw"])
def test_the_shipped_ensemble_trains_each_member_once_and_teaches(folder, combine):
    (folder / "mine").mkdir()
    members = [f"teacher.members.{m}.train.max_epochs=1" for m in "ab"]
    small = [f"teacher.members.{m}.model.channels=[4]" for m in "ab"]
    result = train("teacher=ensemble", f"teacher.combine={combine}", *members, *small)
    assert len(list(Path("outputs/teachers").glob("small_cnn-*/result.json"))) == 2
    described = result["teacher"]["members"]
    assert result["teacher"]["parameters"] == 2 * described["a"]["parameters"]
    assert described["a"]["fingerprint"] != described["b"]["fingerprint"]
    log = Path("run/kd-train.log").read_text()
    assert all(f"the teacher small_cnn (members.{member})" in log for member in "ab")


def test_members_of_an_ensemble_are_trained_or_loaded_each_by_its_own_yaml(folder):
    plain(folder)
    train("teacher=net")
    (best,) = Path("outputs/teachers").glob("net-*/checkpoints/best.ckpt")
    teacher_yaml(
        folder,
        "both",
        f"""
        defaults: [/teacher@members.old: net, /teacher@members.new: net, _self_]
        _target_: kd_lightning.teachers.ensemble.EnsembleTeacher
        members: {{old: {{checkpoint: {best}}}, new: {{train: {{seed: 3}}}}}}
        features: new
        """,
    )
    taps = ("method=fitnet", "method.taps.teacher.hint=hidden.0", "method.taps.student.hint=hidden.0")
    assert main(["--config-dir", "mine", *TINY, "teacher=both", *taps, "run_dir=second"]) == 0
    members = json.loads(Path("second/result.json").read_text())["teacher"]["members"]
    assert members["old"]["checkpoint"] == str(best)
    assert members["new"]["run_dir"] is not None
    assert len(list(Path("outputs/teachers").glob("net-*/result.json"))) == 2


def test_an_assistant_is_distilled_from_its_teacher_and_each_stage_is_trained_once(folder):
    (folder / "mine").mkdir()
    stages = ("teacher.train.max_epochs=1", "teacher.train.teacher.train.max_epochs=1", "teacher.model.hidden=[8]")
    train("teacher=assistant", *stages)
    stored = {path.parent.name.split("-")[0]: path for path in Path("outputs/teachers").glob("*/result.json")}
    assert set(stored) == {"assistant", "small_cnn"}
    assistant = json.loads(stored["assistant"].read_text())
    assert assistant["teacher"]["name"] == "small_cnn"
    assert assistant["metrics"]["test/agreement"] >= 0
    written = {name: path.stat().st_mtime_ns for name, path in stored.items()}
    assert main(["--config-dir", "mine", *TINY, "teacher=assistant", *stages, "run_dir=next", "seed=1"]) == 0
    assert {name: path.stat().st_mtime_ns for name, path in stored.items()} == written
    cold = [*stages, "teacher.train.method.temperature=1", "run_dir=cold"]
    assert main(["--config-dir", "mine", *TINY, "teacher=assistant", *cold]) == 0
    assert len(list(Path("outputs/teachers").glob("assistant-*/result.json"))) == 2
    assert len(list(Path("outputs/teachers").glob("small_cnn-*/result.json"))) == 1


def test_the_students_temperature_is_not_its_assistants(folder):
    (folder / "mine").mkdir()
    stages = ("teacher.train.max_epochs=1", "teacher.train.teacher.train.max_epochs=1", "teacher.model.hidden=[8]")
    for temperature in (1, 8):
        words = [*stages, f"method.temperature={temperature}", f"run_dir=t{temperature}"]
        assert main(["--config-dir", "mine", *TINY, "teacher=assistant", *words]) == 0
    assert len(list(Path("outputs/teachers").glob("assistant-*/result.json"))) == 1


def test_a_recipe_with_a_teacher_and_no_method_is_one_line(folder, capfd):
    plain(folder, train=f"{{{RECIPE}, teacher: {{model: {NET}, train: null}}}}")
    assert "teacher.train.method: is missing" in refused(capfd, "teacher=net")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("teacher.train.max_epochs=0", "teacher.train.max_epochs: must be >= 1"),
        ("+teacher.train.epochs=3", "teacher.train.epochs: no such key"),
        ("teacher.precision=fp8", "teacher.precision: must be one of 32, bf16, fp16"),
        ("teacher.checkpoint=gone.ckpt", "teacher.checkpoint: no such file"),
        ("teacher.init=gone.ckpt", "teacher.init: no such file"),
        ("teacher.data.batchsize=3", "teacher.data.batchsize: "),
        ("teacher.classes=[3,-1]", "teacher.classes"),
        ("teacher.cache_precision=4bit", "teacher.cache_precision: must be one of fp16, bf16, fp32, 6bit, scores"),
        (
            "teacher.cache_top_k=3",
            "teacher.cache_top_k: 3 of the logits do not do for method.terms.kd, which softens them with a temperature of 4",
        ),
    ],
)
def test_what_cannot_be_meant_of_a_teacher_is_one_line_that_names_the_key(folder, capfd, key, words):
    plain(folder)
    assert words in refused(capfd, "teacher=net", key)
    assert not Path("run").exists()


def test_a_key_of_the_teachers_data_needs_no_plus(folder):
    plain(folder)
    train("teacher=net", "teacher.data.train_size=150")
    (own,) = Path("outputs/teachers").glob("net-*/result.json")
    assert json.loads(own.read_text())["config"]["data"]["train_size"] == 150


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_teacher_in_half_precision_teaches(folder, precision):
    plain(folder)
    assert train("teacher=net", f"teacher.precision={precision}")["status"] == "finished"


def test_six_bits_are_refused_for_what_is_no_softmax_before_anything_is_trained(folder, capfd):
    plain(folder)
    assert "teacher.cache_top_k: 6bit keeps what it needs" in refused(
        capfd, "teacher=net", "teacher.cache_precision=6bit", "teacher.cache_top_k=3", "method.temperature=1"
    )
    assert "teacher.cache_precision=scores is for 134 classes or more" in refused(
        capfd, "teacher=net", "teacher.cache_precision=scores"
    )
    assert not Path("outputs/teachers").exists()
    words = ("task=regression", "method=mse", "teacher.cache_precision=6bit")
    assert "teacher.cache_precision: 6bit is for logits of classes, this teacher's answers are values" in refused(
        capfd, "teacher=net", *words
    )


def test_top_k_stored_logits_do_at_temperature_one_or_without_a_cache(folder, capfd):
    plain(folder)
    train("teacher=net", "teacher.cache_top_k=3", "method.temperature=1")
    warming = "method.temperature={_target_:kd_lightning.schedules.Ramp,start:1,to:4}"
    assert "method.terms.kd, which softens them with a temperature of 4" in refused(
        capfd, "teacher=net", "teacher.cache_top_k=3", warming
    )
    said = refused(capfd, "teacher=net", "teacher.cache_top_k=3", "method=logits_mse")
    assert "method.terms.logits_mse, which looks at all of them as they are" in said
    words = ("teacher=net", "teacher.cache_top_k=3", "teacher.cache=off", "run_dir=b")
    assert main(["--config-dir", "mine", *TINY, *words]) == 0


def test_training_starts_from_a_file_and_a_head_for_other_classes_starts_anew(folder):
    plain(folder)
    names = MLP(in_features=64, num_classes=10, hidden=[8]).state_dict()
    body = next(name for name in names if names[name].shape == (8, 64))
    head = next(name for name in names if names[name].shape == (10, 8))
    state = {body: torch.full((8, 64), 0.5), head: torch.ones(1000, 8)}
    torch.save(state, "start.pt")
    words = ("teacher=net", "teacher.init=start.pt", "teacher.train.optimizer.lr=1e-12", "run_dir=from_file")
    assert main(["--config-dir", "mine", *TINY, *words]) == 0
    found = json.loads(Path("from_file/result.json").read_text())["teacher"]["run_dir"]
    weights = torch.load(Path(found) / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert torch.allclose(weights[f"student.{body}"], state[body], atol=1e-6)
    assert weights[f"student.{head}"].shape == (10, 8)


def test_a_teacher_at_another_input_size_is_trained_and_asked_at_it(folder):
    teacher_yaml(
        folder,
        "large",
        f"""
        defaults: [none]
        name: large
        model: {{_target_: kd_lightning.models.mlp.MLP, hidden: [8]}}
        image_size: 12
        train: {{{RECIPE}}}
        """,
    )
    result = train("teacher=large")
    assert result["teacher"]["parameters"] == (144 * 8 + 8) + (8 * 10 + 10)
    assert main(["--config-dir", "mine", *TINY, "teacher=large", "seed=1", "run_dir=b"]) == 0


STORED = """
    import torch
    from kd_lightning.outputs import ModelOutput

    class Stored:
        provides = frozenset({"logits"})
        labels_new_inputs = False
        name = "stored"

        def __init__(self, rows: int = 2000):
            self.rows = rows

        def make(self, context):
            self.table = torch.randn(self.rows, 10, generator=torch.Generator().manual_seed(0))
            return self

        def __call__(self, batch):
            assert batch.split == "train"
            return ModelOutput(self.table[batch.index.cpu()].to(batch.index.device))

        def to(self, device):
            return self

        def verify(self):
            pass

        def cache_parts(self):
            return {"rows": self.rows}

        def describe(self):
            return {"name": self.name, "parameters": None, "bytes": None}
"""


def test_a_teacher_that_knows_its_training_samples_only_is_never_asked_about_others(folder):
    (folder / "stored_rows.py").write_text(textwrap.dedent(STORED))
    teacher_yaml(folder, "stored", "_target_: stored_rows.Stored\n")
    result = train("teacher=stored")
    assert result["status"] == "finished"
    assert "test/agreement" not in result["metrics"]
    assert "cache" not in result["teacher"]


def test_stored_logits_are_a_setting_that_hparams_show():
    config = {"seed": 0, "teacher": {"_target_": "x.Y", "name": "n", "cache": "auto", "cache_top_k": 5}}
    shown = hyperparameters(config)
    assert shown["teacher.cache_top_k"] == 5
    assert not {"teacher.cache", "teacher.name"} & set(shown)


def test_a_result_is_measured_again_from_its_directory_whatever_teacher_it_had(folder):
    (folder / "mine").mkdir()
    members = [f"teacher.members.{m}.{key}" for m in "ab" for key in ("train.max_epochs=1", "model.channels=[4]")]
    train("teacher=ensemble", *members)
    Path("outputs/teachers").rename("elsewhere")
    assert evaluate(["run"]) != 0
    Path("elsewhere").rename("outputs/teachers")
    assert evaluate(["run"]) == 0


def test_a_plan_names_every_teacher_that_would_be_trained(folder, capsys):
    (folder / "mine").mkdir()
    assert main(["--config-dir", "mine", *TINY, "teacher=ensemble", "dry_run=true"]) == 0
    assert capsys.readouterr().out.count("teacher small_cnn-") == 2
    assert not Path("run").exists()


def test_a_teacher_whose_code_was_edited_is_trained_again_and_a_comment_changes_nothing(folder):
    code = "from torch import nn\n\n\ndef net(in_features, num_classes):\n    return nn.Sequential(nn.Flatten(), {})\n"
    layers = "nn.Linear(in_features, 8), nn.{}(), nn.Linear(8, num_classes)"
    teacher_yaml(
        folder, "edited", f"defaults: [none]\nname: edited\nmodel: {{_target_: edited_net.net}}\ntrain: {{{RECIPE}}}\n"
    )
    for number, (activation, comment) in enumerate((("ReLU", ""), ("ReLU", "# tried\n"), ("Tanh", ""))):
        (folder / "edited_net.py").write_text(comment + code.format(layers.format(activation)))
        os.utime(folder / "edited_net.py", ns=(number, number))
        sys.modules.pop("edited_net", None)
        importlib.invalidate_caches()
        assert main(["--config-dir", "mine", *TINY, "teacher=edited", f"run_dir=r{number}"]) == 0
        trained = len(list(Path("outputs/teachers").glob("edited-*/result.json")))
        assert trained == (1 if activation == "ReLU" else 2)
