"""How the commands start: quickly, with the user's folder in reach, with exit codes that scripts can rely on."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest
from hydra.core.hydra_config import HydraConfig

from kd_lightning.cli._hydra_main import run_hydra
from kd_lightning.cli.train import check_job
from kd_lightning.errors import RunInterrupted, RunsFailed, UserError

ONE_BY_ONE = "hydra/launcher=basic"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    return tmp_path


def python(code: str, cwd, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, check=True
    )


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--help"], "kd-train -m method.temperature=1,4"),
        (["--cfg", "job"], "temperature: 4.0"),
        (["-sc", "query=bash"], "method.temperature="),
        (["-sc", "install=bash"], "hydra_bash_completion"),
    ],
)
def test_a_question_is_answered_at_once_without_torch(argv, says, tmp_path):
    code = (
        f"import sys; from kd_lightning.cli.train import main; code = main({argv!r})\n"
        "heavy = {'torch', 'pytorch_lightning', 'sklearn', 'tensorboard'} & set(sys.modules)\n"
        "assert code == 0 and not heavy, (code, heavy)"
    )
    seconds = []
    for _ in range(3):  # the machine may be busy: the processor's time counts, and the quickest of three
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        answer = python(code, tmp_path, COMP_LINE="kd-train method.", COMP_POINT="16")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert says in answer.stdout
    assert min(seconds) < 2, seconds  # well under a second on an idle machine; torch alone would be three
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("raised", "code", "says"),
    [
        (None, 0, ""),
        (UserError("data.root: no such directory\nat all"), 2, "error: data.root: no such directory; at all\n"),
        (RunsFailed("1 of 3 runs failed"), 1, "error: 1 of 3 runs failed\n"),
        (RunInterrupted("continue with run_dir=x"), 130, "continue with run_dir=x\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (OSError(28, "No space left on device", "x/last.ckpt"), 2, "error: x/last.ckpt: No space left on device: "),
    ],
)
def test_what_ends_a_run_decides_the_exit_code(raised, code, says, folder, capsys):
    def work(cfg):
        if raised is not None:
            raise raised

    assert run_hydra(work, "train", ["run_dir=run"]) == code
    assert capsys.readouterr().err.startswith(says)


def test_a_bug_shows_its_traceback_and_exit_code_1(folder, capsys):
    assert run_hydra(lambda cfg: 1 / 0, "train", ["run_dir=run"]) == 1
    error = capsys.readouterr().err
    assert "Traceback (most recent call last)" in error
    assert error.rstrip().endswith("ZeroDivisionError: division by zero")


def test_a_sweep_directory_that_cannot_be_made_is_one_line(folder, capsys):
    (folder / "file").write_text("")
    assert run_hydra(lambda cfg: None, "train", ["-m", "seed=0,1", ONE_BY_ONE, "sweep_dir=file/sweep"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert "Not a directory" in lines[0]


def test_a_single_job_leaves_no_file_that_its_task_did_not_write(folder, capsys):
    import logging

    assert run_hydra(lambda cfg: logging.getLogger("kd").info("hello"), "train", ["run_dir=run", "seed=3"]) == 0
    assert capsys.readouterr().out == "hello\n"
    assert not list(folder.iterdir())


def test_overrides_may_stand_before_and_after_a_flag(folder):
    seen = []
    argv = ["method=dkd", "-m", "seed=0,1", ONE_BY_ONE, "sweep_dir=sweep"]
    assert run_hydra(lambda cfg: seen.append(cfg.seed), "train", argv) == 0
    assert seen == [0, 1]


def test_runs_of_a_sweep_are_named_by_what_varies(folder, capsys):
    argv = ["-m", ONE_BY_ONE, "trainer.max_epochs=7", "seed=0,1", "method.temperature=2,8", "sweep_dir=sweep"]
    seen = []

    def work(cfg):
        seen.append((os.path.basename(HydraConfig.get().runtime.output_dir), cfg.seed, cfg.method.temperature))

    assert run_hydra(work, "train", argv) == 0
    assert seen == [("T02.0_s0", 0, 2), ("T08.0_s0", 0, 8), ("T02.0_s1", 1, 2), ("T08.0_s1", 1, 8)]
    assert {path.name for path in (folder / "sweep").iterdir() if path.is_dir()} == {name for name, *_ in seen}


def test_ranges_and_patterns_are_expanded_for_the_check_too(folder):
    checked, done = [], []
    argv = ["-m", ONE_BY_ONE, "seed=range(2)", "method=glob(log*)", "sweep_dir=sweep"]
    code = run_hydra(lambda cfg: done.append(cfg.seed), "train", argv, check=lambda cfg, _: checked.append(cfg.seed))
    assert (code, checked, done) == (0, [0, 1], [0, 1])


def test_a_shipped_grid_needs_no_flag(folder):
    seeds = []
    assert run_hydra(lambda cfg: seeds.append(cfg.seed), "train", ["sweep=seeds", ONE_BY_ONE, "sweep_dir=sweep"]) == 0
    assert seeds == [0, 1, 2, 3, 4]


def test_two_values_that_do_not_go_together_are_refused_before_any_job(folder, capsys):
    called = []
    argv = ["-m", "method=kd,dkd", "data=fashion_mnist", "data.augment.mixup=0,0.8", ONE_BY_ONE, "sweep_dir=sweep"]
    assert run_hydra(called.append, "train", argv, check=check_job) == 2
    said = capsys.readouterr().err
    assert "TrueClassLoss looks at the sample's label, a mixed sample has two" in said
    assert "(in the sweep's jobs with method=dkd data.augment.mixup=0.8)" in said
    assert not called
    assert not (folder / "sweep").exists()


def test_a_failing_job_of_a_sweep_fails_the_command(folder, capsys):
    def work(cfg):
        if cfg.seed == 1:
            raise UserError("seed 1 is unlucky")

    argv = ["-m", ONE_BY_ONE, "seed=0,1,2", "sweep_dir=sweep"]
    assert run_hydra(work, "train", argv) == 2
    error = capsys.readouterr().err
    assert "seed=1" in error
    assert error.splitlines()[-1] == "error: seed 1 is unlucky"
    assert (folder / "sweep/s2/.hydra").is_dir()  # the jobs after it ran all the same


def test_a_users_folder_of_configs_comes_first(folder):
    (folder / "mine/method").mkdir(parents=True)
    (folder / "mine/method/own.yaml").write_text("defaults: [kd]\ntemperature: 7.0\n")
    (folder / "mine/method/none.yaml").write_text("temperature: 9.0\n")
    seen = []
    for name in ("own", "none"):
        argv = ["--config-dir", "mine", f"method={name}", "run_dir=run"]
        assert run_hydra(lambda cfg: seen.append(cfg.method.temperature), "train", argv) == 0
    assert seen == [7.0, 9.0]


def test_modules_beside_the_working_directory_can_be_imported_but_shadow_nothing(folder):
    (folder / "my_own_part.py").write_text("answer = 42\n")
    (folder / "json.py").write_text("raise RuntimeError('the wrong json')\n")
    code = (
        "import sys; sys.path = [p for p in sys.path if p]\n"
        "from kd_lightning.cli._hydra_main import run_hydra\n"
        "def work(cfg):\n"
        "    import json.decoder, my_own_part\n"
        "    print(my_own_part.answer)\n"
        "raise SystemExit(run_hydra(work, 'train', ['run_dir=run']))"
    )
    assert python(code, folder).stdout == "42\n"


def test_a_reader_that_has_seen_enough_is_no_error(folder):
    code = "from kd_lightning.cli.train import main; raise SystemExit(main({argv}))"
    for argv in ("['--help']", "['--cfg', 'job', '--package', 'seed']"):
        command = f'"{sys.executable}" -c "{code.format(argv=argv)}" | true'
        assert subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True).stderr == ""


def test_flags_that_exclude_each_other_are_refused(folder, capsys):
    assert run_hydra(lambda cfg: None, "train", ["--run", "--multirun"]) == 2
    assert run_hydra(lambda cfg: None, "train", ["--resolve"]) == 2
    assert run_hydra(lambda cfg: None, "train", ["--no-such-flag"]) == 2
    assert len(capsys.readouterr().err.splitlines()) > 2


@pytest.mark.parametrize("argv", [["--seed", "1"], ["--seed=1"]])
def test_a_setting_written_as_an_option_is_one_line_that_shows_how_it_is_written(argv, folder, capsys):
    assert run_hydra(lambda cfg: None, "train", argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: command line: unrecognized arguments: --seed")
    assert line.endswith("as in seed=VALUE")
