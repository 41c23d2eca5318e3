"""Ends the processes of a run, in whatever state they are."""

import contextlib
import os
import signal
import time
from collections.abc import Collection, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

from aal.engines.local import fork_server

TERMINATE_S = KILL_S = 1.0  # to end after SIGTERM, after SIGKILL


def end_processes(processes: Collection[BaseProcess], grace_s: float, caught: Sequence[str]) -> None:
    """Waits for the end of processes, then terminates, then kills them; at once after a second signal.

    Args:
        processes: of which some may have ended.
        grace_s: seconds in which they may end by themselves.
        caught: names of the signals that came; a handler adds to them meanwhile.
    """
    for act, seconds in ((None, grace_s), (BaseProcess.terminate, TERMINATE_S), (BaseProcess.kill, KILL_S)):
        running = _running(processes)
        if act is not None:
            for process in running:
                act(process)
        deadline = time.monotonic() + seconds
        while running and time.monotonic() < deadline and (act is BaseProcess.kill or len(caught) < 2):
            wait([process.sentinel for process in running], timeout=0.05)
            running = _running(processes)
    if _running(processes):  # nothing ends them, or the fork server does not report that they have ended
        fork_server.kill()
    for process in processes:
        if process.exitcode == fork_server.GONE and process.pid is not None:  # where they do not end with it
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)


def _running(processes: Collection[BaseProcess]) -> list[BaseProcess]:
    return [process for process in processes if process.is_alive()]
