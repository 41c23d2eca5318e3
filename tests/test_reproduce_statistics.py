"""What numbers say of a claim: intervals, verdicts, areas."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from aal.app.experiments.aal_2021.statistics import (
    Interval,
    Verdict,
    all_of,
    interval,
    judge,
)

pytestmark = pytest.mark.unit
HOLDS, FAILS, UNCLEAR, UNTRIED = Verdict.HOLDS, Verdict.FAILS, Verdict.UNCLEAR, Verdict.UNTRIED
accuracies = st.lists(st.floats(0, 1), min_size=2, max_size=12)


@given(accuracies)
def test_paired_intervals_are_those_of_scipy(first: list[float]) -> None:
    second = np.array(sorted(first)) * 0.5
    found = interval(np.array(first) - second)
    if np.ptp(np.array(first) - second) > 1e-6:  # of numbers that are nearly equal scipy warns
        theirs = scipy.stats.ttest_rel(first, second).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))
    assert found.low <= found.mean <= found.high and found.seeds == len(first)


def test_equal_differences_have_no_width_and_one_seed_has_no_end() -> None:
    assert interval(np.array([0.5, 0.5, 0.5])) == Interval(0.5, 0.5, 0.5, 3)
    assert interval(np.array([0.5])) == Interval(0.5, -math.inf, math.inf, 1)
    assert str(interval(np.array([0.01]))) == "+1.00 (one seed, no interval)"
    assert str(Interval(0.01, -0.002, 0.022, 3)) == "+1.00 [-0.20, +2.20]"


@pytest.mark.parametrize(
    ("low", "high", "above", "below", "verdict"),
    [
        (0.001, 0.02, 0, math.inf, HOLDS),
        (0.0, 0.02, 0, math.inf, UNCLEAR),
        (-0.01, 0.02, 0, math.inf, UNCLEAR),
        (-0.02, 0.0, 0, math.inf, FAILS),
        (-0.009, 0.5, -0.01, math.inf, HOLDS),
        (-0.5, -0.02, -0.01, math.inf, FAILS),
        (-0.009, 0.009, -0.01, 0.01, HOLDS),
        (-0.009, 0.011, -0.01, 0.01, UNCLEAR),
        (0.011, 0.02, -0.01, 0.01, FAILS),
        (-0.02, -0.011, -0.01, 0.01, FAILS),
    ],
)
def test_verdicts(low: float, high: float, above: float, below: float, verdict: Verdict) -> None:
    assert judge(Interval((low + high) / 2, low, high, 3), above, below) is verdict


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(0, 1))
def test_one_seed_never_tells(value: float, above: float, width: float) -> None:
    assert judge(interval(np.array([value])), above, above + width) is UNCLEAR
    assert judge(interval(np.array([value]))) is UNCLEAR


@pytest.mark.parametrize("bounds", [{"above": 0.0}, {"below": 0.0}, {"above": -0.01, "below": 0.04}, {}])
def test_differences_that_are_all_equal_tell_nothing(bounds: dict[str, float]) -> None:
    assert judge(interval(np.array([0.03, 0.03, 0.03])), **bounds) is UNCLEAR
    rounded = np.array([0.58, 0.3, 0.13]) - np.array([0.55, 0.27, 0.1])  # equal but for the last bit
    assert np.ptp(rounded) > 0 and judge(interval(rounded), **bounds) is UNCLEAR


@given(accuracies, st.floats(-1, 1))
def test_a_claim_and_its_opposite_never_both_hold(values: list[float], bound: float) -> None:
    over, under = judge(interval(np.array(values)), above=bound), judge(interval(np.array(values)), below=bound)
    assert not (over is HOLDS and under is HOLDS)
    assert (over is HOLDS) <= (under is FAILS)


@pytest.mark.parametrize(
    ("verdicts", "together"),
    [
        ([], UNTRIED),
        ([UNTRIED], UNTRIED),
        ([HOLDS, HOLDS], HOLDS),
        ([HOLDS, UNCLEAR], UNCLEAR),
        ([HOLDS, UNTRIED], UNCLEAR),
        ([HOLDS, UNCLEAR, FAILS], FAILS),
        ([HOLDS, FAILS], FAILS),
    ],
)
def test_several_claims_at_once(verdicts: list[Verdict], together: Verdict) -> None:
    assert all_of(verdicts) is together
