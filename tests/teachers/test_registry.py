"""A teacher is trained once, whoever starts when; and one that no student should learn from is told of loudly."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from processes import SMALL, lines, run, start, weights

RUN = (*SMALL, "baseline=false", "trainer.max_epochs=1")
LONG = ("teacher.train.max_epochs=30",)

pytestmark = pytest.mark.slow


def teachers(cwd: Path) -> list[Path]:
    return [path.parent for path in (cwd / "outputs" / "teachers").glob("*/checkpoints")]


def epochs(teacher: Path) -> list[int]:
    return [line["epoch"] for line in lines(teacher) if "val/acc" in line]


def test_two_processes_that_start_together_train_it_once_and_learn_the_same(tmp_path):
    first = start(tmp_path, *RUN, *LONG, "run_dir=a")
    second = start(tmp_path, *RUN, *LONG, "run_dir=b")
    texts = [first.wait().text, second.wait().text]
    assert sum("training the teacher" in text for text in texts) == 1, texts
    assert sum("found in" in text for text in texts) == 1
    assert any("is being trained by another process: waiting for it" in text for text in texts)
    (teacher,) = teachers(tmp_path)
    assert epochs(teacher) == list(range(30))
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


def test_a_killed_holder_does_not_block_the_next_which_continues_its_training(tmp_path):
    undisturbed = run(tmp_path / "undisturbed", *RUN, *LONG, "run_dir=a")
    assert undisturbed.code == 0, undisturbed.text
    cwd = tmp_path / "killed"
    holder = start(cwd, *RUN, *LONG, "run_dir=a")
    holder.wait_for(lambda: "epoch 5/30" in holder.text)
    holder.kill(signal.SIGSTOP)  # it would be done before the other is there
    waiting = start(cwd, *RUN, *LONG, "run_dir=b")
    waiting.wait_for(lambda: "waiting for it" in waiting.text)
    holder.kill(signal.SIGKILL)
    ended = waiting.wait()
    assert ended.code == 0, ended.text
    assert "continues after step" in ended.text
    (teacher,) = teachers(cwd)
    assert epochs(teacher) == list(range(30))
    assert weights(teacher) == weights(teachers(tmp_path / "undisturbed")[0])


def test_ctrl_c_while_the_teacher_trains_keeps_its_state(tmp_path):
    command = start(tmp_path, *RUN, *LONG, "run_dir=a")
    command.wait_for(lambda: "epoch 3/30" in command.text)
    command.kill(signal.SIGINT)
    ended = command.wait()
    assert ended.code == 130, ended.text
    assert "continue with the same command and run_dir=a" in ended.text
    again = run(tmp_path, *RUN, *LONG, "run_dir=a")
    assert again.code == 0, again.text
    assert "continues after step" in again.text
    assert epochs(teachers(tmp_path)[0]) == list(range(30))


def test_a_teacher_no_better_than_chance_is_warned_of_with_what_to_check(tmp_path):
    ended = run(tmp_path, *RUN, "teacher.train.optimizer.lr=1e-9", "teacher.train.scheduler=null", "run_dir=a")
    assert ended.code == 0, ended.text
    warnings = [line for line in ended.text.splitlines() if "WARNING" in line]
    (warning,) = [line for line in warnings if "no better than chance" in line]
    assert all("nearly uniform" in line for line in warnings if line != warning)  # an untrained network's answers are
    for word in ("checkpoint", "teacher.normalization", "classes"):
        assert word in warning


def test_a_teacher_worse_than_the_student_alone_is_warned_of(tmp_path):
    ended = run(tmp_path, *SMALL, "trainer.max_epochs=8", "teacher.train.max_epochs=1", "run_dir=a")
    assert ended.code == 0, ended.text
    (warning,) = [line for line in ended.text.splitlines() if "WARNING" in line]
    assert "the student alone" in warning
    assert "teacher.train.max_epochs" in warning


class Payload:
    """What a malicious pickle would run."""

    def __reduce__(self):
        return Path.touch, (Path("executed"),)


def bad_checkpoint(kind: str, path: Path) -> None:
    if kind == "text":
        path.write_text("not a checkpoint")
    elif kind == "empty":
        path.touch()
    elif kind == "pickle":
        torch.save({"state_dict": Payload()}, path)
    elif kind == "tensor":
        torch.save(torch.zeros(3), path)
    elif kind == "model":
        torch.save(torch.nn.Linear(2, 2), path)
    elif kind == "architecture":
        torch.save(torch.nn.Linear(7, 3).state_dict(), path)
    elif kind == "width":
        torch.save(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).state_dict(), path)
    elif kind == "truncated":
        torch.save(torch.nn.Linear(64, 10).state_dict(), path)
        path.write_bytes(path.read_bytes()[:-200])


KINDS = ("absent", "text", "empty", "pickle", "tensor", "model", "architecture", "width", "truncated")


@pytest.mark.parametrize(("kind", "baseline"), [*((kind, "false") for kind in KINDS), ("width", "true")])
def test_a_checkpoint_that_cannot_be_used_is_one_line_and_nothing_in_it_runs(tmp_path, kind, baseline):
    bad_checkpoint(kind, tmp_path / "teacher.ckpt")
    words = [o for o in RUN if not o.startswith("baseline")]
    ended = run(tmp_path, *words, f"baseline={baseline}", "teacher.checkpoint=teacher.ckpt", "run_dir=a")
    assert ended.code == 2, ended.text
    assert len(ended.text.strip().splitlines()) == 1, ended.text
    assert "teacher.checkpoint" in ended.text
    assert "teacher.ckpt" in ended.text
    assert not (tmp_path / "executed").exists()


def test_a_checkpoint_of_our_own_and_a_bare_state_dict_serve_as_teacher(tmp_path):
    assert run(tmp_path, *RUN, "run_dir=a").code == 0
    own = next((tmp_path / "outputs" / "teachers").glob("*/checkpoints/best.ckpt"))
    state = torch.load(own, weights_only=True)["state_dict"]
    bare = {name.removeprefix("student."): value for name, value in state.items() if name.startswith("student.")}
    torch.save(bare, tmp_path / "bare.pt")
    torch.save({"state_dict": {f"module.{name}": value for name, value in bare.items()}}, tmp_path / "parallel.pt")
    for name, path in (("b", own), ("c", "bare.pt"), ("d", "parallel.pt")):
        ended = run(tmp_path, *RUN, f"teacher.checkpoint='{path}'", f"run_dir={name}")
        assert ended.code == 0, ended.text
        assert weights(tmp_path / name) == weights(tmp_path / "a")


@pytest.mark.parametrize("which", ["student", "teacher"])
def test_different_numbers_of_classes_are_one_line(tmp_path, which):
    key = "student.num_classes=7" if which == "student" else "teacher.model.num_classes=7"
    for baseline in ("true", "false"):
        words = [o for o in RUN if not o.startswith("baseline")]
        ended = run(tmp_path, *words, f"baseline={baseline}", key, f"run_dir={which}-{baseline}")
        assert ended.code == 2, ended.text
        assert "Traceback" not in ended.text
        (line,) = [line for line in ended.text.splitlines() if line.startswith("error:")]
        assert "7" in line
        assert "10" in line
        assert "classes" in line


def test_a_teacher_whose_training_fails_is_named(tmp_path):
    ended = run(tmp_path, *RUN, "teacher.train.optimizer.lr=1e30", "teacher.train.scheduler=null", "run_dir=a")
    assert ended.code in (1, 2), ended.text
    assert "Traceback" not in ended.text
    assert "teacher mlp: its training diverged" in ended.text.strip().splitlines()[-1]
    result = json.loads(next((tmp_path / "outputs" / "teachers").glob("*/result.json")).read_text())
    assert result["status"] == "diverged"
    assert run(tmp_path, *RUN, "run_dir=a").code == 0  # another teacher: the directory holds nothing yet


def test_what_is_wrong_with_the_teachers_own_data_is_said_of_teacher_data(tmp_path):
    ended = run(tmp_path, *RUN, "+teacher.data.augment={scale: [0.5, 1.0]}", "run_dir=a")
    assert ended.code == 2, ended.text
    assert ended.text.splitlines()[-1].startswith("error: teacher.data: data.augment has no key 'scale'")


def test_a_directory_for_teachers_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "teachers").symlink_to("a_share_that_is_not_mounted")
    ended = run(tmp_path, *RUN, "paths.teacher_dir=teachers", "run_dir=a")
    assert ended.code == 2, ended.text
    assert "Traceback" not in ended.text
    assert "paths.teacher_dir=teachers: cannot be written (" in ended.text.strip().splitlines()[-1]
