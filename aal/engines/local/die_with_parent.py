"""Imported first by the fork server: from then on it dies with the program that started it.

Until it has imported torch, which takes seconds, it would not see that its parent is gone.
"""

import contextlib
import ctypes
import signal

PR_SET_PDEATHSIG = 1  # linux/prctl.h

with contextlib.suppress(OSError, AttributeError):  # elsewhere than on Linux it sees it a little later
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
