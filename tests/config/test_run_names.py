"""Names of runs: readable, safe, sorting like their numbers, and never the same for two jobs of a sweep."""

from __future__ import annotations

import itertools
import re
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kd_lightning.config.names import run_name, swept_keys


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ("method.temperature=4 method.weights.kd=0.9 seed=0", "T04.0_kd0.90_s0"),
        ("seed=0 method.weights.kd=0.9 method.temperature=4.0", "T04.0_kd0.90_s0"),
        ("method=dkd seed=3", "dkd_s3"),
        ("method=kd student=wrn_16_2", "kd_wrn-16-2"),
        ("optimizer.lr=0.05", "lr0.0500"),
        ("optimizer.lr=1e-5", "lr0.00001"),
        ("data.augment.mixup=0.2 data.augment.cutmix=1", "cutmix1.00_mixup0.20"),
        ("teacher.train.optimizer.lr=0.1 optimizer.lr=0.05", "optimizer-lr0.0500_teacher-train-optimizer-lr0.1000"),
        ("teacher.train.seed=1 seed=2", "teacher-train-seed1_s2"),
        ("data.batch_size=64", "b0064"),
        ("data.augment=true", "augment-true"),
        ("trainer.precision=bf16-mixed", "precision-bf16-mixed"),
        ("+trainer.limit_train_batches=7", "limit-train-batches007"),
        ("+trainer.limit_train_batches=1.0", "limit-train-batches1.0000"),
        ("+trainer.limit_train_batches=1e0", "limit-train-batches1.0000"),
        ("method.weights={kd:0.5,task:0.1} seed=1", "kd0.50_task0.10_s1"),
        ("method.weights={kd:0.5} method.weights={task:0.3}", "kd0.50_task0.30"),
        ("method.weights.kd.to=8", "kd.to8.00"),
        ("method.weights.kd.to=8 method.weights.task.to=1", "kd.to8.00_task.to1.00"),
        ("method.weights.kd={_target_:kd_lightning.schedules.Ramp,to:8}", "kd-Ramp_kd.to8.00"),
        ("method.temperature.to=8", "T.to08.0"),
        ("+student.x={a:{c:1}}", "a.c001"),
        ("student.x='1'", "x-1"),
        ("seed=10", "s_10"),
        ("run_dir=x launcher=fused paths.data_dir=/y hydra.verbose=true sweep=seeds max_fused=3", "run"),
        ("", "run"),
    ],
)
def test_a_name_can_be_read(overrides, name):
    found = run_name(overrides.split())
    assert re.sub(r"-[0-9a-f]{6}(?=_|$)", "", found) == name  # without the hash of texts that had to be altered


def test_only_what_the_sweep_varies_is_in_the_name():
    overrides = ["trainer.max_epochs=3", "method.temperature=2", "seed=1"]
    assert run_name(overrides, swept=["method.temperature", "seed"]) == "T02.0_s1"


def test_the_varied_keys_are_those_with_several_values():
    command_line = ["trainer.max_epochs=3", "seed=0,1", "student.hidden=[1,2]", "+a=range(3)", "method=choice(kd,dkd)"]
    assert swept_keys(command_line, {"optimizer.lr": "0.1,0.2", "seed": "5"}) == ["optimizer.lr", "seed", "a", "method"]
    assert swept_keys(["seed=1"], {"seed": "0,1"}) == []


def test_names_sort_as_numbers_do():
    seeds, temperatures, rates = (0, 2, 9, 10, 11, 100), (0.5, 1, 2, 10, 20, 100), (0.0005, 0.001, 0.01, 0.05, 0.1, 1)
    for key, values in (("seed", seeds), ("method.temperature", temperatures), ("optimizer.lr", rates)):
        names = [run_name([f"{key}={value}", "method.weights.kd=0.5"]) for value in values]
        assert names == sorted(names)
    grid = [(t, w, s) for t in (1, 2, 4, 8, 16) for w in (0.1, 0.5, 0.9, 1) for s in range(12)]
    names = [run_name([f"method.temperature={t}", f"method.weights.kd={w}", f"seed={s}"]) for t, w, s in grid]
    assert names == sorted(names)


def test_values_that_mean_something_else_have_other_names():
    values = ["1", "1.0", "'1'", "'1.0'", "true", "'true'", "null", "'null'", "{a:1}", "{b:1}", "{a:{b:1}}", "{a:'1'}"]
    values += ["{}", "[]", "[1]", "'[1]'", "''", "{a:{b:1},b:1}"]
    names = [run_name([f"+student.x={value}", "seed=1"]) for value in values]
    assert len(set(names)) == len(names), sorted(names)


KEYS = ["method", "student", "method.temperature", "method.weights.kd", "optimizer.lr", "seed", "data.augment", "+x.y"]
PLAIN = st.from_regex(r"[a-z0-9]{1,4}([_-][a-z0-9]{1,4}){0,3}", fullmatch=True)
NUMBERS = st.one_of(
    st.integers(-(10**6), 10**6).map(str),
    st.decimals(-1000, 1000, places=6).map(str),
    st.floats(1e-7, 1e7).map(repr),
)
VALUES = st.one_of(
    PLAIN, NUMBERS, st.text(st.characters(min_codepoint=33, max_codepoint=0x17F), min_size=1, max_size=60)
)


def meaning(value: str):
    """Two values that mean the same number may share a name: they make the same run."""
    value = value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
    try:
        number = Decimal(value)
    except ArithmeticError:
        return value
    return number.normalize() if number.is_finite() else value


@settings(max_examples=1000, deadline=None)
@given(st.data())
def test_no_two_jobs_of_a_sweep_share_a_name(data):
    keys = data.draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=5, unique=True))
    one, other = ([data.draw(VALUES) for _ in keys] for _ in range(2))
    names = [run_name([f"{k}={v}" for k, v in zip(keys, values, strict=True)]) for values in (one, other)]
    if [meaning(v) for v in one] != [meaning(v) for v in other]:
        assert names[0] != names[1]
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,120}", name)
        assert name not in (".", "..")


def test_no_two_jobs_of_a_large_grid_share_a_name():
    grid = itertools.product(
        ("kd", "dkd", "k_d", "k-d", "kd_s1"),
        ("a", "b_c", "b", "c"),
        (1, 1.5, 1.55, 15, 10, 100),
        (0.1, 0.01, 0.001, 1e-4, 1e-5, 0.00011),
        range(12),
    )
    jobs = [
        [f"method={m}", f"student={s}", f"method.temperature={t}", f"optimizer.lr={r}", f"seed={n}"]
        for m, s, t, r, n in grid
    ]
    names = {run_name(job) for job in jobs}
    assert len(names) == len(jobs)


def test_a_long_value_is_cut_and_stays_itself():
    long = ["student._target_=" + "a." * 200 + tail for tail in ("Net", "Nets")]
    names = [run_name([value]) for value in long]
    assert names[0] != names[1]
    assert all(len(name) <= 120 for name in names)
