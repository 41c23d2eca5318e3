"""Turning a set into its prepared form, once."""

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import filelock

from aal.app.data.arrays import IMAGES, LABELS, META, Meta, write_meta
from aal.app.data.cifar import Cifar
from aal.app.data.digits import Digits
from aal.app.data.folders import ClassFolders, MiniImagenet
from aal.config.errors import UserError
from aal.config.settings import Settings
from aal.storage.atomic import TEMPORARY, sync, write_whole

FORMAT = 2  # of the prepared files; a new number prepares every set anew
INDEX = "index.json"
NAMES_TOLD = 20

log = logging.getLogger("aal")


class Loader(Protocol):
    """A kind of image set in the folder `root`; `variant` holds whatever of the settings changes its arrays."""

    variant: str
    root: Path

    def fetch(self) -> None:
        """Makes sure that the source files are there and whole."""

    def files(self) -> Mapping[str, Path]:
        """Returns the source files that are there, each by its name inside the set."""

    def write(self, folder: Path) -> Meta:
        """Writes images.npy and labels.npy."""


LOADERS: dict[str, Callable[[Settings], Loader]] = {
    "cifar-10": Cifar,
    "cifar-100": Cifar,
    "digits": Digits,
    "folder": ClassFolders,
    "mini-imagenet": MiniImagenet,
}


def prepare(settings: Settings) -> Path:
    """Returns the folder of the prepared set, which is made where it is not there yet.

    The folder's name tells the content of the source files and the settings that change the arrays, so a changed
    file gives another folder. The seed and the test share do not matter here.

    Raises:
        UserError: the images cannot be found, read or downloaded, or there is no place for the prepared ones.
    """
    loader = LOADERS[settings.data_type](settings)
    # Hidden, so that it is never taken for a class.
    place = Path(settings.prepared_dir or loader.root / ".prepared").expanduser()
    found = _known(place, loader)
    if found is None:
        try:
            place.mkdir(parents=True, exist_ok=True)
            with _alone(place):
                found = _known(place, loader)
                if found is None:
                    return _make(place, loader, settings.data_type)
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"prepared_dir: cannot write in {place}: {reason}; give another place") from None
    _remind(found)
    return found


def _digest(loader: Loader, describe: Callable[[Path], str]) -> str:
    whole = hashlib.blake2b(f"{FORMAT}\n{loader.variant}\n".encode(), digest_size=8)
    for name, path in loader.files().items():
        try:
            told = describe(path)
        except OSError:
            told = "cannot be read"
        whole.update(b"%s\0%s\n" % (os.fsencode(name), told.encode()))
    return whole.hexdigest()


def _stats(path: Path) -> str:
    stat = path.stat()
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"


def _content(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, hashlib.blake2b).hexdigest()


def _index(place: Path) -> dict[str, str]:
    """The set that belongs to each fingerprint of file stats, which saves reading every source file at every start."""
    try:
        index = json.loads((place / INDEX).read_bytes())
    except (OSError, ValueError):
        return {}
    return index if isinstance(index, dict) else {}


def _is_whole(folder: Path) -> bool:
    return all((folder / name).is_file() for name in (IMAGES, LABELS, META))


def _known(place: Path, loader: Loader) -> Path | None:
    name = _index(place).get(_digest(loader, _stats))
    return place / name if name and _is_whole(place / name) else None


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Holds the lock of the prepared folder; the system frees it when its holder dies."""
    lock = filelock.FileLock(place / ".lock")
    try:
        lock.acquire(timeout=1)
    except filelock.Timeout:
        log.info("another process prepares images in %s; waiting for it", place)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _make(place: Path, loader: Loader, data_type: str) -> Path:
    """Under the lock: fetches, writes and publishes a set, and enters it in the index."""
    for leftover in place.glob(f"{TEMPORARY}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    loader.fetch()
    stats = _digest(loader, _stats)
    target = place / f"{data_type}-{_digest(loader, _content)}"
    if _is_whole(target):
        _remind(target)
    else:
        log.info("preparing the images of %s in %s", data_type, target)
        _publish(target, loader, data_type, stats)
    write_whole(place / INDEX, json.dumps({**_index(place), stats: target.name}, indent=1).encode())
    return target


def _publish(target: Path, loader: Loader, data_type: str, stats: str) -> None:
    temporary = target.with_name(TEMPORARY + target.name)
    temporary.mkdir()
    try:
        meta = loader.write(temporary)
        write_meta(temporary, data_type, meta)
        if _digest(loader, _stats) != stats:
            raise UserError(f"data_dir: the images of {data_type} changed while they were read; start again")
        for path in (*temporary.iterdir(), temporary):
            sync(path)
        shutil.rmtree(target, ignore_errors=True)  # there only if somebody took files out of it
        os.rename(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync(target.parent)
    _warn(meta, target)


def _warn(meta: Meta, folder: Path) -> None:
    for name in meta.skipped[:NAMES_TOLD]:
        log.warning("%s: cannot be read as an image", name)
    if meta.skipped:
        log.warning("%d images cannot be read and are skipped; %s names them", len(meta.skipped), folder / META)
    for name in meta.left_out:
        log.warning("%s: holds no readable image; this class is left out", name)


def _remind(folder: Path) -> None:
    with contextlib.suppress(OSError, ValueError, KeyError):  # open_set tells of damage
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        if meta["skipped"]:
            log.warning("%d images cannot be read and are skipped; %s names them", len(meta["skipped"]), folder / META)
