"""Runs of the command `main.py` as their own process: what their processes are, and when they have come how far."""

import contextlib
import multiprocessing
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest.mock
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import psutil

from aal.config.errors import RunFailed, UserError
from aal.storage.run_reader import RunReader
from bench.rows import until

HELPERS = {"multiprocessing.forkserver": "fork server", "multiprocessing.resource_tracker": "resource tracker"}
ROOT = pathlib.Path(__file__).resolve().parent.parent
# main.py, which also ends when the bench is killed.
START = "import sys, aal.engines.local.die_with_parent; from aal.app import main; sys.exit(main.main())"


@dataclass(frozen=True)
class Run:
    """A run directory, and the main process of the run; what it prints goes to a file beside the directory."""

    folder: pathlib.Path
    process: subprocess.Popen[bytes]

    def check(self, *allowed: int) -> None:
        """Raises RunFailed when the run has ended with an exit code other than 0 and the `allowed` ones."""
        if (code := self.process.poll()) not in (None, 0, *allowed):
            said = self.folder.with_suffix(".txt").read_text(encoding="utf-8")[-2000:].strip()
            raise RunFailed(f"a run of the bench failed with exit code {code}: {said}")

    def wait(self, reached: Callable[[], bool] | None = None, limit_s: float = 3600.0, every_s: float = 0.01) -> None:
        """Waits until the run has come so far, or else to its end; raises RunFailed, or TimeoutError at the limit."""

        def is_done() -> bool:
            self.check()
            return self.process.poll() == 0 if reached is None else reached()

        if not until(is_done, limit_s, every_s):
            raise TimeoutError(f"a run of the bench took longer than {limit_s:.0f} s")

    def value(self, query: str) -> float:
        """Returns the one number that a query finds in `run.db`; 0 while there is no such table."""
        with contextlib.suppress(UserError), RunReader(self.folder) as record:
            return record.value(query) or 0
        return 0

    def processes(self) -> Iterator[tuple[str, psutil.Process]]:
        """Yields the living processes of the run and their names, such as `server-0`.

        The log names all but the hub, which holds `run.db` open, the fork server and the resource tracker. A process
        that has only begun has no name yet and is left out.
        """
        log, database = self.folder / "log.txt", str(self.folder / "run.db")
        text = log.read_text(encoding="utf-8") if log.exists() else ""
        names = {int(pid): name for name, pid in re.findall(r"^\S+ \S+ (\S+) (\d+) INFO started$", text, re.M)}
        with contextlib.suppress(psutil.NoSuchProcess):
            main = psutil.Process(self.process.pid)
            yield "main", main
            for process in main.children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    is_hub = any(file.path == database for file in process.open_files())
                    command = " ".join(process.cmdline()) if process.ppid() == main.pid else ""
                    helper = next((name for module, name in HELPERS.items() if module in command), None)
                    name = "hub" if is_hub else helper or names.get(process.pid)
                    if name is not None:
                        yield name, process


@contextlib.contextmanager
def running(
    words: list[str],
    folder: pathlib.Path | None = None,
    images: pathlib.Path | None = None,
    spawn: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Run]:
    """Starts a run, or goes on with the one that is in its folder; ends it with the block if need be.

    `images` is a folder of prepared images, to use whatever the config says; with `spawn` each process starts anew and
    imports what it needs, as most programs of this kind have it.
    """
    program = ["-c", START]
    if images is not None or spawn:
        program = ["-m", "bench.run_process", str(images or ""), "spawn" if spawn else ""]
    with tempfile.TemporaryDirectory(prefix="bench-run-") as temporary:
        folder = folder or pathlib.Path(temporary) / "run"
        words = ["--resume", str(folder)] if (folder / "config.yaml").exists() else [*words, "--out", str(folder)]
        with folder.with_suffix(".txt").open("a") as output:
            process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, *program, *words],
                cwd=ROOT,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=environment,
            )
        try:
            yield Run(folder, process)
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
            process.kill()  # all that it has started end with it
            process.wait()


def survivors(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Waits so long for processes to end; returns those that live on. A zombie has ended, it only was not reaped."""

    def lives(process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            return process.status() != psutil.STATUS_ZOMBIE
        return False

    until(lambda: not any(map(lives, processes)), seconds)
    return list(filter(lives, processes))


def _main(images: str, start: str, words: list[str]) -> int:
    import aal.engines.local.die_with_parent  # noqa: F401
    from aal.app import data, main

    with contextlib.ExitStack() as patches:
        if images:
            patches.enter_context(unittest.mock.patch.object(data, "prepare", return_value=pathlib.Path(images)))
        if start == "spawn":
            context = multiprocessing.get_context("spawn")
            patches.enter_context(unittest.mock.patch("aal.engines.local.engine.fork_context", return_value=context))
            os.environ["PYTHONPATH"] = str(ROOT)
        return main.main(words)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], sys.argv[2], sys.argv[3:]))
