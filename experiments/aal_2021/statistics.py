"""Paired differences with their confidence interval, and what they say of a claim: pure functions of numbers."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from scipy.stats import sem, t

from aal.reporting.curves import Floats as Numbers

CONFIDENCE = 0.95
NO_WIDTH = 1e-9  # what rounding leaves of it


class Verdict(StrEnum):
    """What the runs say of a claim."""

    HOLDS = "holds"
    FAILS = "does not hold"
    UNCLEAR = "cannot be told from this many runs"
    UNTRIED = "not tried here"
    GIVEN = "by construction"  # what was put into the runs had to fulfil the claim: no finding


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % confidence interval from `low` to `high`; from one seed it is unbounded."""

    mean: float
    low: float
    high: float
    seeds: int

    def __str__(self) -> str:
        """In percentage points."""
        mean, low, high = (100 * value for value in (self.mean, self.low, self.high))
        return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]" if self.seeds > 1 else f"{mean:+.2f} (one seed, no interval)"


def interval(values: Numbers) -> Interval:
    """Returns the mean of one value a seed and its interval by Student's t: mean ± t(n - 1) * s / sqrt(n)."""
    mean, seeds = float(values.mean()), values.size
    half = float(t.ppf((1 + CONFIDENCE) / 2, seeds - 1) * sem(values)) if seeds > 1 else math.inf
    return Interval(mean, mean - half, mean + half, seeds)


def judge(of: Interval, above: float = -math.inf, below: float = math.inf) -> Verdict:
    """Judges the claim that a mean lies between two bounds: by whether its whole interval does, or none of it.

    An interval without width comes of differences that are all equal; it says nothing of how others would spread.
    """
    if of.seeds < 2 or of.high - of.low <= NO_WIDTH:
        return Verdict.UNCLEAR
    if of.low > above and of.high < below:
        return Verdict.HOLDS
    return Verdict.FAILS if of.high <= above or of.low >= below else Verdict.UNCLEAR


def all_of(verdicts: Iterable[Verdict]) -> Verdict:
    """Returns the verdict on a claim that is several at once: it fails with any of them, and holds with all."""
    found = set(verdicts)
    if Verdict.FAILS in found:
        return Verdict.FAILS
    if found <= {Verdict.UNTRIED}:
        return Verdict.UNTRIED
    return Verdict.HOLDS if found == {Verdict.HOLDS} else Verdict.UNCLEAR
