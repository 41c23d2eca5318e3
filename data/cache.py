"""Where prepared sets are kept: in the cache of the user, or in `prepared_dir`.

What is prepared decides images and labels, so it is kept where only this user's program writes and never beside the
images: a set of images from elsewhere could bring prepared arrays that hold something else.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import filelock

from aal.app.data.arrays import read_regular
from aal.config.errors import UserError
from aal.config.settings import Settings

INDEX = "index.json"

log = logging.getLogger("aal")


def place_of(settings: Settings, root: Path | None) -> Path:
    """Returns the folder for the prepared forms of a set: `prepared_dir`, or one in the user's cache.

    Args:
        settings: of the run.
        root: the folder of the source files; None where there are none.

    Raises:
        UserError: this user has no home folder.
    """
    if settings.prepared_dir is not None:
        return Path(settings.prepared_dir).expanduser()
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "aal"
    except RuntimeError:
        raise UserError("prepared_dir: must be given, for the home folder of this user is unknown") from None
    if root is None:
        return cache / settings.data_type
    whole = root.resolve()
    name = re.sub(r"\W+", "-", whole.name, flags=re.ASCII)[:40]
    return cache / f"{name}-{hashlib.blake2b(os.fsencode(whole), digest_size=4).hexdigest()}"


def is_inside(path: object, place: Path) -> bool:
    """Whether what an OSError calls its file is in a place."""
    return isinstance(path, str | bytes) and Path(os.fsdecode(path)).is_relative_to(place)


def read_index(place: Path) -> dict[str, str]:
    """Returns the set that belongs to each fingerprint of file stats; none where the index is absent or damaged.

    It saves reading every source file at every start.
    """
    try:
        index = json.loads(read_regular(place / INDEX))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(index, dict):
        return {}
    return {key: name for key, name in index.items() if isinstance(name, str) and re.fullmatch(r"[\w-]+", name)}


@contextlib.contextmanager
def locked(place: Path) -> Iterator[None]:
    """Holds the lock of a place; the system frees it when its holder dies.

    Raises:
        OSError: nothing can be written there.
    """
    with tempfile.TemporaryFile(dir=place):  # fails where no file can be, for which the lock would wait
        pass
    path = place / ".lock"
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=1)
    except filelock.Timeout:
        log.info("another process prepares images in %s; waiting for it", place)
        lock.acquire()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: who waits for it then locks a new one
        lock.release()
