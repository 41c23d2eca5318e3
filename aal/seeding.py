"""One seed for a run, one stream of random numbers for each part of it."""

import hashlib


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
