"""What a person sees while a run goes on: one bar on a terminal, a plain line now and then elsewhere."""

import contextlib
import os
import sys
import time
from typing import TextIO

from tqdm import tqdm

from aal.coordination.messages import Status

BAR = "{n_fmt}/{total_fmt} |{bar:10}| {elapsed} {rate_noinv_fmt}{postfix}"  # fits 100 columns


def write_line(text: str, stream: TextIO) -> None:
    """Prints a line; when nobody can hear it any more, goes on in silence, for a run is worth more than its output."""
    try:
        print(text, file=stream, flush=True)
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Progress:
    """Shows how far a run is.

    Args:
        stream: where to; a bar when it is a terminal.
        line_every_s: seconds between plain lines; a new model always gets one.
    """

    def __init__(self, stream: TextIO = sys.stderr, line_every_s: float = 30.0) -> None:
        self._stream = stream
        self._line_every_s = line_every_s
        self._bar: tqdm | None = None
        self._lined_at = 0.0
        self._lined_version: int | None = -1
        # A terminal that does not tell its width would get an empty bar.
        self._terminal = stream.isatty() and os.get_terminal_size(stream.fileno()).columns > 0

    def show(self, status: Status) -> None:
        """Shows a status; cheap enough to be called several times a second."""
        if self._terminal:
            if self._bar is None:
                self._bar = tqdm(
                    total=status.budget, file=self._stream, unit=" label", bar_format=BAR, dynamic_ncols=True
                )
            self._bar.total = status.budget
            self._bar.n = status.labels
            self._bar.set_postfix_str(_words(status), refresh=True)
        elif status.version != self._lined_version or time.monotonic() - self._lined_at >= self._line_every_s:
            rate = status.labels / status.seconds if status.seconds > 0 else 0.0
            done = f"{status.seconds:7.1f} s  {status.labels}/{status.budget} labels  {rate:.1f} label/s"
            write_line(f"{done}  {_words(status)}", self._stream)
            self._lined_at, self._lined_version = time.monotonic(), status.version

    def note(self, text: str) -> None:
        """Says something that a person should know, on a line of its own."""
        if self._bar is not None:
            self._bar.clear()
        write_line(text, self._stream)

    def close(self) -> None:
        """Ends the bar, so that what is printed next has a line of its own."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _words(status: Status) -> str:
    if status.version is None:
        model = "training the first model"
    else:
        tested = f" test {status.test_accuracy:.3f}" if status.test_accuracy is not None else ""
        model = f"model v{status.version}{tested}"
    return f"{model}, {status.waiting} queries wait, {status.idle_annotators} idle"
