"""What a person sees while a run goes on: one bar on a terminal, a plain line now and then elsewhere."""

import sys
from typing import TextIO

from tqdm import tqdm

from aal.messages import Status


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
        self._terminal = stream.isatty()

    def show(self, status: Status) -> None:
        """Shows a status; cheap enough to be called several times a second."""
        if self._terminal:
            if self._bar is None:
                self._bar = tqdm(
                    total=status.budget, unit="label", file=self._stream, dynamic_ncols=True, smoothing=0.1
                )
            self._bar.total = status.budget
            self._bar.n = status.labels
            self._bar.set_postfix_str(_words(status), refresh=True)
        elif status.version != self._lined_version or status.seconds - self._lined_at >= self._line_every_s:
            rate = status.labels / status.seconds if status.seconds > 0 else 0.0
            share = f"{status.labels}/{status.budget} labels"
            print(
                f"{status.seconds:7.1f} s  {share}  {rate:.1f} label/s  {_words(status)}", file=self._stream, flush=True
            )
            self._lined_at, self._lined_version = status.seconds, status.version

    def note(self, text: str) -> None:
        """Says something that a person should know, on a line of its own."""
        tqdm.write(text, file=self._stream)

    def close(self) -> None:
        """Ends the bar, so that what is printed next has a line of its own."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _words(status: Status) -> str:
    if status.version is None:
        model = "training the first model"
    else:
        model = f"model v{status.version} test {status.test_accuracy:.3f}"
    return f"{model}, {status.waiting} queries wait, {status.idle_annotators} annotators idle"
