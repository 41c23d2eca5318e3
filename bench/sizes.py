"""What an offer and a draw cost in pools of many sizes."""

import time
from collections.abc import Iterator

import numpy as np

from aal.coordination.pools import LabeledPool, QueryPool
from bench.table import Row

SIZES = (1000, 10_000, 100_000, 1_000_000, 10_000_000)
MOVES, REPEATS = 1000, 9  # offers or draws that are timed together, and how often
CALL = 100  # draws in a call


def rows(sizes: tuple[int, ...]) -> Iterator[Row]:
    """Gives the microseconds of a draw with its answer, and of an offer; the limit is that of the smallest pool."""
    found = {size: _moves(size) for size in sizes}
    for move in ("draw", "offer"):
        for size in sizes:
            yield Row(f"pools/{move}/of-{size}", "us", found[size][move], limit=found[sizes[0]][move])


def _moves(size: int) -> dict[str, list[float]]:
    """Times moves in pools with `size` queries waiting and as many labels."""
    queries = QueryPool(2 * size, seed=0)
    labelled = LabeledPool(3 * size + REPEATS * MOVES, range(size), np.zeros(size, np.int64))
    queries.offer(range(size, 2 * size))
    times: dict[str, list[float]] = {"draw": [], "offer": []}
    for repeat in range(REPEATS):
        start = 2 * size + repeat * MOVES
        began_at = time.perf_counter()
        queries.offer(range(start, start + MOVES))
        offered_at = time.perf_counter()
        for _ in range(MOVES // CALL):
            items = queries.draw(range(CALL), 1e9)
            labelled.add([item for number, item in enumerate(items) if queries.settle(item, number)], [0] * CALL)
        times["offer"].append(1e6 * (offered_at - began_at) / MOVES)
        times["draw"].append(1e6 * (time.perf_counter() - offered_at) / MOVES)
    return times
