"""Downloading without noise, without waiting for ever, and without a change to files that are there."""

import contextlib
import os
import shutil
import socket
import sys
import tarfile
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from aal.storage.atomic import TEMPORARY

NETWORK_TIMEOUT_S = 60.0
ARCHIVES = {".bz2", ".gz", ".tar", ".tgz", ".xz", ".zip"}


@contextlib.contextmanager
def quiet_and_bounded() -> Iterator[None]:
    """Sends what is printed to standard error, ignores warnings and gives up on a network that does not answer.

    Archives whose files would leave their folder, or are links or devices, are an error.
    """
    timeout, unpack = socket.getdefaulttimeout(), getattr(tarfile.TarFile, "extraction_filter", None)
    socket.setdefaulttimeout(NETWORK_TIMEOUT_S)
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy's, about pickles of the year 2009
            yield
    finally:
        socket.setdefaulttimeout(timeout)
        tarfile.TarFile.extraction_filter = unpack


@contextlib.contextmanager
def downloads_into(root: Path, archives: Iterable[Path] = ()) -> Iterator[Path]:
    """Gives a temporary folder to download into; what is new in it is moved into `root` at the end.

    Files that are in `root` already are never replaced.

    Args:
        root: the folder that the files are for.
        archives: inside `root`, which need not be downloaded if they are right; they are copied.
    """
    root.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}download-", dir=root))
    try:
        for archive in archives:
            (temporary / archive.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(archive, temporary / archive.relative_to(root))
        yield temporary
        for parent, _, names in os.walk(temporary):
            target = root / Path(parent).relative_to(temporary)
            target.mkdir(exist_ok=True)
            for name in names:
                if not os.path.lexists(target / name):
                    os.rename(Path(parent, name), target / name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
