"""What the user sees: a bar on a terminal or in a notebook, lines elsewhere, nothing where output is closed."""

import dataclasses
import io
import os
import pty
import sys
import termios

import pytest

from aal.config.terminal import write_line
from aal.coordination.messages import Status
from aal.reporting.progress import Progress

pytestmark = pytest.mark.unit
BEFORE = Status(0.0, 0, 600, 0, 0, None, None, False, None)
NEXT = Status(3.0, 30, 600, 12, 2, 4, 0.9512, False, None)


def test_a_terminal_gets_one_bar() -> None:
    reader, writer = pty.openpty()
    termios.tcsetwinsize(writer, (40, 100))
    with os.fdopen(writer, "w") as terminal:
        progress = Progress(terminal)
        progress.show(BEFORE)
        progress.show(NEXT)
        progress.note("worker-1: was killed")
        progress.show(NEXT)
        progress.close()
        terminal.flush()
        seen = ""
        while "was killed\r\n" not in seen:  # a terminal hands over what is there, in pieces
            seen += os.read(reader, 100_000).decode()
    os.close(reader)
    assert "training the first model" in seen
    assert "30/600" in seen and "label/s" in seen
    assert "model v4 test 0.951, 12 queries wait, 2 idle" in seen
    assert "worker-1: was killed\r\n" in seen


def test_a_file_gets_a_line_for_each_model_and_now_and_then() -> None:
    stream = io.StringIO()
    progress = Progress(stream, line_every_s=30.0)
    for status in (BEFORE, BEFORE, NEXT, NEXT):
        progress.show(status)
    progress.close()
    assert stream.getvalue().splitlines() == [
        "    0.0 s  0/600 labels  0.0 label/s  training the first model, 0 queries wait, 0 idle",
        "    3.0 s  30/600 labels  10.0 label/s  model v4 test 0.951, 12 queries wait, 2 idle",
    ]


def test_the_end_says_what_is_waited_for() -> None:
    stream = io.StringIO()
    Progress(stream).show(dataclasses.replace(NEXT, labels=600, waiting=0))
    assert "all labels are in; training the last models" in stream.getvalue()


def test_no_stream_shows_nothing_and_followers_are_called(capfd: pytest.CaptureFixture[str]) -> None:
    called: list[int] = []
    progress = Progress(None)
    progress.follow(lambda: called.append(1))
    progress.show(NEXT)
    progress.note("worker-1: was killed")
    progress.close()
    assert capfd.readouterr() == ("", "")
    assert called == [1]


def test_a_notebook_gets_a_bar(capfd: pytest.CaptureFixture[str]) -> None:
    progress = Progress(io.StringIO(), notebook=True)
    progress.show(NEXT)
    progress.close()
    assert "30/600" in capfd.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_output_that_cannot_be_written_is_dropped() -> None:
    with open("/dev/full", "w") as full:
        write_line("one", full)
        write_line("two", full)


def test_what_controls_a_terminal_or_cannot_be_encoded_is_escaped() -> None:
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding="ascii") as stream:
        write_line("a\x1b[2Jb déjà\nc", stream)
        assert raw.getvalue() == b"a\\x1b[2Jb d\\xe9j\\xe0\\nc\n"
    write_line("lost", None)
