"""A mistake in a configuration: one line with the place, the key and the likely correction, and exit code 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kd_lightning.cli._hydra_main import run_hydra
from kd_lightning.cli.train import check_job, main

TYPOS = [
    # what a user types, and what the line has to say
    ("method.temprature=4", "method.temprature: no such key", "did you mean 'method.temperature'?"),
    ("+method.temprature=4", "+method.temprature:", "did you mean 'temperature'?"),
    ("methd.temperature=4", "methd.temperature: no such key", "did you mean 'method.temperature'?"),
    ("method=kdd", "method=kdd: no such option", "did you mean 'kd'?"),
    ("methd=kd", "methd: no such key or group", "did you mean 'method'?"),
    ("student=mpl", "student=mpl: no such option", "did you mean 'mlp'?"),
    ("data=digit", "data=digit: no such option", "did you mean 'digits'?"),
    ("optimizer=sdg", "optimizer=sdg: no such option", "did you mean 'sgd'?"),
    ("debug=fst", "debug=fst: no such option", "did you mean 'fast'?"),
    ("scheduler=null", "scheduler=null: a group takes a name", "there is constant, cosine"),
    ("~scheduler", "scheduler: is missing", "scheduler=NAME"),
    ("+seeed=1", "+seeed: no such key", "did you mean 'seed'?"),
    ("+seed=1", "+seed: this key exists already", "leave out the +"),
    ("+method=kd", "+method: this group has a choice already", "method=NAME"),
    ("seed=0,1", "seed=0,1: several values", "add -m"),
    ("seed", "cannot read 'seed'", "key=value"),
    ("seed==1", "cannot read 'seed==1'", "key=value"),
    ("data.split_seed=${sed}", "data.split_seed:", "'sed' not found"),
    ("seed=one", "seed: must be a whole number", "'one'"),
    ("seed=-1", "seed: must be >= 0", "-1"),
    ("method.temperature=0", "method.temperature: must be > 0", "got 0"),
    ("method.temperature=-2.5", "method.temperature: must be > 0", "got -2.5"),
    ("method.temperature=hot", "method.temperature: must be a number", "'hot'"),
    ("method.weights.kd=-0.5", "method.weights.kd: must be >= 0", "-0.5"),
    ("method.weights={kd: 0, task: 0}", "method.weights: all weights are 0", "learn nothing"),
    ("+method.weights.kdd=1", "+method.weights.kdd: the method has no such term", "did you mean 'kd'?"),
    ("method.weights={kdd: 1}", "method.weights.kdd: no such key", "did you mean 'method.weights.kd'?"),
    (
        "teacher.model={_target_: a.b, patch: 4}",
        "teacher.model.patch: no such key",
        "write '~teacher.model' '+teacher.model=",
    ),
    ("~method.weights.kd", "method.weights.kd: is missing", "its weight"),
    ("+method.terms.kd.temprature=2", "+method.terms.kd.temprature:", "did you mean 'temperature'?"),
    ("+method.taps.studnt={a: b}", "+method.taps.studnt:", "did you mean 'student'?"),
    ("student.hiden=[10]", "student.hiden: no such key", "did you mean 'student.hidden'?"),
    ("+student.hiden=[10]", "+student.hiden:", "did you mean 'hidden'?"),
    ("student.hidden=10", "student.hidden: must be a list of whole numbers", "got 10"),
    ("student.dropout=1.5", "student.dropout: must be >= 0 and < 1", "1.5"),
    ("student.num_classes=ten", "student.num_classes: must be a whole number", "'ten'"),
    ("student._target_=kd_lightning.models.mlp.MPL", "kd_lightning.models.mlp has no 'MPL'", "did you mean 'MLP'?"),
    ("student._target_=my_modls.Net", "no module 'my_modls'", "did you mean 'my_models'?"),
    ("student._target_=my_models.Nett", "my_models has no 'Nett'", "did you mean 'Net'?"),
    ("student._target_=my_models.broken", "my_models has no 'broken'", "there is Net"),
    ("student=custom", "conf/student/custom.yaml: student._target_: needs a value", "???"),
    ("teacher.train.max_epochs=0", "teacher.train.max_epochs: must be >= 1", "got 0"),
    ("+teacher.train.epochs=3", "+teacher.train.epochs: no such key", "did you mean 'max_epochs'?"),
    ("teacher.train.optimizer.lr=-1", "teacher.train.optimizer.lr: must be > 0", "got -1"),
    ("+teacher.data.trainsize=3", "+teacher.data.trainsize:", "did you mean 'train_size'?"),
    ("teacher.checkpoint=nope.ckpt", "teacher.checkpoint: no such file", "nope.ckpt"),
    ("teacher.cache_precision=fp8", "teacher.cache_precision: must be one of", "got 'fp8'"),
    ("optimizer.lr=0", "optimizer.lr: must be > 0", "got 0"),
    ("optimizer.lr=fast", "optimizer.lr: must be a number", "'fast'"),
    ("+optimizer.learning_rate=0.1", "+optimizer.learning_rate: torch.optim.SGD has no such argument", "lr"),
    ("optimizer.learning_rate=0.1", "optimizer.learning_rate: no such key", "did you mean 'optimizer.lr'?"),
    (
        "+learning_rate=0.1",
        "+learning_rate: no such key",
        "did you mean 'optimizer.lr' or 'teacher.train.optimizer.lr'?",
    ),
    ("learning_rate=0.1", "learning_rate: no such key", "did you mean 'optimizer.lr' or 'teacher.train.optimizer.lr'?"),
    ("epochs=3", "epochs: no such key", "did you mean 'trainer.max_epochs' or"),
    ("weights.kd=1", "weights.kd: no such key", "did you mean 'method.weights.kd'?"),
    ("method.weights.cos=1", "method.weights.cos: no such key", "the method has no such term; there is kd, task"),
    (
        "optimizer.foo=1",
        "optimizer.foo: no such key",
        "as an argument of optimizer._target_ it is written +optimizer.foo=",
    ),
    (
        "student.model=3",
        "student.model: no such key",
        "as an argument of student._target_ it is written +student.model=",
    ),
    ("optimizer._target_=torch.optim.SDG", "torch.optim has no 'SDG'", "did you mean 'SGD'?"),
    ("scheduler.interval=steps", "scheduler.interval: must be one of", "did you mean 'step'?"),
    ("trainer.max_epochs=0", "trainer.max_epochs: must be >= 1", "got 0"),
    ("trainer.max_epochs=2.5", "trainer.max_epochs: must be a whole number", "2.5"),
    ("+trainer.max_epoch=3", "+trainer.max_epoch:", "did you mean 'max_epochs'?"),
    ("trainer.precision=bf17-mixed", "trainer.precision: must be one of", "did you mean 'bf16-mixed'?"),
    ("trainer.accelerator=gppu", "trainer.accelerator: must be one of", "did you mean 'gpu'?"),
    ("trainer.devices=two", "trainer.devices: must be a number", "'two'"),
    ("+trainer.logger=false", "+trainer.logger: use the group logger", "logger=NAME"),
    ("data.batch_size=0", "data.batch_size: must be >= 1", "got 0"),
    ("+data.batchsize=64", "+data.batchsize:", "did you mean 'batch_size'?"),
    ("early_stopping.patience=0", "early_stopping.patience: must be >= 1", "got 0"),
    ("+early_stopping.mode=max", "+early_stopping.mode: no such key", "there is min_delta, patience"),
    ("+callbacks.x._target_=pytorch_lightning.callbacks.EarlyStoping", "callbacks has no", "'EarlyStopping'?"),
    ("logger=wandbb", "logger=wandbb: no such option", "did you mean 'wandb'?"),
    ("kd=method", "kd=method: the other way round: method=kd", ""),
    ("dkd=method", "dkd=method: the other way round: method=dkd", ""),
    ("hydra/launcher=slrum", "hydra/launcher=slrum: no such option", ""),
    ("--config-dir=nowhere", "--config-dir nowhere", "no such directory"),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory with a model of the user's."""
    (tmp_path / "my_models.py").write_text("from torch import nn\n\n\nclass Net(nn.Linear):\n    pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_models", raising=False)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    yield tmp_path
    sys.modules.pop("my_models", None)


