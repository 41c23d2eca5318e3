"""Signals that request the end of a run."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

from aal.config.errors import INTERRUPTED


@contextlib.contextmanager
def collected(limit: int, act: Callable[[list[str]], None] = lambda caught: None) -> Iterator[list[str]]:
    """Collects the names of the signals that came; one more than `limit` of them ends the program at once.

    Only the main thread of a program can handle signals; in another one nothing is collected. A signal that the parent
    of this program had blocked is handled; under nohup, which has SIGHUP ignored, it stays ignored.

    Args:
        limit: how many signals to collect.
        act: called at each, with the names so far.
    """
    caught: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def note(number: int, _: object) -> None:
        caught.append(signal.Signals(number).name)
        if len(caught) > limit:
            os._exit(INTERRUPTED[caught[0]])
        act(caught)

    kinds = [signal.Signals[name] for name in INTERRUPTED]
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        kinds.remove(signal.SIGHUP)
    before = {kind: signal.signal(kind, note) for kind in kinds}
    blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, kinds)
    try:
        yield caught
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for kind, handler in before.items():
            signal.signal(kind, handler)
