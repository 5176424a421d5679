"""Several methods in one: on the command line, in a sweep, in a file, with presets; what cannot be joined is told."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from kd_lightning.cli._hydra_main import run_hydra
from kd_lightning.cli.train import check_job
from kd_lightning.config.combined_methods import as_names, combined
from kd_lightning.errors import UserError

NOWHERE = ["hydra.output_subdir=null", "run_dir=run", "sweep_dir=sweep", "hydra/launcher=basic"]


@pytest.fixture
def composed(tmp_path, monkeypatch):
    """The methods' nodes of the jobs that a command line gives; fails where it is refused."""
    monkeypatch.chdir(tmp_path)

    def compose(*words):
        jobs = []
        assert run_hydra(jobs.append, "train", [*words, *NOWHERE], check=check_job) == 0
        return [OmegaConf.to_container(job.method, resolve=True) for job in jobs]

    return compose


@pytest.mark.parametrize("words", ["method=[kd,rkd]", "method=kd+rkd"])
def test_a_list_has_the_terms_of_all_and_the_task_weight_and_temperature_of_the_first(words, composed):
    (method,) = composed(words, "method.weights.angle=7", "method.temperature=2")
    assert method["weights"] == {"task": 0.1, "kd": 0.9, "distance": 25.0, "angle": 7}
    assert list(method["terms"]) == ["kd", "distance", "angle"]
    assert method["terms"]["kd"]["temperature"] == 2
    assert method["taps"]["student"] == {"embedding": "hidden"}


def test_a_null_temperature_does_not_take_the_place_of_one(composed):
    (method,) = composed("method=[rkd,kd]")
    assert method["temperature"] == method["terms"]["kd"]["temperature"] == 4
    assert method["weights"]["task"] == 1


def test_terms_keep_a_temperature_that_is_not_the_first_ones():
    own = {"temperature": 2, "terms": {"b": {"temperature": "${...temperature}"}}, "weights": {"b": 1}}
    first = {"temperature": 4, "terms": {"a": {"temperature": "${...temperature}"}}, "weights": {"task": 1, "a": 1}}
    whole = combined({"one": first, "two": own})
    assert whole["temperature"] == 4
    assert whole["terms"] == {"a": {"temperature": "${...temperature}"}, "b": {"temperature": 2}}


def test_a_comma_is_a_sweep_and_a_list_is_one_method(composed):
    methods = composed("-m", "method=kd,[kd,sp],sp")
    assert [list(method["terms"]) for method in methods] == [["kd"], ["kd", "sp"], ["sp"]]


def test_presets_are_joined_too(composed):
    (method,) = composed("method=kd+rkd", "preset=authors", "student=resnet8", "teacher=resnet32x4", "data=cifar100")
    assert method["taps"]["student"] == {"embedding": "pool"}


def test_a_file_of_ones_own_starts_from_several(composed, tmp_path):
    (tmp_path / "mine" / "method").mkdir(parents=True)
    (tmp_path / "mine" / "method" / "both.yaml").write_text("defaults: [kd+rkd, _self_]\nweights: {task: 0.5}\n")
    (method,) = composed("--config-dir", "mine", "method=both")
    assert method["weights"] == {"task": 0.5, "kd": 0.9, "distance": 25.0, "angle": 50.0}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("method=[kd,lskd]", "method=kd+lskd: kd and lskd both have a term 'kd'"),
        ("method=[fitnet,ft]", "method=fitnet+ft: fitnet and ft mean hidden and blocks.1 of the student by the tap 'hint'"),
        ("method=[kd,rdk]", "method=kd+rdk: no such method; did you mean"),
        ("method=[kd,kd]", "method=kd+kd: names a method twice"),
        ("method=[kd,]", "method=[kd,]: give names of methods, as in method=[kd,rkd]"),
    ],
)  # fmt: skip
def test_what_cannot_be_joined_is_one_line(words, line, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert run_hydra(lambda cfg: None, "train", [words, "run_dir=run"], check=check_job) == 2
    told = capfd.readouterr().err
    assert line in told
    assert told.count("\n") == 1


def test_other_keys_are_left_as_they_are():
    for words in ("student.hidden=[8,16]", "method.terms.review.taps=[a,b]", "method=kd", "+method@train.method=kd"):
        assert as_names(words) == words
    assert as_names("+method@teacher.train.method=[kd,sp]") == "+method@teacher.train.method=kd+sp"
    with pytest.raises(UserError, match="give names of methods"):
        as_names("method=[]")