def command(argv: list[str]) -> int:
    """``kd-train`` up to where its work would begin."""

    def work(cfg):
        raise AssertionError("the check let it pass")

    return run_hydra(work, "train", argv, check=check_job)


def the_line(capsys) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.parametrize(("typed", "names", "helps"), TYPOS, ids=[typed for typed, _, _ in TYPOS])
def test_a_typo_gives_one_line_and_exit_code_2(typed, names, helps, folder, capsys):
    assert command([typed]) == 2
    line = the_line(capsys)
    assert names in line
    assert helps in line
    assert sorted(path.name for path in folder.iterdir() if path.name != "__pycache__") == ["my_models.py"]


def test_a_key_on_the_command_line_is_said_to_be_there(folder, capsys):
    command(["method.temperature=0"])
    assert the_line(capsys).startswith("error: command line: ")


@pytest.mark.parametrize(
    ("group", "text", "names", "helps"),
    [
        ("method", "defaults: [kd]\ntemprature: 2.0\n", "method.temprature", "did you mean 'temperature'?"),
        ("method", "defaults: [kd]\ntemperature: -2.0\n", "method.temperature", "must be > 0"),
        ("method", "defaults: [kd]\nweights: {kd: .nan}\n", "method.weights.kd", "must be >= 0, got nan"),
        ("student", "defaults: [mlp]\nhidden: [64, x]\n", "student.hidden", "a list of whole numbers"),
        ("student", "_target_: my_models.Nat\n", "student._target_", "did you mean 'Net'?"),
        ("student", "_target_: my_models.Net\nin_features: 3\n", "student.out_features", "needs this argument"),
        ("student", "target: my_models.Net\n", "student:", "did you mean '_target_'?"),
        ("trainer", "defaults: [default]\nmax_epoch: 3\n", "trainer.max_epoch", "did you mean 'max_epochs'?"),
        ("experiment", "# @package _global_\nearly_stoping: {patience: 3}\n", "early_stoping", "'early_stopping'?"),
        ("experiment", "# @package _global_\ndata: {batch_size: many}\n", "data.batch_size", "a whole number"),
    ],
)
def test_a_mistake_in_a_file_names_the_file(group, text, names, helps, folder, capsys):
    (folder / "mine" / group).mkdir(parents=True)
    (folder / "mine" / group / "own.yaml").write_text(text)
    assert command(["--config-dir", "mine", f"{group}=own"]) == 2
    line = the_line(capsys)
    assert line.startswith(f"error: mine/{group}/own.yaml: {names}")
    assert helps in line


