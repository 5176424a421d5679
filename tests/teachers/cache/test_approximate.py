from __future__ import annotations

import math

import pytest
import torch
from cache_setup import TinyImages, opened
from method_builds import ALL, built
from torch import nn

from kd_lightning.method import Method
from kd_lightning.outputs import ModelOutput
from kd_lightning.schedules import Cosine, Ramp
from kd_lightning.teachers.cache.approximate import storing_problem, top_k_problem
from kd_lightning.teachers.cache.rows import RowCodec

LOGITS = frozenset({"logits", "features"})
SOFTENING = {  # methods without features that take more of the logits than their softmax at temperature 1
    "crld", "ctkd", "cwd_logits", "deepkd", "dkd", "eakd", "kd", "logits_mse", "lskd", "lwm", "mlld", "multi_level",
    "rld", "sigmoid_kd", "skd", "sobolev", "ttm", "wkd_logit", "wsld", "wttm",
    "ail", "bounded", "gaussian_kl", "huber", "mse", "outlier_aware",
}  # fmt: skip


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_of_every_shipped_method_it_is_known_whether_the_largest_logits_do(path):
    method = built(path)
    if not method.taps.get("teacher"):  # with features nothing is stored
        problem = top_k_problem("teacher.cache_top_k", "5", method.highest_temperatures)
        assert (problem is not None) == (path.stem in SOFTENING)


@pytest.mark.parametrize("name", sorted({"kd", "dkd", "multi_level", "wsld", "ttm", "rld"}))
def test_at_temperature_one_they_do(name):
    (path,) = (path for path in ALL if path.stem == name)
    method = built(path, {"method": {"temperature": 1.0}})
    assert top_k_problem("teacher.cache_top_k", "5", method.highest_temperatures) is None


class Mine(nn.Module):
    def __init__(self, **attributes) -> None:
        super().__init__()
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, student, teacher, target):
        return student.logits.sum()


@pytest.mark.parametrize(
    ("attributes", "highest"),
    [
        ({}, math.inf),
        ({"temperature": 1}, 1.0),
        ({"temperature": 0.5, "second_temperature": 3.0}, 3.0),
        ({"temperatures": [1.0, 2.0]}, 2.0),
        ({"temperature": Ramp(to=4, epochs=2, start=1)}, 4.0),
        ({"temperature": Cosine(to=1.0, epochs=3, start=0.5)}, 1.0),
        ({"temperature": lambda clock: 1.0}, math.inf),
        ({"temperature": torch.ones(1)}, math.inf),
        ({"temperature": 1.0, "standardise": True}, math.inf),
        ({"temperature": 1.0, "inner": Mine(temperature=2.0)}, 2.0),
        ({"temperature": 4.0, "requires": frozenset({"features"})}, 0.0),
        ({"temperature": 4.0, "requires": frozenset({"labels"})}, 0.0),
        ({"temperature": 1.0, "requires": frozenset({"unnormalised logits"})}, math.inf),
        ({"temperature": 4.0, "needs_teacher": False}, 0.0),
    ],
)
def test_a_term_says_by_its_attributes_how_it_softens(attributes, highest):
    method = Method({"mine": Mine(**attributes), "off": Mine()}, {"task": 1.0, "mine": 1.0, "off": 0.0})
    assert method.highest_temperatures == {"mine": highest}


def test_the_line_names_the_term_and_what_to_use_instead():
    key, said = top_k_problem("teacher.cache_top_k", "5", {"soft": 1.0, "kd": 4.0})
    assert key == "teacher.cache_top_k"
    assert "method.terms.kd, which softens them with a temperature of 4" in said
    assert said.endswith(
        "set teacher.cache_top_k=null, and teacher.cache_precision=6bit where bytes are short, or set a temperature of 1"
    )
    _, said = top_k_problem("teacher.holds", "top_k: the largest", {"kd": math.inf})
    assert "looks at all of them as they are" in said
    assert said.endswith("choose another method")


def test_nothing_is_refused_where_nothing_is_stored():
    teacher = {"cache": "off", "cache_top_k": 5, "cache_precision": "6bit"}
    assert storing_problem(teacher, LOGITS, {"kd": 4.0}) is None
    assert storing_problem({**teacher, "cache": "auto"}, LOGITS, {}) is not None


@pytest.mark.parametrize(("classes", "row_bytes"), [(1000, 11 * 2 + 10 * 2 + 4), (70_000, 11 * 2 + 10 * 4 + 4)])
def test_numbers_of_up_to_65536_classes_take_two_bytes(classes, row_bytes):
    torch.manual_seed(0)
    logits = torch.randn(9, classes)
    logits[torch.arange(9), torch.randint(40_000 if classes > 1000 else 900, classes, (9,))] += 20
    codec = RowCodec(ModelOutput(logits), "fp16", 10)
    assert codec.row_bytes == row_bytes
    stored = codec.decode(codec.encode(ModelOutput(logits), torch.zeros(9))).logits
    kept = logits.topk(10, dim=1)
    torch.testing.assert_close(stored.gather(1, kept.indices), kept.values, rtol=1e-3, atol=1e-3)
    assert torch.equal(stored.argmax(1), logits.argmax(1))


def test_numbers_above_32767_come_back(tmp_path):
    logits = torch.zeros(3, 65_536)
    logits[torch.arange(3), torch.tensor([65_535, 32_768, 0])] = 9.0
    codec = RowCodec(ModelOutput(logits), "fp16", 1)
    stored = codec.decode(codec.encode(ModelOutput(logits), torch.zeros(3))).logits
    assert stored.argmax(1).tolist() == [65_535, 32_768, 0]
    cached = opened(tmp_path, data=TinyImages(), top_k=2)
    assert cached.store.columns[1].dtype == "uint16"
