"""Teachers and data that are not what they seem: told, refused, or put right; never taken in silence."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest
from teacher_runs import TINY, refused, teacher_yaml, train

from kd_lightning.cli.train import main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


MODELS = """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self, in_features, num_classes, end="logits"):
            super().__init__()
            self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(in_features, 8), nn.ReLU())
            self.head = nn.Linear(8, num_classes)
            self.end = end

        def forward(self, x):
            y = self.head(self.hidden(x))
            if self.end == "softmax":
                return y.softmax(1)
            if self.end == "masked":
                y = y.clone()
                y[:, 9] = float("-inf")
            if self.end == "broken":
                y = y * float("nan")
            return y
"""


def taken(folder: Path, **keys: str) -> None:
    """A teacher of the user's, taken as it is."""
    (folder / "nets_of_mine.py").write_text(textwrap.dedent(MODELS))
    lines = "".join(f"{key}: {value}\n" for key, value in keys.items())
    teacher_yaml(folder, "mine", f"defaults: [none]\nname: mine\nmodel: {{_target_: nets_of_mine.Net}}\n{lines}")


FITNET = ("method=fitnet", "method.taps.teacher.hint=hidden", "method.taps.student.hint=hidden.0")


def test_a_teacher_that_ends_in_a_softmax_is_told_of_and_taken_for_it_where_that_is_declared(folder, capfd):
    taken(folder)
    train("teacher=mine", "+teacher.model.end=softmax")
    said = capfd.readouterr()
    assert (said.out + said.err).count("look like probabilities") == 1
    assert "set teacher.outputs=probabilities" in said.out + said.err
    words = ("teacher=mine", "+teacher.model.end=softmax", "teacher.outputs=probabilities", "run_dir=declared")
    assert main(["--config-dir", "mine", *TINY, *words]) == 0
    said = capfd.readouterr()
    assert "look like probabilities" not in said.out + said.err
    logits = ("teacher=mine", "run_dir=logits")
    assert main(["--config-dir", "mine", *TINY, *logits]) == 0
    declared, plain_ = (json.loads(Path(f"{d}/result.json").read_text())["metrics"] for d in ("declared", "logits"))
    assert declared["test/kl_teacher"] == pytest.approx(plain_["test/kl_teacher"], rel=1e-2)


def test_masked_classes_teach_the_others_and_methods_on_logits_refuse_them(folder, capfd):
    taken(folder)
    assert train("teacher=mine", "+teacher.model.end=masked")["status"] == "finished"
    for method in ("logits_mse", "lskd"):
        words = ("teacher=mine", "+teacher.model.end=masked", f"method={method}", f"run_dir={method}")
        assert "masks classes" in refused(capfd, *words)


def test_a_teacher_that_answers_nan_is_blamed_itself(folder, capfd):
    taken(folder)
    error = refused(capfd, "teacher=mine", "+teacher.model.end=broken")
    assert "teacher mine gives nan or inf" in error
    assert "optimizer" not in error


def test_a_teacher_of_other_classes_serves_methods_that_never_read_logits(folder, capfd):
    taken(folder)
    assert "answers for 7 classes" in refused(capfd, "teacher=mine", "+teacher.model.num_classes=7")
    result = train("teacher=mine", "+teacher.model.num_classes=7", *FITNET)
    assert result["status"] == "finished"
    assert "test/agreement" not in result["metrics"]


def test_a_teachers_classes_are_mapped_onto_the_datas(folder, capfd):
    taken(folder)
    mapped = "teacher.classes=[11,3,5,7,2,0,1,4,6,9]"
    result = train("teacher=mine", "+teacher.model.num_classes=12", mapped)
    assert "test/agreement" in result["metrics"]
    beyond = "teacher.classes=[12,3,5,7,2,0,1,4,6,9]"
    assert "class 12 is not among the teacher's 12" in refused(
        capfd, "teacher=mine", "+teacher.model.num_classes=12", beyond, "run_dir=b"
    )
    few = refused(capfd, "teacher=mine", "+teacher.model.num_classes=12", "teacher.classes=[1,2]", "run_dir=c")
    assert "2 classes" in few