def test_a_key_that_an_experiment_says_of_another_teacher_is_told_with_how_to_leave_it_out(folder, capsys):
    assert command(["experiment=bikeshare", "teacher=sklearn"]) == 2
    line = the_line(capsys)
    assert "teacher.members: " in line
    assert line.endswith("'~teacher.members' leaves out what the file says")
    assert command(["experiment=bikeshare", "teacher=sklearn", "~teacher.members"]) == 2
    assert "as teacher.estimator._target_=sklearn.ensemble.ExtraTreesRegressor" in the_line(capsys)
    regressor = "teacher.estimator._target_=sklearn.ensemble.ExtraTreesRegressor"
    jobs: list = []
    mended = ["experiment=bikeshare", "teacher=sklearn", "~teacher.members", regressor]
    assert run_hydra(jobs.append, "train", mended, check=check_job) == 0
    assert len(jobs) == 1


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["method=logits_mse", "method.temperature=4"], "method.temperature: no term of this method reads it"),
        (
            ["method=dkd", "data.augment.mixup=0.2"],
            "method.terms.true_class: TrueClassLoss looks at the sample's label",
        ),
        (["recipe=patient", "method=dkd"], "method.weights.kd: the method has no such term"),
    ],
)
def test_a_value_that_its_method_cannot_use_is_told_before_anything_is_made(argv, told, folder, capsys):
    assert command(argv) == 2
    assert told in the_line(capsys)


def test_a_temperature_that_some_term_reads_is_no_mistake(folder):
    jobs: list = []
    argv = ["-m", "method=kd,dkd,[kd,rkd]", "method.temperature=2", "hydra/launcher=basic", "sweep_dir=sweep"]
    assert run_hydra(jobs.append, "train", argv, check=check_job) == 0
    assert [job.method.temperature for job in jobs] == [2, 2, 2]


