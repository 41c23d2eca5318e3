"""The actor of the files: its start, and its restart when it hangs, which Ray does not notice."""

import contextlib
import logging
import time
from typing import Any

import psutil
import ray
from ray.exceptions import RayError

from aal.engines.heartbeats import Heartbeats
from aal.engines.ray.cluster import ended
from aal.engines.ray.files import WATCHED, Files

NAME = "files"
ASK_EVERY_S = 1.0

log = logging.getLogger("aal")


def started(place: dict[str, Any], *args: Any) -> Any:
    """Starts the actor of the files, which also reports its progress while it works.

    Args:
        place: options of Ray that say where.
        *args: of `Files`.
    """
    actor = ray.remote(concurrency_groups={WATCHED: 1})(Files)
    return actor.options(**place, max_restarts=-1, max_task_retries=-1).remote(*args)


class FilesWatch:
    """Kills the process of the actor of the files, which runs on this machine, when it makes no progress.

    Args:
        files: the actor.
        hung_after_s: without progress, after which its process is killed.
    """

    def __init__(self, files: Any, hung_after_s: float) -> None:
        self._files = files
        self._hung_after_s = hung_after_s
        self._process: psutil.Process | None = None
        self._heartbeats = Heartbeats()
        self._heartbeats.expect(NAME)
        self._step: Any = None  # calls under way
        self._progress: Any = None
        self._asked_at = -ASK_EVERY_S

    def look(self) -> None:
        """Kills the process if it made no step for too long; Ray restarts it, and repeats the calls."""
        if self._progress is not None and ended([self._progress], 0.0):
            with contextlib.suppress(RayError, psutil.NoSuchProcess):
                number, steps = ray.get(self._progress)
                self._process = psutil.Process(number)
                self._heartbeats.note({NAME: steps})
            self._progress = None
        elif self._heartbeats.silent_s(NAME) > self._hung_after_s + ASK_EVERY_S:
            log.warning("%s: made no progress for %g s; the process is restarted", NAME, self._hung_after_s)
            self._kill()
            self._heartbeats.expect(NAME)
        if time.monotonic() - self._asked_at >= ASK_EVERY_S:
            self._ask()

    def _ask(self) -> None:
        self._asked_at = time.monotonic()
        if self._step is None or ended([self._step], 0.0):  # so that one that has nothing to do makes steps too
            self._step = self._files.step.remote()
        if self._progress is None:
            self._progress = self._files.progress.remote()

    def _kill(self) -> None:
        if self._process is None:
            ray.kill(self._files, no_restart=False)
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            self._process.kill()
        self._process = None
