"""What the user sees: a bar on a terminal or in a notebook, lines elsewhere, nothing where output is closed."""

import dataclasses
import io
import os
import pty
import sys
import termios
from typing import Any

import pytest

from aal.config.terminal import write_line
from aal.coordination.messages import Status, Training
from aal.reporting.progress import Progress

pytestmark = pytest.mark.unit
BEFORE = Status(0.0, 0, 600, 0, 0, None, None, False, None, initial=60)
NEXT = Status(3.0, 30, 600, 12, 2, 4, 0.9512, False, None, labels_per_s=12.34, initial=60)


def test_a_terminal_gets_one_bar() -> None:
    reader, writer = pty.openpty()
    termios.tcsetwinsize(writer, (40, 120))
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
    assert "30/600 labels" in seen
    assert "3 s, 12.3 labels/s, model v4 test 0.951, 12 queries wait, 2 annotators idle" in seen
    assert "worker-1: was killed\r\n" in seen


def test_a_file_gets_a_line_for_each_model_and_now_and_then() -> None:
    stream = io.StringIO()
    progress = Progress(stream, line_every_s=30.0)
    for status in (BEFORE, BEFORE, NEXT, NEXT):
        progress.show(status)
    progress.close()
    assert stream.getvalue().splitlines() == [
        "0/600 labels, 0 s, training the first model",
        "30/600 labels, 3 s, 12.3 labels/s, model v4 test 0.951, 12 queries wait, 2 annotators idle",
    ]


def test_before_the_first_model_it_is_said_what_annotators_do_and_what_it_needs() -> None:
    stream = io.StringIO()
    progress = Progress(stream, line_every_s=0.0)
    labelled = dataclasses.replace(BEFORE, labels=8, seconds=1.0)
    for status in (labelled, dataclasses.replace(labelled, initial=0), dataclasses.replace(BEFORE, initial=0)):
        progress.show(status)
    assert stream.getvalue().splitlines() == [
        "8/600 labels, 1 s, training the first model, annotators label images at random",
        "8/600 labels, 1 s, the first model needs labels, annotators label images at random",
        "0/600 labels, 0 s, the first model needs labels",
    ]


def test_a_line_like_the_last_one_is_not_repeated() -> None:
    stream = io.StringIO()
    progress = Progress(stream, line_every_s=0.0)
    for status in (BEFORE, NEXT, NEXT, dataclasses.replace(NEXT, seconds=4.0)):
        progress.show(status)
    assert [line.split(",")[1] for line in stream.getvalue().splitlines()] == [" 0 s", " 3 s", " 4 s"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"trainings": [Training(0, 660, 40.2)]},
            "9 s, waits for the last training with 660 labels (server-0, 40 s), model v4 test 0.951",
        ),
        (
            {"trainings": [Training(0, 620, 41.0), Training(1, 660, 3.0)]},
            "waits for the last trainings with 620 labels (server-0, 41 s) and with 660 labels (server-1, 3 s), model",
        ),
        (
            {"trainings": [Training(1, 620, 41.0)]},
            "waits for training with 620 labels (server-1, 41 s), then the last training with 660 labels, model",
        ),
        ({"trainings": []}, "waits for the last training with 660 labels, model v4"),
        (
            {"trainings": [Training(1, 660, 0.0)], "is_virtual": True},
            "9 virtual s, waits for the last training with 660 labels, model v4",
        ),
        ({"finished": True}, "every label is trained on, ending the processes"),
        ({"finished": True, "tested_version": 3}, "ending the processes, model v4, v3 test 0.951"),
        ({"finished": True, "tested_version": 4}, "ending the processes, model v4 test 0.951"),
        ({"clients": 1}, "waits for the last versions, training on 1 client, model v4"),
        (
            {"labels": 300, "trainings": [Training(1, 100, 8.0)]},
            "0 queries wait, 2 annotators idle, training with 100 labels (server-1, 8 s)",
        ),
        ({"version": None, "trainings": [Training(0, 60, 2.0)]}, "the first model with 60 labels (server-0, 2 s)"),
    ],
)
def test_it_is_said_what_is_waited_for(changes: dict[str, Any], words: str) -> None:
    stream = io.StringIO()
    Progress(stream).show(dataclasses.replace(NEXT, **{"seconds": 9.0, "labels": 600, "waiting": 0, **changes}))
    assert words in stream.getvalue()


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
