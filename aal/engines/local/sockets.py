"""The folder of the sockets by which the processes of this machine talk to the hub and to the fork server."""

import fcntl
import os
import pathlib
import shutil
import socket
import tempfile
from multiprocessing import process, util

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
            held = _locked(folder)
            if held is not None:  # else another program has taken it for one that was left behind
                break
        util.Finalize(None, _remove, args=(folder, held), exitpriority=-100)  # when all processes have ended
        with socket.socket(socket.AF_UNIX) as trial:
            trial.bind(str(folder / "trial"))
    except OSError as error:
        raise UserError(
            f"TMPDIR: {os.environ.get('TMPDIR', tempfile.gettempdir())}: no place for sockets: "
            f"{error.strerror or error}; set TMPDIR to a folder that has room"
        ) from None
    remove_left(where)
    return folder


def remove_left(where: pathlib.Path) -> None:
    """Removes the folders of programs that were killed: nobody holds their locks."""
    for left in where.glob(f"{PREFIX}*"):
        held = _locked(left)
        if held is None:
            continue
        if os.fstat(held).st_uid == os.getuid():
            _remove(left, held)
        else:
            os.close(held)


def _place() -> pathlib.Path:
    """Returns the folder for temporary files, or another where its name is too long for a socket."""
    for name in (tempfile.gettempdir(), "/tmp", "/var/tmp"):  # noqa: S108 - a private folder is made in it
        if len(os.fsencode(name)) + len(f"/{PREFIX}12345678") <= LONGEST and os.access(name, os.W_OK | os.X_OK):
            return pathlib.Path(name)
    raise OSError(f"its name is longer than {LONGEST - len(PREFIX) - 9} bytes")


def _locked(folder: pathlib.Path) -> int | None:
    """Opens a folder and locks it for this program; None where another holds it, or it is gone.

    The lock is on the folder itself, not on a file in it: whenever a program is killed, what it leaves can be locked.
    """
    try:
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(held), os.stat(folder)):
            return held
    except OSError:
        pass
    os.close(held)
    return None


def _remove(folder: pathlib.Path, held: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(held)
