"""Whatever form a checkpoint of others has: the model gets its weights, or one line says what differs."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.runs.weights import fill, load_weights_file


class Net(nn.Module):
    """A convolution, a norm and a head; ``inner`` names a module around them, as in ``self.net = …``."""

    def __init__(self, inner: str | None = None, classes: int = 3) -> None:
        super().__init__()
        layers = nn.ModuleDict({"conv": nn.Conv2d(1, 2, 3), "norm": nn.BatchNorm2d(2), "head": nn.Linear(2, classes)})
        if inner:
            self.add_module(inner, layers)
        else:
            for name, layer in layers.items():
                self.add_module(name, layer)


torch.manual_seed(1)
RAW = {name: value + 1 for name, value in Net().state_dict().items()}
EMA = {name: value * 2 for name, value in RAW.items()}


def under(prefix: str, state: Mapping[str, Tensor] = RAW) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


FORMS = {
    "as it is": RAW,
    "DataParallel": under("module."),
    "compiled": under("_orig_mod."),
    "DDP of compiled": under("module._orig_mod."),
    "compiled DDP": under("_orig_mod.module."),
    "a compiled layer within": {k.replace("conv.", "conv._orig_mod."): v for k, v in RAW.items()},
    "net and accuracy": {"net": under("module."), "acc": 95.0, "epoch": 3},
    "best accuracy as a tensor": {"epoch": 240, "model": RAW, "best_acc": torch.tensor(75.0)},
    "best accuracy of numpy": {"epoch": 240, "model": RAW, "best_acc": np.float64(75.0)},
    "arguments": {"model": RAW, "optimizer": {"state": {0: {"exp_avg": torch.ones(1)}}}, "args": argparse.Namespace()},
    "Lightning": {"state_dict": under("model."), "epoch": 1, "hyper_parameters": {"lr": 0.1}},
    "Lightning with a criterion": {"state_dict": {**under("net."), "criterion.weight": torch.ones(3)}},
    "Lightning's own layers with metrics": {"state_dict": {**RAW, "train_acc.tp": torch.zeros(3)}},
    "Lightning, twice wrapped": {"state_dict": under("model.model.")},
    "backbone of a larger one": {"state_dict": {**under("backbone."), "neck.weight": torch.ones(3)}},
    "student beside its teacher": {"state_dict": {**under("student."), **under("teacher.", EMA)}},
    "timm with averaged weights": {"state_dict": RAW, "state_dict_ema": EMA},
    "averaged weights first": {"model_ema": EMA, "model": RAW},
    "AveragedModel": {**under("module."), "n_averaged": torch.tensor(5)},
    "a word nobody knows": under("detector."),
    "under a key nobody knows": {"my_weights": RAW},
    "counters of a profiler": {**RAW, "total_ops": torch.zeros(1), "conv.total_ops": torch.zeros(1)},
    "without counters of norms": {name: value for name, value in RAW.items() if "num_batches" not in name},
    "half precision": {k: v.half() if v.is_floating_point() else v for k, v in RAW.items()},
}


@pytest.mark.parametrize("form", list(FORMS))
def test_a_model_gets_its_weights_from(form, tmp_path):
    torch.save(FORMS[form], tmp_path / "file.pt")
    model = Net()
    load_weights_file(model, tmp_path / "file.pt", "teacher.checkpoint")
    for name, value in model.state_dict().items():
        if "num_batches" not in name:
            assert torch.allclose(value, RAW[name], atol=1e-2), name


@pytest.mark.parametrize("inner", ["net", "model", "student", "module"])
@pytest.mark.parametrize("wrap", ["", "student.", "model.", "module."])
def test_a_model_whose_own_names_look_like_wrappers_gets_its_own_weights(inner, wrap):
    saved, model = Net(inner), Net(inner)
    fill(model, {"state_dict": under(wrap, saved.state_dict())}, "F", "key")
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), saved.state_dict().values(), strict=True))


def test_a_wrapper_gets_the_weights_of_what_it_wraps():
    model = Net("net")
    fill(model, RAW, "F", "key")
    assert torch.equal(model.state_dict()["net.head.weight"], RAW["head.weight"])


def said(caplog: pytest.LogCaptureFixture, content: Mapping[str, object], **options: object) -> str:
    caplog.clear()
    with caplog.at_level(logging.INFO, "kd_lightning"):
        fill(Net(), content, "F", "teacher.checkpoint", **options)
    (line,) = caplog.messages
    return line


def test_every_load_says_how_many_tensors_came_from_where_and_what_did_not(caplog):
    assert said(caplog, RAW) == "teacher.checkpoint=F: 9 of 9 tensors"
    assert "9 of 9 tensors from 'state_dict.net'; not used: criterion.weight" in said(
        caplog, FORMS["Lightning with a criterion"]
    )
    text = said(caplog, FORMS["without counters of norms"])
    assert "8 of 9 tensors; left as they were: norm.num_batches_tracked" in text


def test_averaged_weights_are_taken_by_key_and_it_is_said_which_were(caplog):
    both = FORMS["averaged weights first"]
    assert "from 'model'; model_ema would fit as well (choose with teacher.checkpoint_key=…)" in said(caplog, both)
    model = Net()
    fill(model, both, "F", "teacher.checkpoint", part="model_ema")
    assert torch.equal(model.head.weight, EMA["head.weight"])
    assert "from 'model_ema'" in said(caplog, {"model_ema": EMA})


def test_the_teacher_of_a_students_checkpoint_can_be_chosen():
    model = Net()
    fill(model, FORMS["student beside its teacher"], "F", "teacher.checkpoint", part="teacher")
    assert torch.equal(model.head.weight, EMA["head.weight"])


def refused(content: Mapping[str, object], model: nn.Module | None = None, **options: object) -> str:
    model = Net() if model is None else model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError) as caught:
        fill(model, content, "F", "teacher.checkpoint", **options)
    assert str(caught.value).startswith("teacher.checkpoint=F: ")
    assert str(caught.value).isprintable()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    return str(caught.value)


def test_what_does_not_fit_is_told_and_changes_nothing():
    other = Net(classes=7).state_dict()
    assert "head.weight has shape (7, 2), expected (3, 2); 0 missing, 0 unexpected, 2 of other shape" in refused(other)
    headless = {name: value for name, value in RAW.items() if "head" not in name}
    assert "head.weight is missing; 2 missing" in refused(headless)
    assert "conv2.weight is not in the model" in refused({**RAW, "conv2.weight": torch.ones(1)})
    assert "holds no tensor with a name of the model; its keys are epoch" in refused({"epoch": 3})
    assert "a, b all fit; choose with teacher.checkpoint_key=…" in refused({"a": RAW, "b": EMA})
    assert "no weights under 'swa' that fit; weights lie under model" in refused({"model": RAW}, part="swa")


def test_one_layer_of_a_large_model_is_not_taken_for_a_small_one():
    large = {f"{name}.{part}": torch.ones(1) for name in "abcdef" for part in ("weight", "bias")}
    large |= {"fc.weight": torch.ones(2, 2), "fc.bias": torch.ones(2)}
    assert "only a part of it, 'fc', fits" in refused(large, nn.Linear(2, 2))
    fill(nn.Linear(2, 2), large, "F", "key", part="fc")


def test_values_that_cannot_be_copied_are_one_line():
    quantised = {"weight": torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8), "bias": torch.ones(2)}
    with pytest.raises(UserError, match="key=F: its tensors cannot be copied into Linear") as caught:
        fill(nn.Linear(2, 2), quantised, "F", "key")
    assert str(caught.value).isprintable()


def test_names_that_would_move_the_cursor_are_shown_and_not_obeyed(caplog):
    assert "\\x1b[31mred" in refused({"\x1b[31mred": 1})
    text = said(
        caplog, {**FORMS["Lightning with a criterion"], "state_dict": {**under("net."), "a\x1b[2J\r": RAW["head.bias"]}}
    )
    assert text.isprintable()


def test_a_new_head_keeps_its_initial_values_where_part_of_the_model_is_enough(caplog):
    model, other = Net(), Net(classes=7).state_dict()
    head = model.head.weight.clone()
    match = fill(model, other, "F", "student.weights", partial=True)
    assert torch.equal(model.conv.weight, other["conv.weight"])
    assert torch.equal(model.head.weight, head)
    assert len(match.found) == 7
    assert "7 of 9 tensors; of another shape: head.weight, head.bias" in said(caplog, other, partial=True)


def test_lazy_layers_take_the_shapes_that_were_saved():
    saved, lazy = nn.Sequential(nn.Linear(4, 3)), nn.Sequential(nn.LazyLinear(3))
    fill(lazy, saved.state_dict(), "F", "key")
    assert torch.equal(lazy(torch.ones(1, 4)), saved(torch.ones(1, 4)))


def test_tensors_that_the_model_shares_may_be_stored_once():
    model = nn.ModuleDict({"embedding": nn.Embedding(4, 2), "head": nn.Linear(2, 4, bias=False)})
    model["head"].weight = model["embedding"].weight
    fill(model, {"embedding.weight": torch.ones(4, 2)}, "F", "key")
    assert torch.equal(model["head"].weight, torch.ones(4, 2))
