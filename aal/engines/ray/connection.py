"""How this program joins a Ray cluster, or starts one on this machine, and what of Ray it keeps to itself."""

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import ray
from ray.exceptions import RayError

from aal.config.errors import Refused, RunFailed
from aal.config.ray import RaySettings
from aal.engines.ray.cluster import Cluster, answers

OBJECTS = 256 * 2**20  # bytes of the object store of a cluster that is started here, where files are mapped
AUTH = "RAY_AUTH_MODE"
_lost: set[str] = set()  # connections of this program

log = logging.getLogger("aal")


@contextlib.contextmanager
def connected(settings: RaySettings) -> Iterator[Cluster]:
    """Starts a cluster on this machine or joins one, and leaves it again; one that the caller has joined stays.

    Raises:
        Refused: no cluster answers at the address, or it does not take this program.
        RunFailed: this program has lost its cluster, and Ray holds on to it.
    """
    if not (was_there := ray.is_initialized()):
        _join(settings)
    elif _connection() in _lost:
        raise RunFailed("this program has lost its Ray cluster, and can join no other one; start it again")
    cluster = Cluster(joined=was_there or settings.address is not None)
    try:
        yield cluster
    finally:
        if not cluster.may_be_asked():  # it may wait for the head until Ray ends this program: not before the report
            _lost.add(_connection())
        elif not was_there:
            ray.shutdown()


def _connection() -> str:
    """Returns what Ray calls this program from when it joins a cluster until it leaves it."""
    return str(ray.get_runtime_context().get_worker_id())


def _join(settings: RaySettings) -> None:
    address = settings.address
    if address not in (None, "auto") and not answers(str(address)):
        raise Refused(f"ray.address: {address}: nothing answers there; give the host:port that `ray start` printed")
    _keep_off_the_terminal()
    more: dict[str, Any] = {} if address else {"object_store_memory": OBJECTS, "include_dashboard": False}
    if not address:  # a cluster started here reports to nobody, unless asked to
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        with _without_its_handlers():
            ray.init(
                address or "local", log_to_driver=False, configure_logging=False, logging_level=logging.ERROR, **more
            )
    except (RayError, ConnectionError, RuntimeError, ValueError, OSError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        is_there = "Failed to connect" in lines[0]
        if address == "auto" and isinstance(error, ConnectionError) and not is_there:
            raise Refused("ray.address: auto: no Ray cluster runs on this machine; `ray start` joins one") from None
        what = f"ray.address: {address}" if address else "engine: ray: cannot be started here"
        may_want_token = is_there and os.environ.get(AUTH) != "token"
        hint = f"; if the cluster asks for a token, set {AUTH}=token" if may_want_token else ""
        raise Refused(f"{what}: {lines[0]}{hint}") from None


@contextlib.contextmanager
def _without_its_handlers() -> Iterator[None]:
    """Keeps Ray from handling SIGTERM itself, in Python or in C++, which would end this program without its report."""
    from ray._private import utils

    before = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = before
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))  # which Ray's C++ has replaced unseen


def _keep_off_the_terminal() -> None:
    """Has what Ray's machines report go to the log, and not to standard output."""
    from ray._private import worker

    for name in ("ray", "ray._private.authentication"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = _log_lines


def _log_lines(data: Mapping[str, Any], ignore_prefix: bool) -> None:
    for line in data.get("lines", ()):
        log.info("ray: %s", line)
