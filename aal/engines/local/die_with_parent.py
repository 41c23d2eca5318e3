"""Imported first by the fork server: it, and all that it forks, are killed when the program that started it is gone.

The kernel does that, so it holds for a process that is stopped, or still imports PyTorch, which takes seconds. A parent
that was gone before the kernel was asked is noticed by its number.
"""

import contextlib
import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PARENT = "AAL_PARENT_PID"  # the environment variable that tells the fork server who starts it

_prctl = None
with contextlib.suppress(OSError, AttributeError):  # elsewhere than on Linux children notice it a little later
    _prctl = ctypes.CDLL(None).prctl
_self = os.getpid()


def _die_with(parent: int | None) -> None:
    if _prctl is not None:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(1)


def _in_child() -> None:
    global _self
    parent, _self = _self, os.getpid()
    _die_with(parent)


_parent = os.environ.pop(PARENT, None)
_die_with(None if _parent is None else int(_parent))
os.register_at_fork(after_in_child=_in_child)
