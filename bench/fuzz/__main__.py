"""Inputs that nobody would write, damaged files and poor environments, at random: all must be taken or refused by name.

settings      configs and `key=value` words: accepted, or refused by a line each, and estimated if accepted
images        image sets with damaged and hostile parts: opened, or refused by one line
runs          damaged run directories: resumed, reported, exported, or refused, and no answer vanishes without a word
environments  commands without memory, files, folders, permissions or output: each ends by itself and says why

No case may end in a traceback, hang, or start a program. Cases are numbered; the seed and the number make the case.

Example:
  python -m bench.fuzz settings --number 10000 --seed 0
"""

import contextlib
import importlib
import logging
import pathlib
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from typing import Any

import yaml

from aal.config.errors import UserError
from bench.fuzz.case import Broken, TooLong
from bench.rows import at_least_one, parser_of

SUBJECTS = ("settings", "images", "runs", "environments")
LONGEST_LINE = 2000  # characters of a refusal
NEWS_S = 20.0  # between lines of progress


def main(words: list[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0 all held, 1 something did not."""
    parser = parser_of("bench.fuzz", __doc__)
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument("--number", type=at_least_one, metavar="N", help="cases to try (default: the subject's own)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the cases (default: 0)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first case (default: 0)")
    given = parser.parse_args(words)
    found = fuzz(given.subject, given.number, given.seed, given.first)
    print(yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=120))
    return int(bool(found["failures"]))


def fuzz(subject: str, number: int | None = None, seed: int = 0, first: int = 0) -> dict[str, Any]:
    """Tries cases, until the end or Ctrl-C.

    Args:
        subject: one of SUBJECTS, a module beside this one.
        number: of cases; None for as many as a complete run of the subject has.
        seed: of the cases.
        first: the number of the first one.

    Returns:
        How many were tried, how often they ended how, the longest time in seconds, and the failures, a text each.
    """
    module = importlib.import_module(f"bench.fuzz.{subject}")
    number = number or module.NUMBER
    endings: Counter[str] = Counter()
    failures: list[str] = []
    longest, news = (0.0, first), time.monotonic()
    tried = 0
    with tempfile.TemporaryDirectory(prefix="aal-fuzz-") as name, _silent(), contextlib.suppress(KeyboardInterrupt):
        place = pathlib.Path(name)
        for which in range(first, first + number):
            began = time.monotonic()
            ended, failure = _tried(module, place, seed, which)
            tried += 1
            endings.update(ended)
            longest = max(longest, (time.monotonic() - began, which))
            shutil.rmtree(place / str(which), ignore_errors=True)
            if failure:
                failures.append(f"case {which} of seed {seed}: {failure}")
                print(failures[-1], file=sys.stderr, flush=True)
            if time.monotonic() - news > NEWS_S:
                news = time.monotonic()
                print(f"{tried} of {number}, {len(failures)} failed", file=sys.stderr, flush=True)
    about = {"subject": subject, "cases": tried, "seed": seed, "endings": dict(sorted(endings.items()))}
    slowest = {"longest_s": round(longest[0], 2), "longest_case": longest[1]}
    return {**about, **slowest, "failed": len(failures), "failures": failures}


def _tried(module: Any, place: pathlib.Path, seed: int, number: int) -> tuple[list[str], str | None]:
    """Tries a case; returns how it ended, and what is wrong with that."""
    about = "while it was made"
    try:
        with limited(module.SECONDS):
            case = module.make(place, seed, number)
            about = case.about
            return case.attempt(), None
    except UserError as error:
        is_clear = error.problems and all(line and len(line) <= LONGEST_LINE for line in error.problems)
        return ["refused"], None if is_clear else f"{about}: a message of no use: {error.problems!r:.300}"
    except Broken as error:
        return [], f"{about}: {error}"
    except KeyboardInterrupt:
        raise
    except BaseException:
        return [], f"{about}: {traceback.format_exc(limit=-5)}"


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Leaves out what is logged; programs that are started log as they do."""
    log = logging.getLogger("aal")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises TooLong after some seconds, wherever the code inside is; a timer that was set before goes on."""

    def end(number: int, frame: object) -> None:
        raise TooLong(f"took longer than {seconds} s")

    began, before = time.monotonic(), signal.signal(signal.SIGALRM, end)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(0.01, left - (time.monotonic() - began)))


if __name__ == "__main__":
    sys.exit(main())