@pytest.mark.parametrize(("scale", "told"), [(1.0, False), (255.0, True)])
def test_inputs_that_are_not_what_the_data_say_are_told_of_where_the_teacher_normalises(folder, capfd, scale, told):
    code = """
        import torch
        from torch.utils.data import Dataset

        class Pictures(Dataset):
            def __init__(self, scale):
                self.scale = scale
            def __len__(self):
                return 120
            def __getitem__(self, i):
                return torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(i)) * self.scale, i % 10
    """
    (folder / "pictures_of_mine.py").write_text(textwrap.dedent(code))
    taken(folder, normalization="{mean: [0.5], std: [0.25]}")
    data = ("data=dataset", "data.train._target_=pictures_of_mine.Pictures", f"+data.train.scale={scale}")
    few = [word for word in TINY if not word.startswith("data.")]
    assert main(["--config-dir", "mine", *few, *data, "data.batch_size=20", "teacher=mine"]) == 0
    said = capfd.readouterr()
    assert ("teacher.normalization: the data's inputs" in said.out + said.err) is told


@pytest.mark.parametrize("method", ["lskd", "dist"])
def test_two_classes_are_refused_by_methods_that_teach_nothing_with_them(folder, capfd, method):
    code = """
        import torch
        from torch.utils.data import Dataset

        class Two(Dataset):
            def __len__(self):
                return 120
            def __getitem__(self, i):
                return torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(i)), i % 2
    """
    (folder / "two_of_mine.py").write_text(textwrap.dedent(code))
    taken(folder)
    few = [word for word in TINY if not word.startswith("data.")]
    words = ("data=dataset", "data.train._target_=two_of_mine.Two", "data.batch_size=20", "teacher=mine")
    assert main(["--config-dir", "mine", *few, *words, f"method={method}"]) == 2
    assert "teaches nothing with 2 classes" in capfd.readouterr().err.strip().splitlines()[-1]


def test_mixing_in_a_callback_is_noticed_by_the_cache(folder, capfd):
    code = """
        import pytorch_lightning as pl

        class Mixup(pl.Callback):
            def on_train_batch_start(self, trainer, module, batch, batch_idx):
                batch.inputs.mul_(0.5).add_(batch.inputs.flip(0).clone() * 0.5)
    """
    (folder / "mixing_of_mine.py").write_text(textwrap.dedent(code))
    taken(folder)
    words = ("teacher=mine", "+callbacks.mix._target_=mixing_of_mine.Mixup", "trainer.max_epochs=3")
    result = train(*words)
    assert "changed after they were loaded" in result["teacher"]["cache"]
    off = main(["--config-dir", "mine", *TINY, *words, "teacher.cache=off", "run_dir=off"])
    assert off == 0
    live = json.loads(Path("off/result.json").read_text())
    assert live["metrics"]["test/acc"] == result["metrics"]["test/acc"]
    text = refused(capfd, *words, "teacher.cache=stored", "run_dir=strict")
    assert "teacher.cache=off" in text


def test_data_that_the_default_teacher_does_not_suit_are_told_which_to_choose(folder, capfd):
    from PIL import Image

    for label in "ab":
        for number in range(12):
            path = folder / "pictures" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 20), (number * 9, 40, 90)).save(path)
    few = [word for word in TINY if not word.startswith("data.")]
    words = ("data=image_folder", "data.root=pictures", "data.train_dir=null", "data.image_size=16", "data.resize=18")
    (folder / "mine").mkdir()
    assert main(["--config-dir", "mine", *few, *words, "data.batch_size=4"]) == 2
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert "teacher.data" in error
    assert "choose" in error
    assert "teacher=small_cnn" in error
