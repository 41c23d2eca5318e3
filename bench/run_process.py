"""Runs of the command `main.py` as their own process: what their processes are, and when they have come how far."""

import contextlib
import multiprocessing
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import unittest.mock
from collections.abc import Callable, Iterator

import psutil

from aal.config.errors import RunFailed, UserError
from aal.engines.signals import collected
from aal.storage.run_reader import RunReader

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIMIT_S = 3600.0


@contextlib.contextmanager
def running(
    run: pathlib.Path, words: list[str], images: pathlib.Path | None = None, spawn: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """Starts a run in its folder, or goes on with the one that is there; ends it with the block if need be.

    `images` is a folder of prepared images, to use whatever the config says; with `spawn` each process starts anew and
    imports what it needs, as most programs of this kind have it. What the run prints goes to a file beside its folder.
    """
    program = ["main.py"]
    if images is not None or spawn:
        program = ["-m", "bench.run_process", str(images or ""), "spawn" if spawn else ""]
    words = ["--resume", str(run)] if (run / "config.yaml").exists() else [*words, "--out", str(run)]
    process = None
    try:
        with _output_of(run).open("a") as output, collected(1) as caught:
            process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, *program, *words], cwd=ROOT, stdout=output, stderr=output, start_new_session=True
            )
        for name in caught:  # a signal before this line would have ended the bench without ending the run
            signal.raise_signal(signal.Signals[name])
        yield process
    finally:
        if process is not None:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
                process.kill()
                process.wait()


def _output_of(run: pathlib.Path) -> pathlib.Path:
    return run.parent / f"{run.name}.txt"


def wait_for(
    process: subprocess.Popen[bytes],
    run: pathlib.Path,
    reached: Callable[[], bool] | None = None,
    limit_s: float = LIMIT_S,
) -> None:
    """Waits until a run has come so far, or else to its end.

    Raises:
        RunFailed: it failed before.
        TimeoutError: it took longer than `limit_s`.
    """
    deadline = time.monotonic() + limit_s
    while not (process.poll() == 0 if reached is None else reached()):
        check(process, run)
        if time.monotonic() > deadline:
            raise TimeoutError(f"a run of the bench took longer than {limit_s:.0f} s")
        time.sleep(0.01)


def check(process: subprocess.Popen[bytes], run: pathlib.Path, *allowed: int) -> None:
    """Raises RunFailed when a run has ended with an exit code other than 0 and the `allowed` ones."""
    if process.poll() not in (None, 0, *allowed):
        said = _output_of(run).read_text(encoding="utf-8")[-2000:].strip()
        raise RunFailed(f"a run of the bench failed with exit code {process.returncode}: {said}")


def value(run: pathlib.Path, query: str) -> float:
    """Returns the one number that a query finds in `run.db`; 0 while there is no such table."""
    with contextlib.suppress(UserError), RunReader(run) as record:
        return record.value(query) or 0
    return 0


def processes_of(pid: int, run: pathlib.Path) -> Iterator[tuple[str, psutil.Process]]:
    """Yields the living processes of the run whose main process is `pid`, and their names, such as `server-0`.

    The log names all but the hub, which holds `run.db` open, and the fork server. A process that has only begun has
    no name yet and is left out.
    """
    log = run / "log.txt"
    text = log.read_text(encoding="utf-8") if log.exists() else ""
    names = {int(number): name for name, number in re.findall(r"^\S+ \S+ (\S+) (\d+) INFO started$", text, re.M)}
    with contextlib.suppress(psutil.NoSuchProcess):
        main = psutil.Process(pid)
        yield "main", main
        for process in main.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                is_hub = any(file.path == str(run / "run.db") for file in process.open_files())
                is_fork_server = process.ppid() == pid and "forkserver" in " ".join(process.cmdline())
                name = "hub" if is_hub else "fork server" if is_fork_server else names.get(process.pid)
                if name is not None:
                    yield name, process


def survivors(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Waits so long for processes to end; returns those that live on. A zombie has ended, it only was not reaped."""

    def lives(process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            return process.status() != psutil.STATUS_ZOMBIE
        return False

    deadline = time.monotonic() + seconds
    while (alive := list(filter(lives, processes))) and time.monotonic() < deadline:
        time.sleep(0.05)
    return alive


def _main(images: str, start: str, words: list[str]) -> int:
    from aal.app import data, main

    with contextlib.ExitStack() as patches:
        if images:
            folder = pathlib.Path(images)
            patches.enter_context(unittest.mock.patch.object(data, "prepare", return_value=folder))
        if start == "spawn":
            context = multiprocessing.get_context("spawn")
            patches.enter_context(unittest.mock.patch("aal.engines.local.engine.fork_context", return_value=context))
            os.environ["PYTHONPATH"] = str(ROOT)
        return main.main(words)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], sys.argv[2], sys.argv[3:]))
