"""Downloading without noise on standard output and without waiting for ever."""

import contextlib
import socket
import sys
import warnings
from collections.abc import Iterator

NETWORK_TIMEOUT_S = 60.0


@contextlib.contextmanager
def quiet_and_bounded() -> Iterator[None]:
    """Sends what is printed to standard error, ignores warnings and gives up on a network that does not answer."""
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_TIMEOUT_S)
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy's, about pickles of the year 2009
            yield
    finally:
        socket.setdefaulttimeout(timeout)
