"""The actor of the files: its start, and whether it answers, since Ray starts a dead one again but notices no hang."""

import contextlib
import logging
import os
import signal
import time
from typing import Any

import ray
from ray.exceptions import RayError

from aal.engines.ray.cluster import ended
from aal.engines.ray.files import WATCHED, Files

ASK_EVERY_S = 1.0

log = logging.getLogger("aal")


def started(place: dict[str, Any], *args: Any) -> Any:
    """Starts the actor of the files, which also answers while it reads a large one.

    Args:
        place: options of Ray that say where.
        *args: of `Files`.
    """
    actor = ray.remote(concurrency_groups={WATCHED: 1})(Files)
    return actor.options(**place, max_restarts=-1, max_task_retries=-1).remote(*args)


class FilesWatch:
    """Asks the actor of the files, which runs on this machine, now and then for its process.

    Args:
        files: the actor.
        hung_after_s: without an answer, after which its process is killed.
    """

    def __init__(self, files: Any, hung_after_s: float) -> None:
        self._files = files
        self._hung_after_s = hung_after_s
        self._process: int | None = None
        self._asked: Any = None
        self._asked_at = -ASK_EVERY_S

    def look(self) -> None:
        """Kills the process if it has not answered for too long; Ray makes another one, and repeats the calls."""
        now = time.monotonic()
        if self._asked is None:
            if now - self._asked_at >= ASK_EVERY_S:
                self._asked, self._asked_at = self._files.process.remote(), now
        elif ended([self._asked], 0.0):
            with contextlib.suppress(RayError):
                self._process = ray.get(self._asked)
            self._asked = None
        elif now - self._asked_at > self._hung_after_s and self._process is not None:
            log.warning("files: made no progress for %g s; their process begins again", self._hung_after_s)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process, signal.SIGKILL)
            self._asked = self._process = None
