"""Writing with patience: what was expensive to make is not given up because a disk is full for a moment."""

import errno
import logging
import time
from collections.abc import Callable

from aal.config.errors import RunFailed

WRITE_FOR_S, AGAIN_S = 60.0, 2.0

log = logging.getLogger("aal")


def write_with_retry(write: Callable[[], None], what: str, heartbeat: Callable[[], None]) -> None:
    """Writes; while the disk does not take it, tries again for WRITE_FOR_S seconds.

    Args:
        write: raises an `OSError` when the disk does not take it; may be repeated.
        what: is written, for messages.
        heartbeat: called between two attempts; what it raises ends them.

    Raises:
        RunFailed: the disk did not take it.
    """
    deadline = time.monotonic() + WRITE_FOR_S
    while True:
        try:
            return write()
        except OSError as error:
            reason = f"{what} cannot be written: {error.strerror or error}"
            if time.monotonic() > deadline:
                is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
                raise RunFailed(f"{reason}; make room for it" if is_full else reason) from None
            log.warning("%s; trying again", reason)
            time.sleep(AGAIN_S)
            heartbeat()
