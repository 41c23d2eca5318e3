"""How much there is to do, how much is done: estimates for the progress bar."""

import contextlib
import pathlib
import sqlite3
import sys
import time
from typing import TextIO

from tqdm import tqdm

from aal.app.experiments.aal_2021.plans import Run
from aal.reporting.progress import write_line

IMAGES = {"digits": 1438}  # outside the test set; 50,000 in the paper's sets
TRAINED = 3  # learning from an image takes about three times as long as scoring it
BEGIN = 20_000  # so many images could be scored while a run begins and ends
BAR = "{desc} |{bar:20}| {elapsed}{postfix}"


def work_of(run: Run) -> float:
    """Returns about how much a run computes; the unit is one image scored."""
    s = run.settings
    if s.compute == "none":
        return float(BEGIN + s.budget)
    pool = IMAGES.get(s.data_type, 50_000) - s.initial_size - s.val_size
    selections = s.worker_query_num if s.mode == "async" else s.budget // s.server_train_threshold
    scored = 0 if s.query_strategy == "random" else selections * pool
    return float(BEGIN + TRAINED * s.training.epochs * sum(run.grid) + scored)


def share_done(run: Run, folder: pathlib.Path) -> float:
    """Returns about which share of a run is done, by the models that it has published; 0 when it cannot be read."""
    with contextlib.suppress(sqlite3.Error):
        address = (folder / "run.db").resolve().as_uri() + "?mode=ro"
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=0.2)) as db:
            labels = db.execute("select total(labels) from models").fetchone()[0]
            return min(1.0, labels / sum(run.grid))
    return 0.0


class Watch:
    """Shows how far a sweep is: a bar on a terminal, a line elsewhere when a run ends and now and then.

    Args:
        title: what is being made.
        total: work of all runs.
        done: work of the runs that were finished before.
        stream: where to.
        line_every_s: seconds between plain lines.
    """

    def __init__(
        self, title: str, total: float, done: float, stream: TextIO = sys.stderr, line_every_s: float = 60.0
    ) -> None:
        self._title, self._total, self._before = title, total, done
        self._stream, self._line_every_s = stream, line_every_s
        self._begun = self._lined_at = time.monotonic()
        self._lined: int | None = None
        self._bar = tqdm(total=total, initial=done, file=stream, bar_format=BAR, dynamic_ncols=True, disable=None)

    def show(self, done: float, left: int, running: int) -> None:
        """Shows the work that is done, the runs that are left and how many of these are under way."""
        now = time.monotonic()
        words = f"{left} run{'s' * (left != 1)} left" + (f", {running} under way" if running else "")
        speed = (done - self._before) / max(now - self._begun, 1e-9)
        if speed > 0 and left:
            words += f", about {_rough((self._total - done) / speed)}"
        if not self._bar.disable:
            self._bar.n = done
            self._bar.set_description_str(self._title, refresh=False)
            self._bar.set_postfix_str(words)
        elif left != self._lined or now - self._lined_at >= self._line_every_s:
            write_line(f"{self._title}: {words}", self._stream)
            self._lined, self._lined_at = left, now

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()


def _rough(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
