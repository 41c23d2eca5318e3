"""The process that all others of a run are forked from: it has imported PyTorch and never touches CUDA."""

import concurrent.futures
import contextlib
import multiprocessing
import os
import pathlib
import signal
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
from aal.engines.local.parent_death import PARENT, PR_SET_PDEATHSIG

PACKAGE = pathlib.Path(__file__).resolve().parents[3]  # the folder that holds aal
# Dynamo, because the first optimiser of a process imports it, which takes as long as all of PyTorch.
PRELOAD = ["aal.engines.local.die_with_parent", "torch", "torch._dynamo", "numpy", "pydantic"]
GONE = 255  # the exit code that multiprocessing reports of a child when the fork server has died; the child may live
MAIN_MODULE = threading.Lock()  # held while it is replaced


def fork_context() -> ForkServerContext:
    """Returns the context whose processes are forked from the fork server, which is started when there is none.

    Raises:
        UserError: there is no place for its socket.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    sockets.use_folder()
    # Started with signals blocked, which a terminal sends to all: so are its children, before their first instruction.
    with _signals_blocked(), _environment():
        _ensure_resource_tracker()
        _ensure_fork_server()
    return context


def _ensure_fork_server() -> None:
    """Starts the fork server where there is none, from a thread that lasts as long as this program.

    The kernel takes the end of the thread that has started a process for the end of its parent: a run in a thread of
    its own would end the processes of all others with itself.
    """
    started = concurrent.futures.Future[None]()

    def start() -> None:
        before = _pid()
        try:
            forkserver.ensure_running()
            started.set_result(None)
        except OSError as error:
            started.set_exception(error)
        if _pid() != before:
            threading.Event().wait()

    threading.Thread(target=start, name="fork-server-parent", daemon=True).start()
    started.result()


def _pid() -> int | None:
    """Returns the number of the fork server's process; None where there is none."""
    pid: int | None = getattr(forkserver._forkserver, "_forkserver_pid", None)
    return pid


def _ensure_resource_tracker() -> None:
    """Starts the resource tracker of multiprocessing where there is none, as it does itself, but for one thing.

    It ends when all others have closed their pipes to it, which it does not see while it is stopped: so the kernel lets
    it go on when this program is gone.
    """
    tracker: Any = resource_tracker._resource_tracker
    if tracker._fd is None and sys.platform == "linux":
        read, tracker._fd = os.pipe()
        code = f"import ctypes; ctypes.CDLL(None).prctl({PR_SET_PDEATHSIG}, {signal.SIGCONT:d}); "
        code += f"from multiprocessing.resource_tracker import main; main({read})"
        python = os.fsencode(sys.executable)
        tracker._pid = util.spawnv_passfds(python, [python, b"-c", code.encode()], [read])
        os.close(read)
    resource_tracker.ensure_running()


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
        _ensure_fork_server()
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
    """Holds back the signals of a terminal: what is started meanwhile never gets them, this process gets them then.

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
