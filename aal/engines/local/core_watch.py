"""Shares out what other programs leave of the machine's cores, measured again and again while a run goes on."""

import logging
import statistics
import time

from aal.config.cores import FreeCores
from aal.coordination.interfaces import Monitor
from aal.engines.base import Display

MEASURE_EVERY_S = 2.0
REPORT_EVERY_S = 10.0
BUSY = 0.5  # cores in use by other programs from which the machine counts as busy

log = logging.getLogger("aal")


class CoreWatch:
    """Measures how many cores the run could use, passes that on to the roles, and reports when it changes.

    Args:
        display: where a busy machine is reported, once.
    """

    def __init__(self, display: Display) -> None:
        self._display = display
        self._free = FreeCores()
        self._measured_at = self._reported_at = time.monotonic()
        self._measures: list[float] = []  # since the last report
        self._is_busy = self._is_shown = False

    def share(self, monitor: Monitor) -> None:
        """Measures, and passes it on."""
        self._measured_at = time.monotonic()
        self._measures.append(self._free.measure())
        monitor.share_cores(self._measures[-1])

    def look(self, monitor: Monitor) -> None:
        """Measures and reports when it is time to; to be called several times a second."""
        now = time.monotonic()
        if now - self._measured_at >= MEASURE_EVERY_S:
            self.share(monitor)
        if now - self._reported_at >= REPORT_EVERY_S and self._measures:
            self._reported_at = now
            self._report(statistics.fmean(self._measures))
            self._measures.clear()

    def _report(self, free: float) -> None:
        """Logs a machine that has become busy, or free again; shows the former once."""
        is_busy = free < self._free.most - BUSY
        if is_busy == self._is_busy:
            return
        self._is_busy = is_busy
        what = "use this machine and leave" if is_busy else "use this machine less now and leave"
        line = f"other programs {what} {free:.1f} of {self._free.most:g} CPU cores to the run"
        log.info(line)
        if not self._is_shown:
            self._display.note(line)
            self._is_shown = True
