"""How many queries annotators draw while the next ones are selected, measured as the run goes.

This is the reorder point of an inventory: demand is draws, the lead time is that of a selection.
"""

import math
from collections import deque

MISSES = 0.01  # the share of selections during which somebody may find S empty
DEVIATIONS = 2.33  # of a normal distribution, above which that share lies


class Estimate:
    """A duration that changes: its smoothed mean and mean deviation (Jacobson 1988; RFC 6298, section 2)."""

    def __init__(self) -> None:
        self.mean: float | None = None
        self.deviation = 0.0

    def note(self, seconds: float) -> None:
        """Takes in a measurement."""
        if self.mean is None:
            self.mean, self.deviation = seconds, seconds / 2
        else:
            self.deviation += (abs(seconds - self.mean) - self.deviation) / 4
            self.mean += (seconds - self.mean) / 8

    @property
    def late_after(self) -> float:
        """The seconds from which on it takes longer than it should, as a timeout of TCP has it.

        RFC 6298 adds at least the granularity of its clock; here that is a tenth of the mean.
        """
        return math.inf if self.mean is None else self.mean + max(self.mean / 10, 4 * self.deviation)


class DrawRate:
    """How many queries a second annotators draw while none of them waits.

    Args:
        window: draws that it is measured over; some for each annotator, so that it hardly matters if they keep step.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._draws: deque[tuple[float, int]] = deque()  # when, in seconds in which nobody waited, and how many
        self._number = 0
        self._seconds = 0.0
        self._noted_at = 0.0
        self._is_anybody_waiting = False

    def note(self, drawn: int, waiting: int, now: float) -> None:
        """Takes in a draw of so many queries, after which so many annotators wait for one."""
        self._pass(now)
        self._is_anybody_waiting = waiting > 0
        if drawn:
            self._draws.append((self._seconds, drawn))
            self._number += drawn
            while self._number - self._draws[0][1] >= self._window:
                self._number -= self._draws.popleft()[1]

    def per_s(self, now: float) -> float | None:
        """Returns the draws a second; None while it is not known."""
        self._pass(now)
        if not self._draws:
            return None
        first_at, first = self._draws[0]
        drawn, seconds = self._number - first, self._seconds - first_at
        return drawn / seconds if drawn and seconds > 0 else None

    def _pass(self, now: float) -> None:
        if not self._is_anybody_waiting:
            self._seconds += now - self._noted_at
        self._noted_at = now


class Safety:
    """How many deviations of the demand S holds beyond its mean, corrected by its own misses.

    A selection during which somebody found S empty raises it, the others lower it, so that in the long run a share
    `MISSES` of the selections has one (Gibbs and Candes, "Adaptive Conformal Inference Under Distribution Shift", 2021,
    equation 2).
    """

    def __init__(self) -> None:
        self.deviations = DEVIATIONS

    def note(self, missed: bool) -> None:
        """Takes in whether somebody found S empty during a selection."""
        self.deviations = max(0.0, self.deviations + (1 - MISSES if missed else -MISSES))


def lead_time_demand(rate: float, lead: Estimate) -> tuple[float, float]:
    """Returns mean and standard deviation of the draws during a selection, of Poisson draws and a lead that varies."""
    seconds = lead.mean or 0.0
    mean = rate * seconds
    return mean, math.sqrt(mean + (rate * lead.deviation) ** 2)
