"""Estimators of scikit-learn's kind as teachers: out of fold, calibrated, of values, from files."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier
from teacher_runs import TINY, refused, train

from kd_lightning.batch import UNLABELLED, Batch
from kd_lightning.cli.evaluate import main as evaluate
from kd_lightning.cli.train import main
from kd_lightning.data.digits import DigitsData
from kd_lightning.data.table import TableData
from kd_lightning.errors import UserError
from kd_lightning.joints import Teacher
from kd_lightning.teachers.arrays import require_probabilities, rows_of
from kd_lightning.teachers.fitted import FittedEstimator, fit_out_of_fold
from kd_lightning.teachers.folds import content_numbers, fold_numbers
from kd_lightning.teachers.frozen import TeacherChanged
from kd_lightning.teachers.kind import TeacherContext
from kd_lightning.teachers.sklearn import SklearnTeacher
from kd_lightning.teachers.temperature import fitted_temperature

LOGISTIC = "teacher.estimator._target_=sklearn.linear_model.LogisticRegression"
FORESTLESS = ("teacher=sklearn", LOGISTIC, "+teacher.estimator.max_iter=50", "teacher.folds=2")
TREE = {"_target_": "sklearn.tree.DecisionTreeClassifier", "max_depth": 8}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mine").mkdir()
    return tmp_path


@pytest.fixture(scope="module")
def digits():
    data = DigitsData(val_size=200, train_size=400, labelled=300, batch_size=50)
    data.setup("fit")
    return data


def context_of(data) -> TeacherContext:
    config = {
        "teacher": {"_target_": "kd_lightning.teachers.sklearn.SklearnTeacher", "name": "box"},
        "task": {"_target_": "kd_lightning.tasks.classification.ClassificationTask"},
        "data": {},
    }
    return TeacherContext(config, data, frozenset(), lambda spec: {})


def made(data, **arguments) -> FittedEstimator:
    return SklearnTeacher(**arguments).make(context_of(data))


def training_batch(data) -> Batch:
    index = torch.arange(data.train_samples)
    inputs, target = data.train_views_dataset.read(index, 0)
    return Batch(inputs, target, index, 0, "train")


def test_a_training_sample_is_answered_by_a_copy_that_was_fitted_without_it(digits):
    neighbours = {"_target_": "sklearn.neighbors.KNeighborsClassifier", "n_neighbors": 1}
    teacher = made(digits, estimator=neighbours, folds=4, calibrate=False)
    batch = training_batch(digits)
    known = (batch.target != UNLABELLED).numpy()
    rows, target = batch.inputs.flatten(1).numpy(), batch.target.numpy()
    folds = fold_numbers(content_numbers(rows), target, known, 4, 0, classes=True)[content_numbers(rows)]
    answers = teacher(batch).logits.argmax(1).numpy()
    for fold in range(4):
        fitted = KNeighborsClassifier(n_neighbors=1).fit(rows[known & (folds != fold)], target[known & (folds != fold)])
        assert (answers[folds == fold] == fitted.predict(rows[folds == fold])).all()
    assert (answers[known] != target[known]).any()  # the nearest neighbour of a sample that was seen is itself


def test_with_no_folds_the_estimator_answers_for_what_it_was_fitted_to(digits):
    teacher = made(digits, estimator={"_target_": "sklearn.tree.DecisionTreeClassifier"}, folds=0, calibrate=False)
    batch = training_batch(digits)
    known = batch.target != UNLABELLED
    assert (teacher(batch).logits.argmax(1)[known] == batch.target[known]).all()


def test_unlabelled_and_new_samples_are_answered_by_the_estimator_that_was_fitted_to_all(digits):
    teacher = made(digits, estimator={**TREE, "random_state": 3}, folds=3, calibrate=False)
    batch = training_batch(digits)
    known = (batch.target != UNLABELLED).numpy()
    rows = batch.inputs.flatten(1).numpy()
    whole = DecisionTreeClassifier(max_depth=8, random_state=3).fit(rows[known], batch.target.numpy()[known])
    expected = torch.from_numpy(whole.predict_proba(rows)).float()
    assert torch.allclose(teacher(batch).logits.exp()[~known], expected[~known], atol=1e-6)
    assert torch.allclose(teacher(batch._replace(split="val")).logits.exp(), expected, atol=1e-6)


def test_equal_samples_are_left_out_together():
    rows = np.repeat(np.arange(30.0)[:, None], 4, axis=0)
    contents = content_numbers(rows)
    folds = fold_numbers(contents, np.repeat(np.arange(30) % 3, 4), np.ones(120, bool), 5, 0, classes=True)[contents]
    assert all(len(set(folds[rows[:, 0] == value])) == 1 for value in range(30))
    assert sorted(np.bincount(folds)) == [24] * 5


def test_samples_of_one_group_are_left_out_together(tmp_path):
    random = np.random.default_rng(0)
    day = np.repeat(np.arange(40), 6)
    lines = [f"{d},{random.normal():.4f},{random.normal():.4f},{'ab'[d % 2]}" for d in day]
    (tmp_path / "days.csv").write_text("\n".join(["day,x,z,y", *lines]))
    data = TableData(file=str(tmp_path / "days.csv"), target="y", split="group", group="day", batch_size=16)
    data.setup("fit")
    teacher = made(data, estimator=TREE, folds=3, calibrate=False)
    groups, folds = data.train_groups(), teacher._fold_of
    assert all(len(set(folds[groups == group].tolist())) == 1 for group in groups.unique())
    assert len(folds.unique()) == 3
    assert day[data.places("train").rows].tolist() == groups.tolist()


def test_a_student_of_fewer_samples_is_answered_by_the_copies_that_had_not_seen_them():
    many = DigitsData(val_size=200, batch_size=50)
    few = DigitsData(val_size=200, train_size=150, labelled=60, batch_size=50)
    many.setup("fit")
    few.setup("fit")
    neighbours = KNeighborsClassifier(n_neighbors=1)
    teacher = fit_out_of_fold(neighbours, "probabilities", context_of(few), many, folds=3, seed=0, inputs=None)
    batch = training_batch(few)
    whole = KNeighborsClassifier(n_neighbors=1)
    learned = training_batch(many)
    whole.fit(learned.inputs.flatten(1).numpy(), learned.target.numpy())
    true = torch.from_numpy(whole.predict(batch.inputs.flatten(1).numpy()))  # it has seen each of these samples
    assert (teacher(batch._replace(split="val")).logits.argmax(1) == true).all()
    assert (teacher(batch).logits.argmax(1) != true).any()


def test_every_fold_has_the_classes_in_their_shares():
    targets = np.array([0] * 50 + [1] * 10)
    folds = fold_numbers(np.arange(60), targets, np.ones(60, bool), 5, 0, classes=True)
    assert np.bincount(folds[targets == 1]).tolist() == [2] * 5


def test_a_class_that_a_copy_never_saw_has_probability_zero_there(digits):
    class Data(DigitsData):
        def train_data(self):
            images, targets = super().train_data()
            first = torch.cat([(targets != 9).nonzero()[:60, 0], (targets == 9).nonzero()[:1, 0]])
            return images[first], targets[first]

    data = Data(val_size=10, batch_size=20)
    teacher = made(data, estimator=TREE, folds=2, calibrate=False)
    logits = teacher(training_batch(data)).logits
    assert logits.shape == (51, 10)
    assert torch.allclose(logits.exp().sum(1), torch.ones(51), atol=1e-5)


def test_the_temperature_is_the_one_that_labels_were_drawn_at():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(20000, 4, generator=generator)
    targets = torch.multinomial((logits / 2.5).softmax(1), 1, generator=generator)[:, 0]
    assert fitted_temperature(logits, targets) == pytest.approx(2.5, rel=0.05)
    assert fitted_temperature(logits / 5, targets) == pytest.approx(0.5, rel=0.05)


def test_calibration_lowers_the_loss_of_samples_that_were_not_seen(digits):
    batch = training_batch(digits)
    known = batch.target != UNLABELLED
    forest = {"_target_": "sklearn.ensemble.ExtraTreesClassifier", "n_estimators": 20, "max_depth": 4}
    raw, brought = (made(digits, estimator=forest, folds=3, calibrate=on) for on in (False, True))
    loss = [torch.nn.functional.cross_entropy(t(batch).logits[known], batch.target[known]) for t in (raw, brought)]
    assert brought.temperature < 1
    assert loss[1] < loss[0] - 0.1
    assert (raw(batch).logits.argmax(1) == brought(batch).logits.argmax(1)).all()


def test_chance_is_seeded_so_that_two_starts_give_one_teacher(digits):
    forest = {"_target_": "sklearn.ensemble.ExtraTreesClassifier", "n_estimators": 5}
    first, second, other = (made(digits, estimator=forest, folds=2, seed=seed) for seed in (1, 1, 2))
    assert first.cache_parts() == second.cache_parts()
    assert first.cache_parts() != other.cache_parts()
    assert isinstance(first, Teacher)


def test_an_estimator_that_is_fitted_again_behind_our_back_is_noticed(digits):
    teacher = made(digits, estimator=TREE, folds=0, calibrate=False)
    teacher.verify()
    batch = training_batch(digits)
    teacher._estimator.fit(batch.inputs.flatten(1).numpy(), np.roll(batch.target.numpy(), 1).clip(0))
    with pytest.raises(TeacherChanged, match="answers otherwise"):
        teacher.verify()


class Drawn(ClassifierMixin, BaseEstimator):
    """What a language model behind an API may say: never twice the same."""

    def fit(self, rows, targets):
        self.classes_ = np.unique(targets)
        return self

    def predict_proba(self, rows):
        return np.random.default_rng().dirichlet(np.ones(len(self.classes_)), len(rows))


def test_answers_that_are_drawn_are_refused_at_once_with_what_to_do(digits):
    said = r"teacher: Drawn answers otherwise when it is asked the same again.*teacher=stored"
    with pytest.raises(UserError, match=said):
        fit_out_of_fold(Drawn(), "probabilities", context_of(digits), digits, folds=0, seed=0, inputs=None)


def test_too_few_labels_for_the_folds_are_one_line():
    data = DigitsData(val_size=100, labelled=3, batch_size=50)
    with pytest.raises(UserError, match=r"3 training samples have a label.*teacher\.data\.labelled"):
        made(data, estimator=TREE)


def test_texts_are_taken_before_other_inputs_by_name_and_a_choice_must_be_one():
    inputs = {"input_ids": torch.ones(2, 3), "text": ["a", "b"]}
    assert rows_of(inputs, None, "teacher").tolist() == ["a", "b"]
    assert rows_of(inputs, "input_ids", "teacher").shape == (2, 3)
    with pytest.raises(UserError, match=r"teacher\.inputs=words: the data's inputs are input_ids, text"):
        rows_of(inputs, "words", "teacher")
    with pytest.raises(UserError, match="say which"):
        rows_of({"a": torch.ones(1, 2), "b": torch.ones(1, 2)}, None, "teacher")


def test_rows_that_are_no_probabilities_are_named():
    name = "row {}".format
    good = require_probabilities(np.array([[0.33, 0.33, 0.33]]), name, "teacher.file")
    assert good.sum() == pytest.approx(1, abs=1e-12)
    with pytest.raises(UserError, match=r"row 1 sums to 1\.3"):
        require_probabilities(np.array([[0.5, 0.5], [0.7, 0.6]]), name, "teacher.file")
    with pytest.raises(UserError, match=r"row 0 holds -0\.5"):
        require_probabilities(np.array([[-0.5, 1.5]]), name, "teacher.file")
    with pytest.raises(UserError, match="row 0 holds nan"):
        require_probabilities(np.array([[np.nan, 1.0]]), name, "teacher.file")


def test_it_teaches_from_the_command_line_and_the_result_is_measured_again(folder):
    result = train(*FORESTLESS)
    assert result["teacher"]["estimator"] == "LogisticRegression"
    assert result["teacher"]["folds"] == 2
    assert result["teacher"]["test/acc"] > 0.8
    assert result["metrics"]["test/agreement"] >= 0
    assert evaluate(["run"]) == 0


def test_the_teacher_may_have_more_labels_than_its_student(folder):
    words = FORESTLESS
    result = train(*words, "data.labelled=50", "teacher.data.labelled=null")
    assert result["teacher"]["fitted_to"] == 200


def test_a_teacher_of_labels_only_suits_methods_that_read_labels_only(folder, capfd):
    margin = ("teacher=sklearn", "teacher.estimator={_target_: sklearn.svm.LinearSVC}", "teacher.folds=2")
    assert "sklearn provides labels, the method reads its logits" in refused(capfd, *margin)
    assert train(*margin, "method=hard_label")["status"] == "finished"


def test_a_method_that_compares_logits_as_they_are_refuses_logarithms_of_probabilities(folder, capfd):
    error = refused(capfd, *FORESTLESS, "method=logits_mse")
    assert "sklearn provides probabilities, the method reads its unnormalised logits" in error
    assert train("method=logits_mse", "teacher.train.max_epochs=1")["status"] == "finished"


VALUES = """
    import torch
    from torch.utils.data import TensorDataset

    def table():
        x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
        return TensorDataset(x, (x @ torch.tensor([[1.0], [-2.0], [0.5], [0.0]]))[:, 0])
