"""One file of Python and one YAML each: a loss, a task, a kind of teacher, data and an executor of one's own, seen wherever runs are shown."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kd_lightning.cli.train import main
from kd_lightning.report.pages.own_cards import own_cards
from kd_lightning.report.study.collect import collect

FILES = {
    "my_loss.py": '''
        from torch import nn


        class Gap(nn.Module):
            """Squared difference to the teacher."""

            def forward(self, student, teacher, target):
                return (student.logits - teacher.logits).square().mean()
    ''',
    "mine/method/gap.yaml": """
        _target_: kd_lightning.method.Method
        weights: {task: 0.5, gap: 0.5}
        terms: {gap: {_target_: my_loss.Gap}}
    """,
    "my_task.py": '''
        from kd_lightning.joints import Metric


        class Ripeness:
            """A number for each sample."""

            name, monitor = "ripeness", "error"
            metrics = (
                Metric("error", False, title="days off", unit="d"),
                Metric("likeness", True, share=True, title="like the teacher", of="fidelity"),
            )

            def loss(self, output, target):
                return (output.logits[:, 0] - target).square().mean()

            def evaluator(self):
                return Sums()

            def check_output(self, output, data, where): ...

            def useless(self, metrics, data):
                return None

            def picture(self, step, data, temperature):
                return None


        class Sums:
            def __init__(self):
                self.error = self.near = self.count = 0.0

            def update(self, student, teacher, batch):
                self.error += float((student.logits[:, 0] - batch.target).abs().sum())
                self.count += len(batch.target)
                if teacher is not None:
                    self.near += float(((student.logits - teacher.logits).abs() < 1).float().sum())

            def sync(self, reduce): ...

            def compute(self):
                return {"error": self.error / self.count, "likeness": self.near / self.count}
    ''',
    "mine/task/ripeness.yaml": """
        _target_: my_task.Ripeness
    """,
    "my_data.py": '''
        import torch

        from kd_lightning.data.module import DistillationDataModule


        class Fruit(DistillationDataModule):
            """Made up: brighter fruit is riper."""

            num_classes, in_channels, image_size = 1, 1, 4
            mean, std = [0.5], [0.25]

            def train_data(self):
                return self.made(96)

            def test_data(self):
                return self.made(32)

            @staticmethod
            def made(count):
                days = torch.arange(count) % 8
                pixels = (days * 30)[:, None, None, None].expand(count, 1, 4, 4)
                return pixels.to(torch.uint8).clone(), days
    ''',
    "mine/data/fruit.yaml": """
        _target_: my_data.Fruit
        batch_size: 16
        num_threads: 1
    """,
    "my_teacher.py": '''
        from kd_lightning.outputs import ModelOutput


        class Rule:
            """A formula: no network, nothing to train."""

            provides = frozenset({"logits"})
            labels_new_inputs = True

            def __init__(self, slope: float):
                self.slope = slope

            def make(self, context):
                return Answers(self.slope)


        class Answers(Rule):
            name = "rule of thumb"

            def __call__(self, batch):
                return ModelOutput(self.slope * batch.inputs.flatten(1).mean(1, keepdim=True) + 4)

            def to(self, device):
                return self

            def verify(self): ...

            def cache_parts(self):
                return {"rule": self.slope}

            def describe(self):
                return {"name": self.name, "parameters": 1}
    ''',
    "mine/teacher/rule.yaml": """
        _target_: my_teacher.Rule
        name: rule of thumb
        slope: 2.1
    """,
    "my_place.py": '''
        import pickle
        from pathlib import Path

        from kd_lightning.running.run_group import run_group


        class Elsewhere:
            """Runs travel as bytes, as they would to another machine."""

            def __init__(self, fuse: bool, diary: str):
                self.fuse, self.diary = fuse, diary

            def submit(self, groups, after=()):
                return [Sent(pickle.dumps(list(group)), self.diary) for group in groups]


        class Sent:
            def __init__(self, content, diary):
                self.content, self.diary = content, diary

            def results(self):
                specs = pickle.loads(self.content)
                with Path(self.diary).open("a") as file:
                    file.write(" ".join(spec.name for spec in specs) + "\\\\n")
                return run_group(specs)

            def cancel(self): ...
    ''',
    "my_cards.py": """
        def spread(study, of="error"):
            values = [run.metrics[f"test/{of}"] for cell in study.cells for run in cell.runs.values()]
            return {
                "title": "Spread of " + of,
                "table": [["lowest", "highest"], [f"{min(values):.2f}", f"{max(values):.2f}"]],
                "figure": {"data": [{"type": "scatter", "y": sorted(values)}]},
            }


        def broken(study):
            raise KeyError("no such figure")
    """,
    "mine/launcher/elsewhere.yaml": """
        _target_: my_place.Elsewhere
        fuse: true
        diary: diary.txt
    """,
}
TINY = (
    "--config-dir", "mine", "data=fruit", "task=ripeness", "method=gap", "teacher=rule", "student.hidden=[4]", "trainer.max_epochs=1", "trainer.accelerator=cpu",
    "log_every_n_steps=1",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    import textwrap

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).replace("\\\\n", "\\n"))
        monkeypatch.delitem(sys.modules, path.stem, raising=False)
    return tmp_path


def test_parts_of_ones_own_are_seen_in_table_report_and_tensorboard(folder, capsys):
    assert main([*TINY, "-m", "launcher=elsewhere", "seed=0,1", "sweep_dir=sweep"]) == 0
    said = capsys.readouterr().out
    assert "days off" in said
    assert "like the teacher" in said
    assert main([*TINY, "run_dir=run"]) == 0
    assert "days off" in capsys.readouterr().out

    assert (folder / "diary.txt").read_text().split() == ["student_alone_s0", "student_alone_s1", "s0", "s1"]
    result = json.loads((folder / "sweep/s0/result.json").read_text())
    assert result["cost"]["fused"] == 4
    assert result["teacher"]["name"] == "rule of thumb"
    assert {"test/error", "test/likeness", "best/val_error"} <= set(result["metrics"])

    report = (folder / "sweep/report.html").read_text()
    assert "days off" in report
    assert "rule of thumb" in report
    tags = EventAccumulator(str(folder / "sweep/s0")).Reload().Tags()["scalars"]
    assert {"train/loss_gap", "val/error", "val/likeness"} <= set(tags)


def test_a_card_of_ones_own_is_a_function_and_a_line(folder, capsys):
    card = "+report.cards.spread={_target_: my_cards.spread, of: error}"
    broken = "+report.cards.broken._target_=my_cards.broken"
    assert main([*TINY, "-m", "seed=0,1", "baseline=false", "sweep_dir=sweep", card, broken]) == 0
    found = [
        json.loads((folder / f"sweep/s{seed}/result.json").read_text())["metrics"]["test/error"] for seed in (0, 1)
    ]
    cards = {card["title"]: card for card in own_cards(collect(folder / "sweep")[0])}
    shown = cards["Spread of error"]
    assert shown["table"][1] == [f"{min(found):.2f}", f"{max(found):.2f}"]
    assert shown["figure"]["data"][0]["y"] == sorted(found)
    report = (folder / "sweep/report.html").read_text()
    assert '"title":"Spread of error"' in report
    assert "report.cards.broken (my_cards.broken) failed: KeyError: 'no such figure'" in report

    assert main([*TINY, "run_dir=run", "+report.cards.x._target_=my_cards.nothing"]) == 2
    assert "report.cards.x._target_: my_cards has no 'nothing'" in capsys.readouterr().err


def test_where_a_run_is_computed_changes_no_figure(folder):
    assert main([*TINY, "launcher=elsewhere", "run_dir=there", "baseline=false"]) == 0
    assert main([*TINY, "launcher=fused", "run_dir=here", "baseline=false"]) == 0
    there, here = (json.loads((folder / name / "result.json").read_text()) for name in ("there", "here"))
    assert there["metrics"] == here["metrics"]
    assert there["fingerprint"] == here["fingerprint"]
