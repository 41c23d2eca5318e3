"""The process that all others of a run are forked from: it has imported PyTorch and never touches CUDA."""

import concurrent.futures
import contextlib
import functools
import multiprocessing
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.context import ForkServerContext
from typing import Any

from aal.config.errors import INTERRUPTED
from aal.engines.local import sockets
from aal.engines.local.liveness import Peer
from aal.engines.local.parent_death import PARENT
from aal.engines.processes import WITH_ALL

PACKAGE = pathlib.Path(__file__).resolve().parents[3]  # the folder that holds aal
# Dynamo, because the first optimiser of a process imports it, which takes as long as all of PyTorch.
PRELOAD = ["aal.engines.local.die_with_parent", "torch", "torch._dynamo", "numpy", "pydantic"]
GONE = WITH_ALL  # the exit code of a child when the fork server has died; the child may live
MAIN_MODULE = threading.Lock()  # held while it is replaced
SPAWNING = threading.Lock()  # held while the way to start Python is replaced


def fork_context() -> ForkServerContext:
    """Returns the context whose processes are forked from the fork server, which is started when there is none.

    Raises:
        UserError: there is no place for its socket.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    sockets.use_folder()
    with _environment():
        _ensure_running()
    return context


def _ensure_running() -> None:
    """Starts the fork server and the resource tracker of multiprocessing where there are none.

    They are started from a thread that lasts as long as this program: the kernel takes the end of the thread that has
    started a process for the end of its parent, so a run in a thread of its own would end the processes of all others.
    The tracker ends when all others have closed their pipes to it, which it does not see while it is stopped: it is
    continued when this program is gone.
    """
    started = concurrent.futures.Future[None]()

    def start() -> None:
        before = _pid()
        try:
            with _death_signal(signal.SIGCONT):
                resource_tracker.ensure_running()
            # The signals of a terminal are blocked there, and so in all children from their first instruction on.
            with _signals_blocked(), _death_signal(signal.SIGKILL):
                forkserver.ensure_running()
            started.set_result(None)
        except Exception as error:
            started.set_exception(error)
        if _pid() != before:
            threading.Event().wait()

    threading.Thread(target=start, name="fork-server-parent", daemon=True).start()
    started.result()


@contextlib.contextmanager
def _death_signal(number: signal.Signals) -> Iterator[None]:
    """Has the kernel send a signal to the Python processes started meanwhile when this program ends.

    The kernel is asked before Python starts there: a process that is stopped while it starts cannot ask. What is asked
    outlasts an exec (prctl(2)).
    """
    setpriv = _setpriv()
    if setpriv is None:  # the fork server asks for itself, in its first module
        yield
        return

    def spawn(path: Any, args: list[Any], passfds: list[int]) -> int:
        words = [setpriv, "--pdeathsig", number.name.removeprefix("SIG"), "--", path, *args[1:]]
        return plain(os.fsencode(setpriv), words, passfds)

    with SPAWNING:
        plain = util.spawnv_passfds
        util.spawnv_passfds = spawn  # type: ignore[assignment]
        try:
            yield
        finally:
            util.spawnv_passfds = plain


@functools.cache
def _setpriv() -> str | None:
    """Returns the path of the setpriv of util-linux; None where there is none that knows --pdeathsig."""
    path = shutil.which("setpriv")
    if path is None:
        return None
    words = [path, "--pdeathsig", "KILL", "--", "true"]
    known = subprocess.run(words, capture_output=True).returncode == 0  # noqa: S603, no shell and no user's word
    return path if known else None


def _pid() -> int | None:
    """Returns the number of the fork server's process; None where there is none."""
    pid: int | None = getattr(forkserver._forkserver, "_forkserver_pid", None)
    return pid


def kill() -> None:
    """Kills the fork server, and so all that it has forked; the next start of a process starts a new one."""
    pid = _pid()
    if pid is not None:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # else it would be taken for one that is alive


FORK_SERVER = Peer("fork server", kill)


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Prepares for the start of a process, which starts a new fork server too where the former one has just died."""
    with _without_main_module(), _environment():
        _ensure_running()
        yield


@contextlib.contextmanager
def _without_main_module() -> Iterator[None]:
    """Keeps processes that are started meanwhile from importing the user's script again, which would run it twice."""
    with MAIN_MODULE:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Blocks the signals of a terminal in this thread, and so in what it starts meanwhile.

    All others are let through, whatever the parent of this program had blocked: a fork server that gets no SIGCHLD
    never reports the end of a child.
    """
    before = signal.pthread_sigmask(
        signal.SIG_SETMASK, [signal.Signals[name] for name in INTERRUPTED if name != "SIGTERM"]
    )
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Lets the fork server find the package, wherever the program was started, and know who starts it."""
    path = os.pathsep.join(filter(None, (str(PACKAGE), os.environ.get("PYTHONPATH"))))
    changes = {"PYTHONPATH": path, PARENT: str(os.getpid())}
    before = {key: os.environ.get(key) for key in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