def test_no_teacher_has_no_recipe_whatever_an_experiment_says_of_one(folder):
    jobs: list = []
    assert (
        run_hydra(jobs.append, "train", ["experiment=fashion_scenes", "teacher=none", "method=none"], check=check_job)
        == 0
    )
    assert len(jobs) == 1


def test_a_file_that_is_no_yaml_is_named_with_the_line(folder, capsys):
    (folder / "mine/method").mkdir(parents=True)
    (folder / "mine/method/own.yaml").write_text("weights: {task: 1}\nterms: [\nb: :c\n")
    assert command(["--config-dir", "mine", "method=own"]) == 2
    assert "mine/method/own.yaml, line 3: not valid YAML" in the_line(capsys)


def test_a_module_that_fails_when_imported_is_one_line_too(folder, capsys):
    (folder / "my_broken.py").write_text("import not_installed_anywhere\n")
    assert command(["student._target_=my_broken.Net"]) == 2
    assert "cannot import my_broken: No module named 'not_installed_anywhere'" in the_line(capsys)


def test_the_check_calls_nothing_of_the_users(folder, capsys):
    code = "class Net:\n    def __init__(self, width: int):\n        open('called', 'w')\n"
    (folder / "my_models.py").write_text(code)
    assert command(["student._target_=my_models.Net", "~student.hidden"]) == 2
    assert "my_models.Net has no such argument" in the_line(capsys)
    assert not (folder / "called").exists()


def test_each_value_of_a_sweep_is_checked_before_the_first_run(folder, capsys):
    argv = ["-m", "seed=0,1", "method.temperature=4,2,0", "hydra/launcher=basic", "sweep_dir=sweep"]
    assert command(argv) == 2
    assert "method.temperature: must be > 0, got 0" in the_line(capsys)
    assert not (folder / "sweep").exists()


def test_the_full_traceback_is_shown_on_request(folder, capsys, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert command(["method.temperature=0"]) == 2
    error = capsys.readouterr().err
    assert "Traceback (most recent call last)" in error
    assert error.splitlines()[-1].startswith("error: command line: method.temperature")


def test_the_command_itself_does_all_this(tmp_path):
    made = subprocess.run(
        [sys.executable, "-m", "kd_lightning.cli.train", "student=mpl"], cwd=tmp_path, capture_output=True, text=True
    )
    assert made.returncode == 2
    assert made.stderr.startswith("error: command line: student=mpl: no such option; did you mean 'mlp'?;")
    assert len(made.stderr.splitlines()) == 1
    assert not list(Path(tmp_path).iterdir())


def test_a_range_without_a_value_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["-m", "seed=range(0,0)"]) == 2
    assert capsys.readouterr().err.startswith("error: command line: seed=range(0,0): gives no value")


def test_a_file_of_ones_own_that_is_not_looked_for_names_the_option_that_finds_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine/student").mkdir(parents=True)
    (tmp_path / "mine/student/net.yaml").write_text("_target_: torch.nn.Identity\n")
    assert main(["student=net"]) == 2
    assert "mine/student/net.yaml is there: add --config-dir mine" in capsys.readouterr().err
    assert main(["student=nett"]) == 2
    assert "--config-dir DIR" in capsys.readouterr().err


def test_a_constructor_that_takes_more_than_its_decorator_shows_may_be_given_more():
    import functools

    from kd_lightning.config.annotations import parameters_of

    class Config:
        def __init__(self, hidden: int = 4) -> None: ...

    original = Config.__init__

    @functools.wraps(original)
    def init(self, **kwargs):
        original(self)

    Config.__init__ = init
    parameters, is_open = parameters_of(Config)
    assert (list(parameters), is_open) == (["hidden"], True)


@pytest.mark.parametrize("data", ["table", "text", "image_masks"])
def test_augmentation_of_data_that_have_none_says_why_and_not_that_it_is_a_typo(data, folder, capsys):
    assert command([f"data={data}", "data.augment.mixup=0.8"]) == 2
    line = the_line(capsys)
    assert "data.augment.mixup: no such key: these data have no such augmentation: what is mixed are pictures" in line
    assert line.endswith("leave it out")
    assert command([f"data={data}", "data.augment.flip=true"]) == 2
    assert "data.augment={crop_padding: 4, flip: true}" in the_line(capsys)
