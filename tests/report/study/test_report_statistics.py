"""Small-sample statistics against scipy and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from kd_lightning.report.study.statistics import (
    corrected,
    gap_closed,
    interval,
    paired_gain,
    spread,
    t_distribution,
    t_quantile,
)


@pytest.mark.parametrize("df", [1, 2, 3, 4, 5, 7, 10, 29, 30, 100])
@pytest.mark.parametrize("probability", [0.75, 0.95, 0.975, 0.995, 0.9999])
def test_t_quantile_equals_scipy(probability, df):
    assert t_quantile(probability, df) == pytest.approx(scipy.stats.t.ppf(probability, df), rel=1e-9)


@given(st.floats(-50, 50), st.integers(1, 60))
def test_t_distribution_equals_scipy(t, df):
    near_zero = abs(t) < 1e-2  # there SciPy rounds df / (df + t^2) to 1 and has eight places only
    assert t_distribution(t, df) == pytest.approx(scipy.stats.t.cdf(t, df), abs=1e-8 if near_zero else 1e-12)


@given(st.floats(-50, 50))
def test_t_distribution_of_one_and_two_degrees_equals_its_closed_form(t):
    assert t_distribution(t, 1) == pytest.approx(0.5 + math.atan(t) / math.pi, abs=1e-14)
    assert t_distribution(t, 2) == pytest.approx(0.5 + t / (2 * math.sqrt(2 + t * t)), abs=1e-14)


def test_paired_interval_equals_scipys_paired_t_test():
    distilled = {0: 0.822, 1: 0.841, 2: 0.809, 3: 0.833}
    alone = {0: 0.801, 1: 0.829, 2: 0.795, 3: 0.802}
    gain = paired_gain(distilled, alone)
    expected = scipy.stats.ttest_rel(list(distilled.values()), list(alone.values())).confidence_interval(0.95)
    assert (gain.low, gain.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert gain.mean == pytest.approx((0.021 + 0.012 + 0.014 + 0.031) / 4)
    assert (gain.n, gain.pairing, gain.excludes_zero) == (4, "seed", True)


def test_pairs_are_matched_by_seed_whatever_the_order():
    gain = paired_gain({"a": 0.8, "b": 0.9}, {"b": 0.85, "a": 0.75, "c": 0.1})
    assert gain.mean == pytest.approx(0.05)
    assert gain.n == 2


@pytest.mark.parametrize("seeds", [2, 3])
def test_equal_differences_are_no_evidence(seeds):
    alone = {seed: np.float32(hits / 360).item() for seed, hits in enumerate([330, 326, 331][:seeds])}
    distilled = {seed: np.float32((hits + 2) / 360).item() for seed, hits in enumerate([330, 326, 331][:seeds])}
    gain = paired_gain(distilled, alone)
    assert (gain.low, gain.high, gain.p, gain.n) == (None, None, None, seeds)
    assert not corrected({"one": gain})["one"].sure


def test_a_dozen_students_that_are_no_better_are_seldom_called_sure_on_a_few_samples():
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(300):
        hits = rng.binomial(360, 0.9, size=(12, 2, 2)) / 360
        gains = {str(i): paired_gain(dict(enumerate(a)), dict(enumerate(b))) for i, (a, b) in enumerate(hits)}
        wrong += any(gain.sure for gain in corrected(gains).values())
    assert wrong <= 0.07 * 300  # 5 %, and luck


def test_one_pair_has_no_interval():
    gain = paired_gain({0: 0.82}, {0: 0.80, 1: 0.79})
    assert (gain.low, gain.high, gain.n) == (None, None, 1)
    assert not gain.excludes_zero


def test_without_a_common_seed_there_is_a_difference_but_no_interval():
    gain = paired_gain({0: 0.82, 1: 0.84}, {5: 0.80, 6: 0.80})
    assert gain.mean == pytest.approx(0.03)
    assert (gain.low, gain.pairing) == (None, "none")


def test_a_diverged_seed_leaves_the_pairs():
    assert paired_gain({0: 0.8, 1: math.nan}, {0: 0.7, 1: 0.7}).n == 1
    assert paired_gain({0: math.nan}, {}) is None


def test_spread_is_the_sample_standard_deviation():
    summary = spread([1.0, 2.0, 4.0, math.inf])
    assert summary.mean == pytest.approx(7 / 3)
    assert summary.std == pytest.approx(scipy.stats.tstd([1, 2, 4]))
    assert summary.n == 3


def test_spread_of_one_value_has_no_std_and_of_none_is_none():
    assert spread([0.5]).std is None
    assert spread([math.nan]) is None


def test_an_interval_needs_a_difference():
    with pytest.raises(ValueError, match="at least one"):
        interval([], "seed")


def test_gap_closed_counts_from_the_student_alone_to_the_teacher():
    assert gap_closed(0.85, alone=0.80, teacher=0.90, higher_is_better=True) == pytest.approx(0.5)
    assert gap_closed(1.5, alone=2.0, teacher=1.0, higher_is_better=False) == pytest.approx(0.5)
    assert gap_closed(0.79, alone=0.80, teacher=0.90, higher_is_better=True) == pytest.approx(-0.1)


def test_there_is_no_gap_to_close_behind_the_student_alone():
    assert gap_closed(0.85, alone=0.80, teacher=0.79, higher_is_better=True) is None


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8))
def test_the_interval_contains_its_mean(differences):
    gain = interval(differences, "seed")
    if gain.low is None:
        assert max(differences) - min(differences) <= 1e-4 * abs(gain.mean) + 1e-150  # whose square is nought
        return
    assert gain.low <= gain.mean <= gain.high
