"""Signals that ask a run to end, collected instead of died of."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

from aal.config.errors import INTERRUPTED


@contextlib.contextmanager
def collected(limit: int, act: Callable[[], None] = lambda: None) -> Iterator[list[str]]:
    """Collects the names of the signals that came; one more than `limit` of them ends the program at once.

    Args:
        limit: how many to bear with.
        act: called at each.
    """
    caught: list[str] = []

    def note(number: int, _: object) -> None:
        caught.append(signal.Signals(number).name)
        if len(caught) > limit:
            os._exit(INTERRUPTED[caught[0]])
        act()

    kinds = [signal.Signals[name] for name in INTERRUPTED]
    before = {kind: signal.signal(kind, note) for kind in kinds}
    try:
        yield caught
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
