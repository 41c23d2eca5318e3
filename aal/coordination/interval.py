"""How sure an accuracy is that was measured on few images."""

import math

NORMAL = 1.959964  # the deviations of a normal distribution within which 95 % of it lie
MANY = 1000  # test images from which on the interval is so small that it need not be shown everywhere


def interval(accuracy: float, images: int) -> tuple[float, float]:
    """Returns the 95 % interval of an accuracy (Wilson, "Probable inference", 1927; no continuity correction).

    It holds at 0 and 1 and for few images too, unlike accuracy ± 2 deviations (Brown, Cai and DasGupta, "Interval
    estimation for a binomial proportion", 2001, equation 4).

    Args:
        accuracy: from 0 to 1.
        images: that it was measured on, at least 1.
    """
    weight = NORMAL**2 / images
    middle = (accuracy + weight / 2) / (1 + weight)
    half = NORMAL / (1 + weight) * math.sqrt((accuracy * (1 - accuracy) + weight / 4) / images)
    return max(0.0, middle - half), min(1.0, middle + half)


def interval_of_few(accuracy: float | None, images: int) -> tuple[float, float] | None:
    """Returns the interval of an accuracy that is to be shown with it; None of many images, or of none."""
    return None if accuracy is None or not 0 < images < MANY else interval(accuracy, images)
