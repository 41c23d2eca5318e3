"""Whole runs for the benches: the command `main.py` as its own process, on images that are prepared already."""

import contextlib
import os
import pathlib
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import psutil

from aal.config.errors import RunFailed
from aal.engines.signals import collected

ROOT = pathlib.Path(__file__).resolve().parent.parent
POLL_S = 0.01
LIMIT_S = 3600.0


@contextlib.contextmanager
def running(
    out: pathlib.Path, words: list[str], images: pathlib.Path | None = None, spawn: bool = False
) -> Iterator[subprocess.Popen]:
    """Starts a run; ends it with the block, if it has not ended by itself.

    Args:
        out: the run's folder.
        words: of the command line.
        images: folder of the prepared images, whatever the config says; None for those of the config.
        spawn: whether each process starts anew and imports what it needs, as most programs of this kind have it.
    """
    program = [sys.executable, str(ROOT / "main.py")]
    if images is not None or spawn:
        program = [sys.executable, "-m", "bench.whole", str(images or ""), "spawn" if spawn else ""]
    process = None
    try:
        with (out.parent / f"{out.name}.txt").open("w") as told, collected(1) as caught:
            process = subprocess.Popen(  # noqa: S603 - our own command
                [*program, *words, "--out", str(out)], cwd=ROOT, stdout=told, stderr=told, start_new_session=True
            )
        for name in caught:  # while it started; had it been heard at once, nobody would know whom to end
            signal.raise_signal(signal.Signals[name])
        yield process
    finally:
        if process is not None:
            _end(process)


def _end(process: subprocess.Popen) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        process.wait()


def wait_for(
    process: subprocess.Popen, reached: Callable[[], bool], limit_s: float = LIMIT_S, poll_s: float = POLL_S
) -> float:
    """Waits until the run has come so far; returns the seconds.

    Raises:
        RunFailed: it ended before, by a failure.
        TimeoutError: it took longer than `limit_s`.
    """
    started_at = time.monotonic()
    while not reached():
        check(process)
        if time.monotonic() - started_at > limit_s:
            raise TimeoutError(f"a run of the bench took longer than {limit_s:.0f} s")
        time.sleep(poll_s)
    return time.monotonic() - started_at


def check(process: subprocess.Popen) -> None:
    """Raises RunFailed when the run has failed."""
    if process.poll() not in (None, 0):
        raise RunFailed(f"a run of the bench failed with exit code {process.returncode}")


def value(run: pathlib.Path, query: str) -> float:
    """Returns the one number that a query finds in `run.db`; 0 while there is no such table."""
    address = (run / "run.db").resolve().as_uri() + "?mode=ro"
    with (
        contextlib.suppress(sqlite3.OperationalError),
        contextlib.closing(sqlite3.connect(address, uri=True)) as database,
    ):
        return database.execute(query).fetchone()[0] or 0
    return 0


def _main(folder: str, start: str, words: list[str]) -> int:
    import multiprocessing

    from aal.app import data, main

    if folder:
        data.prepare = lambda settings: pathlib.Path(folder)
    if start == "spawn":
        import aal.engines.local.engine

        context = multiprocessing.get_context("spawn")
        multiprocessing.get_context = lambda method=None: context  # type: ignore[assignment]
        aal.engines.local.engine.ensure_running = lambda: None
        os.environ["PYTHONPATH"] = str(ROOT)
    return main.main(words)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], sys.argv[2], sys.argv[3:]))
