"""The run directory: its name, its settings, its log."""

import contextlib
import logging
import os
import pathlib
import re
import shutil
from collections.abc import Collection, Iterator

from aal.config.errors import Refused, UserError, of_system
from aal.config.loading import dump
from aal.config.settings import Settings
from aal.config.terminal import LineFormatter
from aal.coordination.federation import CLIENTS
from aal.storage.atomic import LOCK, TEMPORARY, claimed, write_whole
from aal.storage.journal import RESCUED

MODELS, SETTINGS = "models", "config.yaml"
WRITTEN = (MODELS, CLIENTS)  # folders in which roles write
OF_ROLES = re.compile(r"(training|local|average|kept)-\d+-(server|client)-\d+(-\d+)?\.pt\Z")  # and so no one else's


@contextlib.contextmanager
def new_run(settings: Settings, run: pathlib.Path) -> Iterator[None]:
    """Begins a new run in a directory, with its `config.yaml`, and holds it for this program alone.

    Of a run that its engine refuses nothing is left, so that the same command can be given again.

    Args:
        settings: of the run.
        run: an empty directory, as `new_directory` makes it.

    Raises:
        UserError: the directory is taken or cannot be written.
        RunFailed: the disk is full or fails.
    """
    with claim(run):
        if not _is_free(run):  # another program was there first
            raise UserError(f"--out {run}: is not an empty directory; name a new one, or use --resume {run}")
        with writing(run):
            write_settings(run, settings)  # first: a folder that holds more than half-written files can be resumed
            tidy(run)
        try:
            yield
        except Refused:
            _empty(run)
            raise


@contextlib.contextmanager
def going_on_with(settings: Settings, run: pathlib.Path) -> Iterator[None]:
    """Makes changed settings those of a run that goes on; when its engine refuses it, they are what they were.

    Args:
        settings: of the run.
        run: its directory, which the caller holds.

    Raises:
        UserError: the directory cannot be written.
        RunFailed: the disk is full or fails.
    """
    with writing(run):
        before = (run / SETTINGS).read_bytes()
        write_settings(run, settings)
    try:
        yield
    except Refused:
        with writing(run):
            write_whole(run / SETTINGS, before)
        raise


def _empty(run: pathlib.Path) -> None:
    """Removes a directory that was empty before, and all that is in it."""
    with contextlib.suppress(OSError):
        for path in run.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        run.rmdir()


def new_directory(name: str | None, out: str | None) -> pathlib.Path:
    """Makes an empty directory: `out`, or the first free of `runs/<name>`, `runs/<name>-2` and so on.

    Raises:
        UserError: `out` is taken, or the directory cannot be made.
        RunFailed: the disk is full or fails.
    """
    try:
        if out is None:
            return _new_folder(pathlib.Path("runs") / (name or "run"))
        path = pathlib.Path(out)
        if path.exists() and not path.is_dir():
            raise UserError(f"--out {out}: is a file; name a directory")
        if path.exists() and not _is_free(path):
            raise UserError(f"--out {out}: is not an empty directory; name a new one, or use --resume {out}")
        path.mkdir(parents=True, exist_ok=True, mode=0o755)
    except OSError as error:
        raise of_system(error, f"--out {out or 'runs/'}: cannot make the directory: {error.strerror}") from None
    return path


def _is_free(folder: pathlib.Path) -> bool:
    """Whether a directory holds nothing but what a program leaves that was killed before its run was there."""
    return all(path.name == LOCK or path.name.startswith(TEMPORARY) for path in folder.iterdir())


def tidy(run: pathlib.Path, named: Collection[str] | None = None) -> None:
    """Removes the half-written files of processes that were killed, and makes the directory of the models.

    The caller holds the run directory.

    Args:
        run: the run directory.
        named: files of roles that its record names. Others were whole but not announced when their process ended, and
            are removed too: no later process looks for them, since its files have other names. None keeps all.
    """
    (run / MODELS).mkdir(mode=0o755, exist_ok=True)
    leftovers = [path for folder in (run, *(run / name for name in WRITTEN)) for path in folder.glob(f"{TEMPORARY}*")]
    if named is not None and not (run / RESCUED).exists():  # which may name more
        of_roles = [path for name in WRITTEN for path in (run / name).glob("*.pt") if OF_ROLES.match(path.name)]
        leftovers += [path for path in of_roles if path.relative_to(run).as_posix() not in named]
    for path in leftovers:
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def writing(run: pathlib.Path) -> Iterator[None]:
    """Reports what keeps a run directory from being written.

    Raises:
        UserError: it is read-only, or something of another kind is in the way.
        RunFailed: the disk is full or fails.
    """
    try:
        yield
    except OSError as error:
        raise of_system(error, f"{error.filename or run}: cannot be written: {error.strerror or error}") from None


def _new_folder(wanted: pathlib.Path) -> pathlib.Path:
    """Makes `wanted`, or the first free of `wanted-2`, `wanted-3` and so on."""
    number = 1
    while True:
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1


@contextlib.contextmanager
def claim(run: pathlib.Path) -> Iterator[None]:
    """Holds a run directory for this program alone; the system frees it when the program dies.

    Raises:
        UserError: another program holds it.
    """
    with contextlib.ExitStack() as held:
        with writing(run):
            held.enter_context(claimed(run, f"{run}: another program runs in this directory"))
        yield


def write_settings(run: pathlib.Path, settings: Settings) -> None:
    """Writes the resolved settings to the run's `config.yaml`."""
    write_whole(run / SETTINGS, dump(settings).encode())


def log_to(run: pathlib.Path, role: str) -> None:
    """Sends this process's log to the run's `log.txt`, a line a record, with the role's name."""
    with writing(run):
        handler = logging.FileHandler(run / "log.txt", encoding="utf-8")
    handler.setFormatter(LineFormatter(f"%(asctime)s {role} {os.getpid()} %(levelname)s %(message)s"))
    logger = logging.getLogger("aal")
    logger.setLevel(logging.INFO)
    for old in logger.handlers:  # of a run before this one in the same process
        old.close()
    logger.handlers = [handler]
    logging.raiseExceptions = False  # a log that cannot be written is no reason to fail


@contextlib.contextmanager
def logged(run: pathlib.Path, role: str) -> Iterator[None]:
    """Sends this process's log to the run's `log.txt` meanwhile."""
    logger = logging.getLogger("aal")
    before = logger.handlers
    log_to(run, role)
    try:
        yield
    finally:
        for handler in logger.handlers:
            handler.close()
        logger.handlers = before