"""
TASK = """
    from torch.nn import MSELoss
    from torchmetrics import MeanSquaredError
    from kd_lightning.tasks.collection import CollectionTask

    class Plain(CollectionTask):
        def __init__(self):
            super().__init__("plain", MSELoss(), {"rmse": MeanSquaredError(squared=False)}, monitor="rmse")
"""


def test_a_regressor_teaches_values(folder):
    (folder / "value_data.py").write_text(textwrap.dedent(VALUES) + textwrap.dedent(TASK))
    (folder / "mine" / "task").mkdir()
    (folder / "mine" / "task" / "plain.yaml").write_text("_target_: value_data.Plain\n")
    words = [word for word in TINY if not word.startswith(("data.", "student."))]
    words += ["data=dataset", "data.train._target_=value_data.table", "task=plain"]
    words += ["teacher=sklearn", "teacher.estimator._target_=sklearn.ensemble.HistGradientBoostingRegressor"]
    words += ["method=logits_mse", "student=mlp", "student.hidden=[8]", "data.batch_size=50"]
    assert main(["--config-dir", "mine", *words, "+teacher.estimator.max_iter=20"]) == 0
    result = json.loads(Path("run/result.json").read_text())
    assert result["teacher"]["fitted_to"] == 216
    assert result["teacher"]["test/rmse"] < 1.0


def test_a_pickle_is_not_opened_unasked(folder, capfd):
    joblib.dump(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), "model.joblib")
    words = ("teacher=sklearn", "teacher.estimator=null", "teacher.file=model.joblib")
    error = refused(capfd, *words)
    assert "teacher.file: model.joblib is a pickle" in error
    assert "skops" in error


def fitted_digits(names: bool = False) -> LogisticRegression:
    data = DigitsData(val_size=200, batch_size=50)
    batch = training_batch(data)
    target = batch.target.numpy()
    labels = np.array([f"digit {9 - n}" for n in range(10)])[target] if names else target
    return LogisticRegression(max_iter=30).fit(batch.inputs.flatten(1).numpy(), labels)


def test_a_fitted_estimator_is_read_with_skops(folder, capfd):
    io = pytest.importorskip("skops.io")
    io.dump(fitted_digits(), "model.skops")
    result = train("teacher=sklearn", "teacher.estimator=null", "teacher.file=model.skops")
    assert result["teacher"]["file"] == "model.skops"
    assert result["teacher"]["test/acc"] > 0.9
    Path("model.skops").write_bytes(b"no archive")
    assert "teacher.file=model.skops: holds no estimator" in refused(
        capfd, "teacher=sklearn", "teacher.estimator=null", "teacher.file=model.skops", "run_dir=b"
    )


def test_its_classes_are_found_among_the_datas_by_their_names(digits):
    named = DigitsData(val_size=200, train_size=400, batch_size=50)
    named.class_names = [f"digit {n}" for n in range(10)]
    joblib.dump(fitted_digits(names=True), path := Path(f"/tmp/{id(named)}.joblib"))
    try:
        teacher = made(named, file=str(path), unpickle=True)
        batch = training_batch(named)
        assert (teacher(batch).logits.argmax(1) == 9 - batch.target).float().mean() > 0.9
        with pytest.raises(UserError, match="'digit 0' is none of the data's"):
            made(digits, file=str(path), unpickle=True)
    finally:
        path.unlink()


def test_types_of_unknown_makers_in_a_file_are_refused_by_name(folder, capfd):
    io = pytest.importorskip("skops.io")
    io.dump(Guess().fit(np.zeros((2, 64)), np.arange(2)), "own.skops")
    words = ("teacher=sklearn", "teacher.estimator=null", "teacher.file=own.skops")
    error = refused(capfd, *words)
    assert "test_sklearn.Guess" in error
    assert "teacher.trusted=[" in error


class Guess(ClassifierMixin, BaseEstimator):
    """Says how often each class was there."""

    def fit(self, rows, targets):
        self.classes_, counts = np.unique(targets, return_counts=True)
        self.shares_ = counts / counts.sum()
        return self

    def predict_proba(self, rows):
        return np.tile(self.shares_, (len(rows), 1))

    def predict(self, rows):
        return self.classes_[self.predict_proba(rows).argmax(1)]


def test_what_cannot_work_is_told_before_anything_is_fitted(folder, capfd):
    (folder / "noted.py").write_text(
        textwrap.dedent(
            """
            from pathlib import Path
            from sklearn.dummy import DummyClassifier

            class Noted(DummyClassifier):
                def fit(self, rows, targets):
                    Path("fitted").touch()
                    return super().fit(rows, targets)
            """
        )
    )
    words = ("teacher=sklearn", "teacher.estimator={_target_: noted.Noted}")
    assert "student" in refused(capfd, *words, "student.in_features=3")
    assert not Path("fitted").exists()
    assert train(*words)["status"] == "finished"
    assert Path("fitted").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("teacher.folds=1",), "teacher.folds must be >= 2"),
        (("teacher.file=gone.skops",), "teacher.file: no such file: gone.skops"),
        (("teacher.estimator=null",), "give teacher.estimator (it is fitted here) or teacher.file"),
        (("+teacher.estimator.n_neighbours=3",), "n_neighbours"),
        (("teacher.estimator={_target_: builtins.dict}",), "has no fit(X, y)"),
        (("teacher.data.batchsize=3",), "teacher.data.batchsize: "),
    ],
)
def test_what_cannot_be_meant_is_one_line_that_names_the_key(folder, capfd, words, said):
    assert said in refused(capfd, "teacher=sklearn", *words)
    assert not Path("run").exists()
