"""What a call from Python says of its arguments."""

from __future__ import annotations

import pytest
from given_models import Net, blobs
from quick import QUICK
from torch import nn

import kd_lightning as kd
from kd_lightning.api.words import in_python
from kd_lightning.errors import UserError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": -1}, r"^lr: must be > 0, got -1"),
        ({"temperature": 0}, r"^temperature: must be > 0, got 0"),
        ({"max_epochs": "a"}, r"^max_epochs: must be a whole number"),
        ({"method": "foo"}, r"^method='foo': no such option"),
        ({"train": "digit"}, r"^train='digit': no such option; did you mean 'digits'"),
        (
            {"weights": {"foo": 1}},
            r"^weights\.foo: no such key: the method has no such term; there is .*task",
        ),
        ({"settings": {"trainer.foo": 1}}, r'^settings: "trainer\.foo": no such key; there is accelerator'),
    ],
)
def test_an_error_begins_with_the_argument(folder, arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        kd.distill(**{"teacher": nn.Linear(8, 3), "student": Net, "train": blobs(40), **arguments}, verbose=False)
    for word in ("command line", "conf/", "--config-dir"):
        assert word not in str(caught.value)


def test_a_sweep_names_its_arguments_too(folder):
    with pytest.raises(UserError, match=r"^temperature: must be > 0, got -2"):
        kd.sweep(nn.Linear(8, 3), Net, blobs(40), over={"temperature": [1, -2]}, settings=QUICK, verbose=False)


@pytest.mark.parametrize("line", ["train: has no samples", "run_dir=here: another process is writing", "a.csv: no row"])
def test_a_line_that_names_no_place_stays_as_it_is(line):
    assert in_python(line) == line
