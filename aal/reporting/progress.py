"""What the user sees while a run goes on: one bar on a terminal or in a notebook, a line now and then elsewhere."""

import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from aal.config.terminal import write_line
from aal.coordination.interval import interval_of_few
from aal.coordination.messages import Status

BAR = "{n_fmt}/{total_fmt} labels |{bar:8}| {desc}"


class Progress:
    """Shows how far a run is.

    Args:
        stream: where to; a bar when it is a terminal. None shows nothing.
        line_every_s: seconds between plain lines; a new model always gets one.
        notebook: whether the bar is drawn by the notebook that this process serves.
    """

    def __init__(
        self, stream: TextIO | None = sys.stderr, line_every_s: float = 30.0, *, notebook: bool = False
    ) -> None:
        self._stream = stream
        self._line_every_s = line_every_s
        self._notebook = notebook
        self._bar: Any = None
        self._lined_at = 0.0
        self._lined_version: int | None = -1
        self._line = ""
        self._has_warned = False
        self._followers: list[Callable[[], None]] = []
        self._draws_bar = notebook or (stream is not None and _is_terminal(stream))

    def follow(self, follower: Callable[[], None]) -> None:
        """Calls `follower` whenever a status is shown."""
        self._followers.append(follower)

    def show(self, status: Status) -> None:
        """Shows a status; cheap enough to be called several times a second."""
        for follower in self._followers:
            follower()
        if self._stream is None:
            return
        if status.warning and not self._has_warned:
            self._has_warned = True
            self.note(f"warning: {status.warning}")
        if self._draws_bar:
            self._bar = self._bar if self._bar is not None else self._new_bar(status.budget)
            self._bar.total = status.budget
            self._bar.n = status.labels
            self._bar.set_description_str(_words(status), refresh=True)
        elif status.version != self._lined_version or time.monotonic() - self._lined_at >= self._line_every_s:
            self._write_line(f"{status.labels}/{status.budget} labels, {_words(status)}")
            self._lined_at, self._lined_version = time.monotonic(), status.version

    def _write_line(self, line: str) -> None:
        if line != self._line:  # as it is where virtual time stands still, and at the end of a simulated run
            write_line(line, self._stream)
        self._line = line

    def _new_bar(self, budget: int) -> Any:
        if self._notebook:
            from tqdm.auto import tqdm

            return tqdm(total=budget, bar_format=BAR.replace("{bar:8}", "{bar}"))
        from tqdm import tqdm as terminal_tqdm

        return terminal_tqdm(total=budget, file=self._stream, bar_format=BAR, dynamic_ncols=True)

    def note(self, text: str) -> None:
        """Prints a line of its own, above the bar."""
        if self._stream is not None:
            self._write_above(text, self._stream)

    def announce(self, text: str) -> None:
        """Prints a line that scripts may read, such as where the run is, to standard output."""
        if self._stream is not None:
            self._write_above(text, sys.stdout)

    def _write_above(self, text: str, stream: TextIO) -> None:
        if self._bar is not None:
            self._bar.clear()
        write_line(text, stream)

    def close(self) -> None:
        """Ends the bar, so that what is printed next has a line of its own."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _is_terminal(stream: TextIO) -> bool:
    # A terminal that does not report its width would get an empty bar.
    return stream.isatty() and os.get_terminal_size(stream.fileno()).columns > 0


def _words(status: Status) -> str:
    """What is known of a run besides its labels: time, rate, model, who waits for what."""
    passed = f"{status.seconds:.0f} {'virtual ' * status.is_virtual}s"
    if status.version is None:
        at_random = ", annotators label images at random" if status.labels else ""
        if not status.initial and not status.trainings:
            return f"{passed}, the first model needs labels{at_random}"
        return f"{passed}, training the first model{_trained_on(status)}{at_random}"
    of = "" if status.tested_version in (None, status.version) else f", v{status.tested_version}"
    tested = "" if status.test_accuracy is None else f"{of} test {status.test_accuracy:.3f}"
    if found := interval_of_few(status.test_accuracy, status.test_images):
        tested += " [{:.2f}, {:.2f}]".format(*found)
    model = f"model v{status.version}{tested}"
    if status.finished:
        return f"{passed}, every label is trained on, ending the processes, {model}"
    if status.labels >= status.budget:
        return f"{passed}, waits for {_last_trainings(status)}, {model}"
    rate = "" if status.labels_per_s is None else f"{status.labels_per_s:.1f} labels/s, "
    trained = f", training{_trained_on(status)}" if status.idle_annotators and _trained_on(status) else ""
    return f"{passed}, {rate}{model}, {status.waiting} queries wait, {status.idle_annotators} annotators idle{trained}"


def _last_trainings(status: Status) -> str:
    """What is left to do when all labels are there."""
    total, trained = status.initial + status.labels, _trained_on(status)
    if status.clients is not None:
        return f"the last versions, training{trained}"
    if any(training.labels == total for training in status.trainings):
        return f"the last training{'s' * (len(status.trainings) > 1)}{trained}"
    last = f"the last training with {total} labels"
    return f"training{trained}, then {last}" if trained else last


def _trained_on(status: Status) -> str:
    """The trainings that go on; on a virtual clock their time passes at once, at their end."""
    if status.clients is not None:
        return f" on {status.clients} client{'s' * (status.clients > 1)}" if status.clients else ""
    shown = [
        f"with {one.labels} labels" + ("" if status.is_virtual else f" (server-{one.server}, {one.seconds:.0f} s)")
        for one in status.trainings
    ]
    return f" {' and '.join(shown)}" if shown else ""
