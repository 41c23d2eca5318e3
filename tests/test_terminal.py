"""What commands print and how they end: a line a mistake, nothing that acts on a terminal, conventional exit codes."""

import errno
import logging
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from aal.config import loading
from aal.config.errors import RunFailed, UserError
from aal.config.interrupts import deferred_interrupt
from aal.config.settings import Settings
from aal.config.terminal import ArgumentParser, LineFormatter, escaped, run_command
from aal.reporting.pages import write_report
from tests.builders import CONFIG, META, make_run, model

pytestmark = pytest.mark.unit
ROOT = pathlib.Path(__file__).resolve().parent.parent
EVIL = "a\x1b[2J\n\u202eb\x9b\udce9"
PLAIN = r"a\x1b[2J\n\u202eb\x9b\udce9"
TINY = ["--config", "digits.yaml", "engine=simulated", "compute=none", "worker_query_num=2", "examples=2000"]


def test_text_from_outside_is_one_line_of_plain_characters() -> None:
    assert escaped(EVIL) == PLAIN
    assert escaped("déjà vu, 猫") == "déjà vu, 猫"


def test_a_log_holds_a_line_a_record() -> None:
    record = logging.LogRecord("aal", logging.INFO, "", 0, "%s: cannot be read", (EVIL,), None)
    assert LineFormatter().format(record) == f"{PLAIN}: cannot be read"
    try:
        raise ValueError(EVIL)
    except ValueError:
        record.exc_info = sys.exc_info()
    lines = LineFormatter().format(record).splitlines()
    assert lines[1].startswith("Traceback") and r"ValueError: a\x1b[2J" in lines
    assert "\x1b" not in "".join(lines)


def _raising(error: BaseException) -> Callable[[], int]:
    def act() -> int:
        raise error

    return act


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError(EVIL), 2, f"error: {PLAIN}"),
        (RunFailed("worker-1: was killed"), 1, "error: worker-1: was killed"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/\x1by"), 2, r"error: /x/\x1by: Permission denied"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "y"), 2, "error: y: File name too long"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "error: No space left on device"),
        (OSError(errno.EMFILE, "Too many open files", "x"), 1, "error: x: Too many open files"),
        (MemoryError(), 1, "error: there is no memory left"),
        (
            ImportError("libx.so: failed to map"),
            1,
            "error: a part of the program cannot be loaded: libx.so: failed to map",
        ),
    ],
)
def test_what_ends_a_command_is_a_line_and_a_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(_raising(error)) == code
    assert capsys.readouterr().err == f"{line}\n"


def test_words_that_no_command_has_are_repeated_without_harm(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        ArgumentParser("x").parse_args([EVIL])
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(f"unrecognized arguments: {PLAIN}\n")


def test_a_report_shows_names_as_text(tmp_path: pathlib.Path) -> None:
    name = "<img src=x onerror=alert(1)>\n# ```"
    config = {**CONFIG, "data_dir": "a\n```\n<script>\n```"}
    meta = [*{**META, "ended": "failed: <b>|\n# x", "hardware": "<i>"}.items()]
    run = make_run(tmp_path / name, config, models=[model(0, 0, 4, 0.0, 1.0, 0.5, "a|<b>")], meta=meta)
    page = write_report(run).read_text()
    outside = [line for line in page.splitlines() if not line.startswith("    ")]
    assert not [line for line in outside if "<" in line or line.startswith(("```", "# x"))]
    assert outside[0] == "# Run &lt;img src=x onerror=alert(1)&gt; # ```"


@pytest.mark.process
@pytest.mark.parametrize("redirected", ["<&- 2>&-", "| head -n 1", ">/dev/full"])
def test_a_closed_stream_does_not_end_a_run(redirected: str, tmp_path: pathlib.Path) -> None:
    command = f'"$0" "$1" {" ".join(TINY)} --out run {redirected}; echo "codes ${{PIPESTATUS[@]}}"'
    done = subprocess.run(
        ["/bin/bash", "-c", command, sys.executable, str(ROOT / "main.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
    )
    lines = done.stdout.splitlines()
    assert lines[-1].split()[:2] == ["codes", "0"], done
    assert (tmp_path / "run" / "report" / "report.md").exists()
    assert len(lines) == {"<&- 2>&-": 5, "| head -n 1": 2, ">/dev/full": 1}[redirected], lines
    assert "rror" not in done.stderr and "Exception" not in done.stderr, done.stderr


def test_an_interrupt_is_held_back_while_compiled_code_would_drop_it() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), deferred_interrupt():
        with deferred_interrupt():
            signal.raise_signal(signal.SIGINT)
            done.append("inner")
        done.append("outer")
    assert done == ["inner", "outer"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_while_settings_are_read_is_no_mistake_in_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """pydantic's compiled code drops it, and what it interrupts seems to be wrong."""
    read: list[Settings] = []

    def contradictions(settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
        signal.raise_signal(signal.SIGINT)
        read.append(settings)
        return iter(())

    monkeypatch.setattr(loading, "contradictions", contradictions)
    with pytest.raises(KeyboardInterrupt):
        loading.load("digits.yaml")
    assert len(read) == 1
