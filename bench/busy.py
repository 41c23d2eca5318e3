"""A small run beside programs that only compute: how much longer than on idle cores, and than with fixed threads."""

import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial

from aal.config.cores import core_count
from bench.harness import Source
from bench.rows import Options, Row, alternate
from bench.run_process import ROOT, running
from bench.settings import WORDS

BESIDE = (0, 2, 4)  # programs that only compute
LIMIT_S = 900  # for one run
AIM = 3.0  # times as long as on idle cores, at the most
# It ends with the bench, also when that is killed, and in any case after a run's limit.
LOOP = "import signal, sys, aal.engines.local.die_with_parent\nsignal.alarm(int(sys.argv[1]))\nwhile True: pass"


def measure(options: Options, source: Source) -> Iterator[Row]:
    """Gives the seconds of a run of the digits by itself and beside busy loops: ours, and with the best fixed threads.

    With `options.full` it is the demo itself.
    """
    words = ["--config", "digits.yaml"] if options.full else WORDS["busy"]
    contenders = {}
    for loops in BESIDE:
        contenders[f"{loops}/ours"] = partial(seconds_beside, loops, words)
        for threads in _fixed(loops):
            fixed = [*words, f"devices.server_threads={threads}"]
            contenders[f"{loops}/{threads}"] = partial(seconds_beside, loops, fixed)
    found = alternate(options.rounds, contenders)
    idle = found["0/ours"]
    for loops in BESIDE:
        ours, name = found[f"{loops}/ours"], f"busy/{loops}-loops" if loops else "busy/idle"
        best = min((found[f"{loops}/{threads}"] for threads in _fixed(loops)), key=statistics.median)
        yield Row(name, "s", ours, limit=best)
        if loops:
            longer = [seconds / alone for seconds, alone in zip(ours, idle, strict=True)]
            yield Row(f"{name}/of-idle", "times", longer, limit=[AIM])
    options.note("busy", words=" ".join(words), aim=AIM)


def _fixed(loops: int) -> list[int]:
    """Returns the numbers of threads that could be the best beside so many loops."""
    return sorted({1, max(1, core_count() - loops)})


def seconds_beside(loops: int, words: list[str]) -> float:
    """Returns how long the command takes beside so many busy loops."""
    with busy_loops(loops):
        began = time.monotonic()
        with running(words) as run:
            run.wait(limit_s=LIMIT_S)
            return time.monotonic() - began


@contextlib.contextmanager
def busy_loops(number: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Starts programs that only compute; ends them with the block."""
    loops: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(number):
            loops.append(subprocess.Popen([sys.executable, "-c", LOOP, str(LIMIT_S + 60)], cwd=ROOT))  # noqa: S603 - our own
        yield loops
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
