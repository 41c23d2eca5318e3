"""Signals that ask a run to end, collected instead of died of."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

from aal.errors import INTERRUPTED


class Interrupt:
    """A handler that raises KeyboardInterrupt, as Python's own does, and remembers the signals that came.

    An exception that is raised while a library's C code calls Python may be dropped there.
    """

    def __init__(self) -> None:
        self.caught: list[str] = []

    def __call__(self, number: int, _: object) -> None:
        """Notes the signal and raises."""
        self.caught.append(signal.Signals(number).name)
        raise KeyboardInterrupt


@contextlib.contextmanager
def remembered() -> Iterator[None]:
    """Lets `collected` know of a Ctrl-C that came earlier in the block and was dropped by somebody."""
    before = signal.getsignal(signal.SIGINT)
    ours = before is signal.default_int_handler and threading.current_thread() is threading.main_thread()
    if ours:
        signal.signal(signal.SIGINT, Interrupt())
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def collected(limit: int, act: Callable[[], None] = lambda: None) -> Iterator[list[str]]:
    """Collects the names of the signals that came, of a `remembered` one too.

    One more than `limit` of them ends the program at once.

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
    earlier = before[signal.SIGINT]
    caught[:0] = earlier.caught if isinstance(earlier, Interrupt) else []
    try:
        yield caught
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
