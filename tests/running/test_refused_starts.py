"""A start that is refused writes nothing: no directory, no .hydra, no sweep.json, whatever started it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from kd_lightning.cli.train import main
from kd_lightning.running.evaluate import evaluate_run
from kd_lightning.runs.directory import held

pytestmark = pytest.mark.slow  # all of them together

TINY = (
    "data.num_threads=1", "data.train_size=64", "data.labelled=null", "data.batch_size=32", "trainer.accelerator=cpu",
    "trainer.max_epochs=1", "teacher=mlp", "teacher.model.hidden=[8]", "teacher.train.max_epochs=1",
    "student.hidden=[8]", "pictures.every_n_epochs=0", "baseline=false",
)  # fmt: skip
MISTAKE = ("data=image_folder", "data.root=nowhere", "teacher=mlp", "trainer.accelerator=cpu")
HOW = {"single": (), "fused": ("-m", "seed=0,1"), "local": ("-m", "launcher=local", "seed=0,1")}


def content(folder: Path) -> dict:
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


@pytest.mark.parametrize("how", list(HOW))
def test_a_start_that_is_refused_leaves_no_directory(how, folder, capsys):
    where = "run_dir=new/run" if how == "single" else "sweep_dir=new/sweep"
    assert main([*HOW[how], *MISTAKE, where]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert not list(folder.iterdir())


@pytest.mark.parametrize("how", list(HOW))
def test_a_directory_that_another_process_holds_is_left_untouched(how, folder, capsys):
    where = "run" if how == "single" else "sweep"
    argv = [*HOW[how], *TINY, f"{where}_dir={where}"]
    assert main(argv) == 0
    before = content(folder)
    with held(folder / where):
        before[folder / where / ".lock"] = b""
        assert main([*argv, "method.temperature=8"]) == 2
    assert content(folder) == before
    says = "holds a run with another configuration" if how == "single" else "another process is writing"
    assert says in capsys.readouterr().err.splitlines()[-1]


def test_a_run_that_has_not_written_anything_yet_is_held_too(folder, capsys):
    with held(folder / "run"):
        assert main([*TINY, "run_dir=run"]) == 2
        assert [path.name for path in folder.iterdir()] == ["run"]
        assert [path.name for path in (folder / "run").iterdir()] == [".lock"]
    assert capsys.readouterr().err.strip().endswith("run: another process is writing into this directory")


def test_a_second_start_names_the_run_and_not_the_student_alone_within_it(folder, capsys):
    own = [word for word in TINY if word != "baseline=false"]
    with held(folder / "run"), held(folder / "run/student_alone"):
        assert main([*own, "run_dir=run"]) == 2
    assert capsys.readouterr().err.strip().endswith("/run: another process is writing into this directory")


@pytest.mark.parametrize("kind", ["gpu", "tpu"])
def test_an_accelerator_that_is_not_here_is_told_before_data_are_read(kind, folder, capsys, monkeypatch):
    for name in ("CUDAAccelerator", "MPSAccelerator"):
        monkeypatch.setattr(f"pytorch_lightning.accelerators.{name}.is_available", staticmethod(lambda: False))
    assert main([*MISTAKE, f"trainer.accelerator={kind}", "run_dir=run"]) == 2
    assert f"trainer.accelerator={kind}: this machine has none; it has cpu" in capsys.readouterr().err
    assert not list(folder.iterdir())


@pytest.mark.parametrize(("devices", "problem"), [("2", "=2"), ("[0,2]", "=[0, 2]")])
def test_more_gpus_than_there_are_are_told_before_a_teacher_is_trained(devices, problem, folder, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    words = [word for word in MISTAKE if not word.startswith("trainer.accelerator")]
    assert main([*words, f"trainer.devices={devices}", "run_dir=run"]) == 2
    assert f"trainer.devices{problem}: this machine has 1 GPU, and each" in capsys.readouterr().err
    assert not list(folder.iterdir())


def test_a_last_checkpoint_that_is_cut_off_says_what_to_do(folder, capsys):
    (folder / "run/checkpoints").mkdir(parents=True)
    (folder / "run/checkpoints/last.ckpt").write_bytes(b"PK\x03\x04 cut")
    assert main([*TINY, "run_dir=run"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "checkpoints/last.ckpt: not a readable checkpoint" in line
    assert "delete it, and the run starts anew" in line


def test_a_run_of_a_sweep_that_another_process_holds_fails_by_itself_and_is_left_untouched(folder, capsys):
    with held(folder / "sweep/s0"):
        (folder / "sweep/s0/.hydra").mkdir()
        assert main(["-m", "seed=0,1", *TINY, "sweep_dir=sweep"]) == 1
        assert sorted(path.name for path in (folder / "sweep/s0").iterdir()) == [".hydra", ".lock"]
    assert json.loads((folder / "sweep/s1/result.json").read_text())["status"] == "finished"


def test_another_configuration_in_the_same_directory_is_refused_and_its_files_stay(folder, capsys):
    assert main([*TINY, "run_dir=run"]) == 0
    before = content(folder)
    assert main([*TINY, "run_dir=run", "method.temperature=8"]) == 2
    assert "holds a run with another configuration" in capsys.readouterr().err
    assert content(folder) == before


def test_a_refused_start_leaves_the_sweep_that_is_there_as_it_was(folder, capsys):
    assert main(["-m", *TINY, "seed=0,1", "sweep_dir=sweep"]) == 0
    before = content(folder)
    assert main(["-m", *MISTAKE, "seed=2,3", "sweep_dir=sweep"]) == 2
    assert content(folder) == before


def test_a_run_has_its_configuration_and_its_log_in_its_directory(folder):
    assert main([*TINY, "run_dir=run", "seed=3", "note='first #odd'"]) == 0
    assert (folder / "run/notes.txt").read_text() == "first #odd\n"
    assert main([*TINY, "run_dir=run", "seed=3", "note=second"]) == 0
    assert (folder / "run/notes.txt").read_text() == "first #odd\nsecond\n"
    assert {"config.yaml", "overrides.yaml", "hydra.yaml"} == {p.name for p in (folder / "run/.hydra").iterdir()}
    assert "seed: 3" in (folder / "run/.hydra/config.yaml").read_text()
    assert "training the teacher" in (folder / "run/kd-train.log").read_text()


def test_runs_one_after_the_other_are_a_sweep_like_any_other(folder):
    assert main(["-m", *TINY, "seed=0,1", "launcher=local", "sweep_dir=sweep"]) == 0
    expected = json.loads((folder / "sweep/sweep.json").read_text())["runs"]
    assert [run["name"] for run in expected] == ["s0", "s1"]
    assert (folder / "sweep/s1/.hydra/config.yaml").is_file()


def test_sweeps_that_start_in_the_same_second_have_directories_of_their_own(folder):
    (folder / "my_place.py").write_text(
        "from kd_lightning.running.missing_result import without_result\n"
        "class Nowhere:\n"
        "    fuse = True\n"
        "    def submit(self, groups, after=()):\n"
        "        return [Handle(group) for group in groups]\n"
        "class Handle:\n"
        "    def __init__(self, specs):\n"
        "        self.specs = specs\n"
        "    def results(self):\n"
        "        return (without_result(spec, 'finished') for spec in self.specs)\n"
        "    def cancel(self): pass\n"
    )
    (folder / "mine/launcher").mkdir(parents=True)
    (folder / "mine/launcher/nowhere.yaml").write_text("_target_: my_place.Nowhere\n")
    for _ in range(5):
        assert main(["--config-dir", "mine", "-m", "seed=0,1", "launcher=nowhere", "baseline=false"]) == 0
    assert len(list((folder / "outputs/digits").iterdir())) == 5


@pytest.mark.parametrize("mistake", ["method=ab", "optimizer=deepkd"])
def test_no_student_alone_is_trained_for_a_run_that_cannot_go(mistake, folder, capsys):
    own = [word for word in TINY if word != "baseline=false"]
    assert main([*own, mistake, "run_dir=run"]) == 2
    assert ": method." in capsys.readouterr().err
    assert not list(folder.iterdir())


def test_a_sweep_of_runs_that_cannot_go_is_refused_before_the_student_alone(folder, capsys):
    own = [word for word in TINY if word != "baseline=false"]
    assert main(["-m", *own, "method=ab,rkd", "preset=authors", "sweep_dir=sweep"]) == 2
    assert not list(folder.iterdir())


def test_a_table_that_was_edited_is_named_by_a_second_start_and_by_its_evaluation(folder, capsys):
    table = folder / "ab.csv"
    rows = [f"{k % 7},{k * k % 11},{'xy'[k % 2]}" for k in range(60)]
    table.write_text("\n".join(["a,b,kind", *rows]))
    words = ["data=table", "data.file=ab.csv", "data.target=kind", "student=mlp", "teacher=none", "method=none"]
    words += [
        "baseline=false",
        "trainer.max_epochs=1",
        "pictures.every_n_epochs=0",
        "run_dir=run",
        "data.batch_size=16",
    ]
    assert main(words) == 0
    table.write_text("\n".join(["a,b,kind", *(row.replace("x", "z") for row in rows[30:]), *rows[:30]]))
    capsys.readouterr()
    assert main(words) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "run: what its run read has changed since (data.file=ab.csv); choose another directory" in line
    table.write_text("\n".join(["a,b,kind", *(row[:-1] + "yx"["xy".index(row[-1])] for row in rows)]))
    measured, stored, *_ = evaluate_run(Path("run"))
    assert measured != stored
    assert (
        "what the run read has changed since (data.file=ab.csv): these are figures of other data"
        in capsys.readouterr().out
    )
