"""How many queries annotators draw during a selection, and how that is learned."""

import math

import numpy as np
import pytest

from aal.coordination.demand import MISSES, DrawRate, Estimate, Safety, lead_time_demand

pytestmark = pytest.mark.unit


def test_a_duration_is_smoothed_as_rfc_6298_says() -> None:
    estimate = Estimate()
    assert estimate.mean is None and estimate.late_after == math.inf
    estimate.note(8.0)
    assert (estimate.mean, estimate.deviation) == (8.0, 4.0)
    estimate.note(16.0)
    assert (estimate.mean, estimate.deviation) == (9.0, 5.0)  # 4 + (|16 - 8| - 4) / 4, then 8 + (16 - 8) / 8
    assert estimate.late_after == 29.0
    for _ in range(100):
        estimate.note(2.0)
    assert estimate.mean == pytest.approx(2.0, abs=0.01) and estimate.deviation < 0.05


def test_the_rate_of_draws_counts_only_time_in_which_nobody_waits() -> None:
    rate = DrawRate(window=20)
    assert rate.per_s(0.0) is None
    for second in range(10):
        rate.note(4, 0, float(second))
    assert rate.per_s(9.0) == pytest.approx(4.0)
    rate.note(0, 3, 10.0)  # somebody finds S empty, until second 70
    assert rate.per_s(60.0) == rate.per_s(10.0)
    rate.note(3, 0, 70.0)
    assert rate.per_s(71.0) == pytest.approx(19 / 6)  # after the first of the window; the minute does not count
    for second in range(100):
        rate.note(1, 0, 80.0 + second)
    assert rate.per_s(179.0) == pytest.approx(1.0), "it follows the annotators"
    assert rate.per_s(279.0) == pytest.approx(0.16, abs=0.01), "and falls when nobody draws any more"


def test_annotators_who_keep_step_do_not_look_like_a_burst() -> None:
    rate = DrawRate(window=4 * 100)
    for second in range(0, 50, 5):
        rate.note(100, 0, float(second))
        for since in range(5):
            assert second < 15 or 15 < (rate.per_s(second + since) or 0) <= 20, "20 a second, in bursts of 100"


def test_the_demand_of_a_lead_time_is_that_of_the_textbook() -> None:
    lead, rng = Estimate(), np.random.default_rng(0)
    for _ in range(2000):
        lead.note(float(rng.normal(4.0, 0.5)))
    mean, deviation = lead_time_demand(10.0, lead)
    leads = rng.normal(4.0, 0.5, 100_000)
    demand = rng.poisson(10.0 * leads.clip(0))
    assert mean == pytest.approx(demand.mean(), rel=0.1)
    assert deviation == pytest.approx(
        demand.std(), rel=0.25
    )  # the mean deviation of a normal is 0.8 of its standard one


@pytest.mark.parametrize("width", [0.3, 1.0, 4.0])
def test_misses_correct_the_safety_until_they_are_as_rare_as_they_should_be(width: float) -> None:
    """Whatever the demand really is: here up to four times as wide as the formula thinks."""
    safety, rng = Safety(), np.random.default_rng(1)
    demands = rng.normal(0.0, width, 20_000)
    misses = []
    for demand in demands:
        misses.append(demand > safety.deviations)
        safety.note(misses[-1])
    assert np.mean(misses) == pytest.approx(MISSES, rel=0.25)
    assert safety.deviations >= 0
