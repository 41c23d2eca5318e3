"""How a command talks to its user: a line a mistake, an exit code, no text from outside that acts on a terminal."""

import argparse
import contextlib
import logging
import os
import re
import sys
import types
from collections.abc import Callable
from typing import NoReturn, TextIO

from aal.config.errors import INTERRUPTED, RecordFailed, RunFailed, UserError, is_mendable

# What moves the cursor, starts a line or turns the direction of writing, and half characters, which no stream encodes.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
FAILED, USER_ERROR = 1, 2


def escaped(text: str) -> str:
    """Returns text as one line in which characters that control a terminal stand as in Python's source."""
    return CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def write_line(text: str, stream: TextIO | None) -> None:
    """Prints a line; what the stream cannot encode, and what controls a terminal, is escaped.

    Where the stream is closed or its disk is full, output is dropped: the run goes on.
    """
    if stream is None:  # closed before Python started
        return
    encoding = stream.encoding or "utf-8"
    try:
        print(escaped(text).encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except OSError:
        _drop(stream)


def _drop(stream: TextIO) -> None:
    """Sends what is still written to a stream to nowhere."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class LineFormatter(logging.Formatter):
    """Formats a record as one line, and a traceback below it, with everything from outside escaped."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802, D102 - the names of logging
        return escaped(super().formatMessage(record))

    def formatException(self, info) -> str:  # type: ignore[no-untyped-def] # noqa: N802, D102
        return "\n".join(map(escaped, super().formatException(info).splitlines()))


def log_to_terminal() -> None:
    """Sends this process's log to standard error."""
    log = logging.getLogger("aal")
    log.setLevel(logging.INFO)
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter())
    log.handlers = [handler]


class ArgumentParser(argparse.ArgumentParser):
    """Parses the words of a command; what it repeats of them is escaped."""

    def error(self, message: str) -> NoReturn:
        """Reports a mistake and ends the command."""
        self.print_usage(sys.stderr)
        write_line(f"{self.prog}: error: {message}", sys.stderr)
        raise SystemExit(USER_ERROR)


def run_command(act: Callable[[], int]) -> int:
    """Runs what a command does; whatever ends it early is reported in a line each.

    Args:
        act: what the command does; returns the exit code.

    Returns:
        The exit code: that of `act`, 1 failed, 2 the user's mistake, 130 interrupted.
    """
    _open_standard_streams()
    try:
        _check_folder()
        return act()
    except UserError as error:
        return _report(USER_ERROR, *error.problems)
    except (RunFailed, RecordFailed) as error:
        return _report(FAILED, *str(error).splitlines())
    except KeyboardInterrupt:
        write_line("interrupted", sys.stderr)
        return INTERRUPTED["SIGINT"]
    except MemoryError:
        return _report(FAILED, "there is no memory left")
    except ImportError as error:
        return _report(FAILED, _unloaded(error))
    except OSError as error:
        place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return _report(USER_ERROR if is_mendable(error) else FAILED, f"{place}{error.strerror or error}")
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:  # the reader has closed it, as `head` does
                _drop(stream)


def _check_folder() -> None:
    try:
        os.getcwd()
    except OSError:  # in which some libraries end the process
        raise UserError("the folder that this program was started in is gone, or may not be read") from None


def check_before_imports() -> None:
    """Reports in a line what a script cannot import before it comes to `run_command`, and an interrupt meanwhile.

    Ends the program where PyTorch would: in a folder that is gone.
    """
    try:
        _check_folder()
    except UserError as error:
        raise SystemExit(_report(USER_ERROR, *error.problems)) from None

    def report(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
        if isinstance(error, ImportError | MemoryError):
            write_line(f"error: {_unloaded(error)}", sys.stderr)
        elif isinstance(error, KeyboardInterrupt):
            write_line("interrupted", sys.stderr)
        else:
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = report


def _unloaded(error: BaseException) -> str:
    """What is said of a broken installation, or of a library that there is no memory for."""
    return f"a part of the program cannot be loaded: {error}"


def _report(code: int, *problems: str) -> int:
    for problem in problems:
        write_line(f"error: {problem}", sys.stderr)
    return code


def _open_standard_streams() -> None:
    """Opens those that were closed when the program started: the next file would take their number, and output."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))
