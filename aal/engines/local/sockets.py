"""The folder of the sockets by which the processes of this machine talk to the hub and to the fork server."""

import contextlib
import os
import pathlib
import shutil
import socket
import tempfile
from multiprocessing import process, util

from filelock import FileLock, Timeout

from aal.config.errors import UserError

PREFIX = "aal-sockets-"
LONGEST = 103 - len("/listener-12345678")  # of the folder's name: a socket's may have 103 bytes on every system


def use_folder() -> None:
    """Gives this program a private folder for its sockets, which goes with it; those of killed programs are removed.

    Raises:
        UserError: there is no place for it.
    """
    config = process.current_process()._config  # type: ignore[attr-defined]
    if config.get("tempdir") is not None:  # where multiprocessing keeps its sockets
        return
    config["tempdir"] = str(_new_folder())


def _new_folder() -> pathlib.Path:
    try:
        where = _place()
        while True:
            folder = pathlib.Path(tempfile.mkdtemp(prefix=PREFIX, dir=where))
            lock = FileLock(folder / ".lock", timeout=0)
            with contextlib.suppress(Timeout):
                lock.acquire()
                if (folder / ".lock").exists():  # else another program has taken it for one that was left behind
                    break
        util.Finalize(None, _remove, args=(folder, lock), exitpriority=-100)  # when all processes have ended
        with socket.socket(socket.AF_UNIX) as trial:
            trial.bind(str(folder / "trial"))
    except OSError as error:
        raise UserError(
            f"TMPDIR: {os.environ.get('TMPDIR', tempfile.gettempdir())}: no place for sockets: "
            f"{error.strerror or error}; set TMPDIR to a folder that has room"
        ) from None
    for left in where.glob(f"{PREFIX}*"):
        _remove_if_left(left)
    return folder


def _place() -> pathlib.Path:
    """Returns the folder for temporary files, or another where its name is too long for a socket."""
    for name in (tempfile.gettempdir(), "/tmp", "/var/tmp"):  # noqa: S108 - a private folder is made in it
        if len(os.fsencode(name)) + len(f"/{PREFIX}12345678") <= LONGEST and os.access(name, os.W_OK | os.X_OK):
            return pathlib.Path(name)
    raise OSError(f"its name is longer than {LONGEST - len(PREFIX) - 9} bytes")


def _remove_if_left(folder: pathlib.Path) -> None:
    """Removes the folder of a program that was killed: its lock is free."""
    with contextlib.suppress(OSError):
        if (folder / ".lock").exists() and folder.stat().st_uid == os.getuid():
            lock = FileLock(folder / ".lock", timeout=0)
            with contextlib.suppress(Timeout), lock:
                shutil.rmtree(folder, ignore_errors=True)


def _remove(folder: pathlib.Path, lock: FileLock) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lock.release()
