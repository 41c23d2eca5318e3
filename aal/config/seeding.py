"""One seed for a run, one stream of random numbers for each part of it."""

import hashlib
import math
import statistics
import struct

STANDARD_NORMAL = statistics.NormalDist()


def derive(seed: int, *path: str | int) -> int:
    """Returns the seed of one part of a run, the same on every machine and version.

    Args:
        seed: the run's seed.
        *path: what the stream is for, as role, index, step: `derive(0, "worker", 3)`.

    Returns:
        A whole number in [0, 2**32), which NumPy, PyTorch and `random` all accept.
    """
    text = "/".join(str(part) for part in (seed, *path))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


def uniforms(seed: int, *path: str | int) -> tuple[float, float, float]:
    """Returns three random numbers in (0, 1) for one event of a run, whenever it happens; far cheaper than a stream."""
    text = "/".join(str(part) for part in (seed, *path))
    drawn = struct.unpack(">3Q", hashlib.blake2b(text.encode(), digest_size=24).digest())
    a, b, c = (((number >> 12) + 0.5) * 2.0**-52 for number in drawn)
    return a, b, c


def log_normal(relative_std: float, uniform: float) -> float:
    """Returns a log-normal number with mean 1 and standard deviation `relative_std`, from a uniform one in (0, 1)."""
    variance = math.log1p(relative_std**2)
    return math.exp(math.sqrt(variance) * STANDARD_NORMAL.inv_cdf(uniform) - variance / 2)
