"""Terms that look at the target refuse mixed samples; those that do not, say so, and the source agrees."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import kd_lightning.losses
from kd_lightning.errors import UserError
from kd_lightning.losses.contrastive import ContrastiveLoss
from kd_lightning.losses.dkd import OtherClassesLoss
from kd_lightning.losses.entropy_weight import EntropyWeighted
from kd_lightning.losses.mixed import takes_mixed
from kd_lightning.losses.soft_target import SoftTargetLoss
from kd_lightning.method import Method
from kd_lightning.tasks.classification import ClassificationTask
from kd_lightning.tasks.regression import RegressionTask

DELEGATES = {"EntropyWeighted", "CrossHeadLoss"}
WHERE_ASKED = {"ContrastiveLoss"}  # looks at it with an argument only, and says so then


def shipped() -> Iterator[tuple[type, ast.FunctionDef]]:
    """Every class in ``losses`` with a term's ``forward`` of its own, and that function's source."""
    for module in pkgutil.iter_modules(kd_lightning.losses.__path__):
        found = importlib.import_module(f"kd_lightning.losses.{module.name}")
        with open(found.__file__, encoding="utf-8") as file:
            tree = ast.parse(file.read())
        for kind in (node for node in tree.body if isinstance(node, ast.ClassDef)):
            for function in kind.body:
                if isinstance(function, ast.FunctionDef) and function.name == "forward":
                    names = [argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)]
                    if names[1:4] == ["student", "teacher", "target"]:
                        yield getattr(found, kind.name), function


def test_every_shipped_term_that_takes_mixed_samples_looks_at_no_target():
    kinds = dict(shipped())
    assert len(kinds) > 80
    for kind, function in kinds.items():
        names = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
        attributes = {node.attr for node in ast.walk(function) if isinstance(node, ast.Attribute)}
        if kind.__name__ not in DELEGATES | WHERE_ASKED and vars(kind).get("takes_mixed"):
            assert "target" not in names | attributes, kind.__name__


def test_negatives_of_other_classes_take_no_mixed_samples():
    settings = {"tap": "logits", "train_samples": 10}
    assert takes_mixed(ContrastiveLoss(**settings))
    assert not takes_mixed(ContrastiveLoss(**settings, other_classes=True))


def test_a_term_with_a_forward_of_its_own_does_not_inherit_the_word():
    class Careless(SoftTargetLoss):
        def forward(self, student, teacher, target):
            return super().forward(student, teacher, target) * (target == 0).float().mean()

    class Renamed(SoftTargetLoss):
        """Changes nothing."""

    assert takes_mixed(Renamed())
    assert not takes_mixed(Careless())


def test_a_task_with_a_loss_of_its_own_does_not_inherit_it_either():
    class Own(ClassificationTask):
        def loss(self, output, target):
            return 2 * super().loss(output, target)

    assert takes_mixed(ClassificationTask(), beside="loss")
    assert not takes_mixed(Own(), beside="loss")
    assert not takes_mixed(RegressionTask(), beside="loss")


def test_a_weighed_term_takes_what_the_term_takes():
    assert takes_mixed(EntropyWeighted(SoftTargetLoss()))
    assert not takes_mixed(EntropyWeighted(OtherClassesLoss()))


def test_a_method_names_the_term_that_looks_at_the_label_unless_its_weight_is_0():
    terms = {"soft": SoftTargetLoss(), "others": OtherClassesLoss()}
    method = Method(terms, {"task": 1.0, "soft": 1.0, "others": 1.0})
    with pytest.raises(UserError, match=r"method\.terms\.others: OtherClassesLoss looks at the sample's label"):
        method.refuse_mixed("data.augment.mixup")
    Method(terms, {"task": 1.0, "soft": 1.0, "others": 0.0}).refuse_mixed("data.augment.mixup")
