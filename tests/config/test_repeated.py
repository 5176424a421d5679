"""A mapping that is given twice counts twice, or is told of: Hydra's sweeper keeps the last one only."""

from __future__ import annotations

import pytest
from hydra.errors import OverrideParseException

from kd_lightning.config.repeated import merged
from kd_lightning.errors import UserError


@pytest.mark.parametrize(
    ("given", "together"),
    [
        ("method.weights={kd:0.5} seed=0,1 method.weights={task:0.3}", "seed=0,1 method.weights={kd:0.5,task:0.3}"),
        ("method.weights={kd:0.5} method.weights={}", "method.weights={kd:0.5}"),
        ("a={b:{c:[1,2]}} a={d:'x,y'} a={e:1}", "a={b:{c:[1,2]},d:'x,y',e:1}"),
        ("seed=0 seed=1", "seed=0 seed=1"),
        ("a={b:1} c={b:1}", "a={b:1} c={b:1}"),
        ("method=kd,dkd method.temperature=1 ~x +y=2", "method=kd,dkd method.temperature=1 ~x +y=2"),
    ],
)
def test_mappings_of_one_key_are_put_together(given, together):
    assert merged(given.split()) == together.split()


@pytest.mark.parametrize("given", ["a={b:1},{b:2} a={c:1}", "a={c:1} a={b:1},{b:2}", "a={c:1} a=choice({b:1},{b:2})"])
def test_one_that_is_swept_cannot_be_put_together_and_says_how_to_write_it(given):
    with pytest.raises(UserError, match=r"command line: a: given twice, of which one is swept.*as in a\.c=…"):
        merged(given.split())


def test_patterns_ranges_and_plain_choices_are_left_as_they_are():
    given = ["method=glob(log*)", "seed=range(2)", "a=1,2", "a=sort(2,1)", "b=interval(0,1)"]
    assert merged(given) == given


def test_a_value_that_is_given_twice_is_told():
    with pytest.raises(UserError, match=r"command line: a: b is given twice: write one mapping"):
        merged(["a={b:1}", "a={b:2}"])


def test_what_cannot_be_read_is_hydras_to_tell():
    with pytest.raises(OverrideParseException):
        merged(["a={b:1"])
