"""How a process asks the kernel for a signal at the end of its parent."""

import contextlib
import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PARENT = "AAL_PARENT_PID"  # the environment variable that names the parent of the fork server

_prctl = None
with contextlib.suppress(OSError, AttributeError):  # elsewhere than on Linux children notice it a little later
    _prctl = ctypes.CDLL(None).prctl


def die_with(parent: int | None) -> None:
    """Has this process killed when its parent ends.

    Args:
        parent: its number, if it is known: where it was gone before the kernel was asked, this process ends at once.
    """
    if _prctl is not None:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(1)
